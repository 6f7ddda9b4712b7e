"""How jobs, queues and workers are. Reads only."""
