"""Tasks that end in every way that a task can, for comparing who runs them."""

import sys
from typing import Any

from rq import Retry

from qdjobs import enqueue_background_job
from qdjobs.errors import PermanentJobError
from qdjobs.progress import current_job, report_progress, track


def finish() -> dict[str, Any]:
    return {'b': b'x', 'n': [1, (2, 3)]}


def describe() -> list[Any]:
    job = current_job()
    assert job is not None
    return [job.task, job.queue, job.attempt, job.is_last_attempt, job.meta]


def fail() -> None:
    raise ValueError('it\nfailed')


def fail_for_good() -> None:
    raise PermanentJobError('never')


def leave() -> None:
    sys.exit(3)


def return_an_object() -> Any:
    return object()


def return_too_much() -> bytes:
    return b'x' * 10_000_001


def ask_again() -> Any:
    return Retry(max=2)


def third_time_lucky() -> int:
    job = current_job()
    assert job is not None
    if job.attempt < 3:
        raise ConnectionError(f'attempt {job.attempt}')
    return job.attempt


def progress() -> str:
    for _ in track('abc', message='letters'):
        pass
    report_progress(7, 7, 'all')
    return 'done'


def fail_after_progress() -> None:
    report_progress(1, 1, 'half')
    raise ValueError('then')


async def wait() -> str:
    return 'awaited'


def enqueue_another() -> str:
    return enqueue_background_job('tests.support.outcomes.finish').id
