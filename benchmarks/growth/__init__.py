"""Many workers on one Redis, and many jobs in it: what grows, and where one Redis ends."""
