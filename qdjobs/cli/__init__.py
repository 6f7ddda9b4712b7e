"""The commands of `flask jobs`."""
