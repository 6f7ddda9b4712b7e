"""What the tests of a worker do with jobs again and again."""

from pathlib import Path
from typing import Protocol
from uuid import uuid4

from click.testing import CliRunner, Result
from redis import Redis
from rq.cli.cli import main as rq_command
from rq.job import Job

from libraries.job_manager import enqueue_background_job, wait_for_job
from qdjobs.client.status import Status
from qdjobs.worker.ending import Ending
from qdjobs.worker.lease import claim_job, claim_request, end_run

ENDED = ('finished', 'failed', 'stopped', 'canceled')
PATIENCE = 120  # seconds, on a busy machine


class Process(Protocol):
    """A worker of a test: the shared one, or a `Popen` of its own."""

    def poll(self) -> int | None: ...


def done(job: Job) -> Status:
    """The status of the job once it has ended."""
    return done_id(job.id)


def done_id(job_id: str) -> Status:
    """The same for an id."""
    status = wait_for_job(job_id, PATIENCE)
    assert status['status'] in ENDED, status
    return status


def require_living(worker: Process) -> None:
    """Fail unless the worker runs the next job."""
    assert done(enqueue_background_job('tests.support.tasks.add', 1))['result'] == 3
    assert worker.poll() is None


def end_next(connection: Redis, ending: Ending, queue: str = 'default') -> None:
    """Claim the next job of a queue as a worker does, and end its run."""
    claim = claim_job(connection, claim_request('tester', uuid4().hex, 30, [queue])).claim
    assert claim is not None
    assert end_run(connection, claim.lease, ending.encode()).state == ending.status


def lines_of(path: Path) -> list[str]:
    """What tasks have written, one word a line."""
    return path.read_text().split() if path.exists() else []


def run_rq(*arguments: str) -> Result:
    """RQ's own command, such as `rq info`, in this process: a new one takes a second to start."""
    return CliRunner().invoke(rq_command, arguments)
