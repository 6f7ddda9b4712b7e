"""Code that tasks and web components share; it imports neither `workers` nor `components`."""
