"""Who may ask the service what, and how much: keys, quotas, and what a browser's page may do.

Boundary: from a request's head to the caller behind it. What is asked, others answer; they know the caller by
`app.access.caller` alone.
"""
