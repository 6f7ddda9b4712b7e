"""What workers do for the shop. A task may run twice."""
