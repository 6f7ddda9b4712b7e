"""Run each job at once, where it is enqueued."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from rq.utils import utcformat

from qdjobs.client.call import follower_call
from qdjobs.client.enqueue import pack_arguments, pack_metas
from qdjobs.client.options import FollowerName
from qdjobs.client.stand_in import using
from qdjobs.client.states import ENDED
from qdjobs.testing.attempt import WORKER, resolving_anew, run_attempt
from qdjobs.testing.memory import Memory, MemoryConnection, Record
from qdjobs.testing.recorded import RecordedJobs
from qdjobs.worker.lease import Lease
from qdjobs.worker.untrusted import restore_job

FOLLOWED_BY: dict[str, FollowerName] = {'finished': 'on_success', 'failed': 'on_failure'}
MAX_DEPTH = 30  # jobs inside one another


class EagerMemory(Memory):
    """A stand-in for Redis with a worker in it."""

    def __init__(self, raising: bool) -> None:
        super().__init__()
        self._raising = raising
        self._running = threading.local()  # how many jobs of a thread have enqueued one another
        self._is_too_deep = False

    def added(self, record: Record) -> None:
        """Run the job, with its retries, before the call that enqueues it returns."""
        depth = getattr(self._running, 'depth', 0)
        raised = None
        while record.state not in ENDED and not self._is_too_deep:
            self._running.depth = depth + 1
            self._is_too_deep = depth >= MAX_DEPTH
            try:
                raised = None if self._is_too_deep else _run(record)
            finally:
                self._running.depth = depth
        if self._is_too_deep and depth == 0:
            raise RuntimeError(
                f'Each of {MAX_DEPTH} jobs has enqueued another, which eager_jobs runs inside it: '
                'does a job enqueue itself? run_jobs runs one after the other.'
            )
        try:
            self._go_on_after(record)
        finally:
            if self._raising and raised is not None:
                raise raised

    def _go_on_after(self, record: Record) -> None:
        name = FOLLOWED_BY.get(record.state)
        if name is not None and getattr(record.call.options, name) is not None:
            follower = [follower_call(record.call, name)]
            self.enqueue(follower, pack_arguments(follower), pack_metas(follower))
        self.settle()


@contextmanager
def eager_jobs(raising: bool = False) -> Iterator[RecordedJobs]:
    """Run the jobs that are enqueued in the block at once; nothing reaches Redis.

    A task runs in the process, the thread and the application context of its caller, with its
    arguments as they would arrive in a worker. Neither delays nor time-outs count; retries follow
    without waiting. The status of the job is what a worker would have recorded; with `raising`, the
    exception of the last attempt is raised too.
    """
    memory = EagerMemory(raising)
    with using(memory), resolving_anew():
        yield RecordedJobs(memory)


def _run(record: Record) -> BaseException | None:
    """Run an attempt; return what it has raised."""
    moment = utcformat(datetime.now(UTC))
    record.write(status='started', started_at=moment, worker_name=WORKER)
    connection = MemoryConnection(record.fields)
    job = restore_job(record.call.id, record.fields, connection)
    record.end(run_attempt(job, Lease(job.id, '', WORKER, job.origin), connection))
    return job.raised
