"""Jobs by HTTP: the API, the dashboard, the metrics, and errors as answers."""
