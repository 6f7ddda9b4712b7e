"""What `rq worker` runs: a worker that loses no job. docs/reliability.md has the whole."""

from qdjobs.worker.worker import JobWorker

__all__ = ['JobWorker']
