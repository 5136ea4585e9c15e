"""The models that are served side by side, each by its name: which there are, and how they come and go.

Boundary: whole models, from a file of names to what answers for each. What a model answers is `app.model_service`,
`app.completions` and `app.sessions`; how its engine is run is `app.scheduler`.
"""
