"""Run each job at once, where it is enqueued."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from rq.utils import utcformat

from qdjobs.client.stand_in import using
from qdjobs.client.states import ENDED
from qdjobs.testing.attempt import WORKER, run_attempt
from qdjobs.testing.memory import Memory, MemoryConnection, Record
from qdjobs.testing.recorded import RecordedJobs
from qdjobs.worker.lease import Lease
from qdjobs.worker.untrusted import restore_job


class EagerMemory(Memory):
    """A stand-in for Redis with a worker in it."""

    def __init__(self, raising: bool) -> None:
        super().__init__()
        self._raising = raising

    def added(self, record: Record) -> None:
        """Run the job, with its retries, before the call that enqueues it returns."""
        raised = None
        while record.state not in ENDED:
            raised = _run(record)
        if self._raising and raised is not None:
            raise raised
        for other in list(self.records.values()):
            if other.state == 'deferred' and not self.waits(other):
                other.write(status='queued')
                self.added(other)


@contextmanager
def eager_jobs(raising: bool = False) -> Iterator[RecordedJobs]:
    """Run the jobs that are enqueued in the block at once; nothing reaches Redis.

    A task runs in the process, the thread and the application context of its caller, with its
    arguments as they would arrive in a worker. Neither delays nor time-outs count; retries follow
    without waiting. The status of the job is what a worker would have recorded; with `raising`, the
    exception of the last attempt is raised too.
    """
    memory = EagerMemory(raising)
    with using(memory):
        yield RecordedJobs(memory)


def _run(record: Record) -> BaseException | None:
    """Run an attempt; return what it has raised."""
    moment = utcformat(datetime.now(UTC))
    record.write(status='started', started_at=moment, worker_name=WORKER)
    connection = MemoryConnection(record.fields)
    job = restore_job(record.call.id, record.fields, connection)
    record.end(run_attempt(job, Lease(job.id, '', WORKER, job.origin), connection))
    return job.raised
