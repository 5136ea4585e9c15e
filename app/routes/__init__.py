"""HTTP routes. Each module holds one router; what they answer is made in `app.model_service`."""
