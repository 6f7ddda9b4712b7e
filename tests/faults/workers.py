"""Workers that die at one exact point, which FAULT names: a step that is entered or left.

They die as nobody can prevent: by a SIGKILL to themselves, and to their worker if FAULT_ALL is set.
"""

import os
import signal
from typing import Any

from rq import Worker

from qdjobs.worker import claims
from qdjobs.worker.lease import Claim
from qdjobs.worker.recorder import Outcome, Recorder
from qdjobs.worker.runner import Performer
from qdjobs.worker.supervisor import Run
from qdjobs.worker.worker import JobWorker


def die() -> None:
    if os.environ.get('FAULT_ALL'):
        os.kill(os.getsid(0), signal.SIGKILL)  # the worker leads the session
    os.kill(os.getpid(), signal.SIGKILL)


def reach(point: str) -> None:
    if os.environ.get('FAULT') == point:
        die()


class DyingPerformer(Performer):
    def perform_job(self, *args: Any) -> bool:
        reach('in the horse')
        done = super().perform_job(*args)
        reach('after the task')
        return done


class DyingRecorder(Recorder):
    def record(self, claim: Claim, outcome: Outcome, *args: Any) -> Any:
        reach('before the end')
        if args[:1] != (None,) and args:
            reach('before the end, with another job begun')
        ended = super().record(claim, outcome, *args)
        reach('after the end')
        return ended

    def _release_others(self, *args: Any) -> None:
        reach('before dependents')
        super()._release_others(*args)


class DyingJobWorker(JobWorker):
    performer_class = DyingPerformer

    def _compose(self) -> None:
        super()._compose()
        claims.SHORT = 1.0  # so that it claims ahead on a busy machine too
        self._recorder.__class__ = DyingRecorder

    def _start(self, claim: Claim) -> Run | None:
        reach('claimed')
        return super()._start(claim)

    def _go_on(self, *args: Any, **kwargs: Any) -> Run | None:
        following = super()._go_on(*args, **kwargs)
        if self._claims.ahead is not None:
            reach('claimed ahead')
        return following


class DyingStockWorker(Worker):
    """The control: RQ's own worker, dying at the same points."""

    def execute_job(self, *args: Any) -> None:
        reach('claimed')
        super().execute_job(*args)


class TerminatedJobWorker(JobWorker):
    """Gets a SIGTERM in the moment in which it has claimed a job."""

    def _start(self, claim: Claim) -> Run | None:
        os.kill(os.getpid(), signal.SIGTERM)
        return super()._start(claim)
