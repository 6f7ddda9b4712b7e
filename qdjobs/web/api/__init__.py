"""The HTTP API of jobs. docs/http.md describes it."""
