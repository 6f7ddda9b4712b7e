"""Enqueue jobs, read their status, list and control them."""
