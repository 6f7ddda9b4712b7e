"""Tasks that run after others."""

from typing import Any

from qdjobs import enqueue_background_job, get_job_status, wait_for_job
from qdjobs.progress import current_job
from tests.support.tasks import append

TELL = 'tests.support.after_tasks.tell_late'


def summarise() -> list[list[Any]]:
    """The id, status, result and error of each parent."""
    job = current_job()
    assert job is not None
    return [
        [parent['id'], parent['status'], parent['result'], parent['error']]
        for parent in job.parents().values()
    ]


def write_parents(path: str, line: str) -> None:
    """Append how many of the parents have finished, so that none is missed."""
    job = current_job()
    assert job is not None
    finished = sum(parent['status'] == 'finished' for parent in job.parents().values())
    append(path, f'{line} {finished}')


def describe_end(ended_id: str) -> list[Any]:
    """What a job that follows another sees of that one, and of itself."""
    job, ended = current_job(), get_job_status(ended_id)
    assert job is not None
    return [ended_id, ended['status'], ended['result'], ended['error'], job.queue, job.meta]


def fail_after_end(ended_id: str) -> None:
    raise ConnectionError(f'nobody hears of {ended_id}')


def take_two(ended_id: str, other: int) -> None: ...


def return_much() -> bytes:
    return b'x' * 9_000_000


def measure() -> list[int]:
    job = current_job()
    assert job is not None
    return [len(parent['result']) for parent in job.parents().values()]


def tell_late(ended_id: str, path: str = '') -> int:
    """Read the result of the job that has ended, and have that job end again meanwhile."""
    result = get_job_status(ended_id)['result']
    assert isinstance(result, int)
    if result == 3:
        enqueue_background_job('tests.support.tasks.add', 2, job_id=ended_id, job_on_success=TELL)
        wait_for_job(ended_id, 20)
    return result
