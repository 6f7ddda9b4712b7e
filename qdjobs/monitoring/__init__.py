"""Report the state of jobs, queues and workers. Changes nothing."""
