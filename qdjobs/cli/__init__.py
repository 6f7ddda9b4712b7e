"""`flask jobs`."""
