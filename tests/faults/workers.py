"""Workers that die at one exact point, which FAULT names: a method that is entered or left.

They die as nobody can prevent: by a SIGKILL to themselves, and to their worker if FAULT_ALL is set.
"""

import os
import signal
from typing import Any

from rq import Worker

from qdjobs.worker.worker import JobWorker


def die() -> None:
    if os.environ.get('FAULT_ALL'):
        os.kill(os.getppid(), signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def reach(point: str) -> None:
    if os.environ.get('FAULT') == point:
        die()


class DyingJobWorker(JobWorker):
    def execute_job(self, *args: Any) -> None:
        reach('claimed')
        super().execute_job(*args)
        reach('done')

    def perform_job(self, *args: Any) -> bool:
        reach('in the horse')
        return super().perform_job(*args)

    def handle_job_success(self, *args: Any, **kwargs: Any) -> None:
        reach('before success')
        super().handle_job_success(*args, **kwargs)
        reach('after success')

    def handle_job_failure(self, *args: Any, **kwargs: Any) -> None:
        reach('before failure')
        super().handle_job_failure(*args, **kwargs)
        reach('after failure')

    def enqueue_dependents(self, *args: Any) -> None:
        reach('before dependents')
        super().enqueue_dependents(*args)


class DyingStockWorker(Worker):
    """The control: RQ's own worker, dying at the same points."""

    def execute_job(self, *args: Any) -> None:
        reach('claimed')
        super().execute_job(*args)


class TerminatedJobWorker(JobWorker):
    """Gets a SIGTERM in the moment in which it has claimed a job."""

    def execute_job(self, *args: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        super().execute_job(*args)
