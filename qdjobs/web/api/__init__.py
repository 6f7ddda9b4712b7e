"""The HTTP API. docs/http.md describes it."""
