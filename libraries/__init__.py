"""What every part shares; knows nothing of `workers` or `components`."""
