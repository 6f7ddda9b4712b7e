"""A call becomes a job, a job becomes a status."""
