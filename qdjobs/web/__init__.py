"""Blueprints: the HTTP API, the dashboard, the metrics; and error responses."""
