"""The worker that `rq worker` runs: it loses no job. docs/reliability.md says how."""

from qdjobs.worker.worker import JobWorker

__all__ = ['JobWorker']
