"""The artboard: an HTTP API for drawings, and the page that uses it."""
