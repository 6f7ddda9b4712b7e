"""Tasks that run after others."""

from typing import Any

from qdjobs import get_job_status
from qdjobs.progress import current_job
from tests.support.tasks import append


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
