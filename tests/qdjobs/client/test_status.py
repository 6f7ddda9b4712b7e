"""The line that states an error, and what other tools have written into a record."""

import asyncio
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis
from rq.job import JobStatus

from libraries.job_manager import enqueue_background_job, get_job_status, wait_for_job
from qdjobs import Progress
from qdjobs.client.payload import PlainSerializer
from qdjobs.client.status import STATUSES, last_line
from tests.support.shared_worker import SharedWorker


def a_group() -> None:
    raise ExceptionGroup('two', [ValueError('a'), ExceptionGroup('inner', [KeyError('b')])])


def a_task_group() -> None:
    async def fail() -> None:
        raise ValueError('too wide')

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())

    with ThreadPoolExecutor() as threads:  # Playwright has a loop in the thread of the tests
        threads.submit(lambda: asyncio.run(work())).result()


def a_group_while_an_error_is_handled() -> None:
    try:
        raise ValueError('first')
    except ValueError:
        a_group()


def a_group_of_a_group() -> None:
    try:
        a_group()
    except ExceptionGroup as error:
        raise ExceptionGroup('outer', [error]) from error


def an_error_after_a_group() -> None:
    try:
        a_group()
    except ExceptionGroup as error:
        raise RuntimeError('after the group') from error


def a_group_with_a_member_that_quotes_a_traceback() -> None:
    quoted = 'the child said\nTraceback (most recent call last):\n  File "x"\nKeyError: 1'
    raise ExceptionGroup('quoting', [ValueError(quoted)])


def a_group_with_notes() -> None:
    error = ExceptionGroup('of several\nlines', [ValueError('a')])
    error.add_note('a note\nof two lines')
    raise error


def a_long_group() -> None:
    raise ExceptionGroup('many', [ValueError(number) for number in range(30)])


ERRORS = {
    a_group: 'ExceptionGroup: two (2 sub-exceptions)',
    a_task_group: 'ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)',
    a_group_while_an_error_is_handled: 'ExceptionGroup: two (2 sub-exceptions)',
    a_group_of_a_group: 'ExceptionGroup: outer (1 sub-exception)',
    an_error_after_a_group: 'RuntimeError: after the group',
    a_group_with_a_member_that_quotes_a_traceback: 'ExceptionGroup: quoting (1 sub-exception)',
    a_group_with_notes: 'ExceptionGroup: of several',
    a_long_group: 'ExceptionGroup: many (30 sub-exceptions)',
}


@pytest.mark.parametrize('leading', ['', 'work horse 7 says:\n', '\n\n'])
@pytest.mark.parametrize(('fail', 'line'), ERRORS.items())
def test_the_error_of_a_group_is_its_own(fail: Callable[[], None], line: str, leading: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        fail()
    text = ''.join(traceback.format_exception(caught.value))
    assert last_line(leading + text) == line


def test_the_status_of_a_job_shows_the_error_of_a_group(shared_worker: SharedWorker) -> None:
    job = enqueue_background_job('tests.support.tasks.fail_in_a_task_group')
    status = wait_for_job(job.id, 60)
    assert status['error'] == 'ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)'


# Records of other writers


@pytest.mark.parametrize(
    ('written', 'read'),
    [
        ({'done': 1, 'total': 2, 'message': 'x'}, {'done': 1, 'total': 2, 'message': 'x'}),
        ({'done': 1}, {'done': 1, 'total': None, 'message': ''}),
        ({'done': 1, 'total': 2.5, 'message': 7}, {'done': 1, 'total': None, 'message': ''}),
        ({'done': 1, 'total': True, 'more': [2]}, {'done': 1, 'total': None, 'message': ''}),
        ({'done': True, 'total': 2, 'message': 'x'}, None),
        ({'done': 0.5}, None),
        ({}, None),
        ([1, 2], None),
        ('half', None),
    ],
)
def test_a_progress_has_its_three_keys_or_is_none(
    connection: Redis, written: object, read: Progress | None
) -> None:
    job = enqueue_background_job('tests.support.tasks.add', 1)
    connection.hset(job.key, 'meta', PlainSerializer.dumps({'progress': written}))
    assert get_job_status(job.id)['progress'] == read


@pytest.mark.parametrize('status', STATUSES)
def test_every_status_of_rq_is_read_as_it_is(connection: Redis, status: str) -> None:
    job = enqueue_background_job('tests.support.tasks.add', 1)
    connection.hset(job.key, 'status', status)
    assert get_job_status(job.id)['status'] == JobStatus(status).value


def test_there_is_no_status_of_rq_beside_these() -> None:
    assert {status.value for status in JobStatus} == set(STATUSES)


@pytest.mark.parametrize('text', [b'', b'QUEUED', b'paused', b'\xff'])
def test_an_unknown_status_is_read_as_created(connection: Redis, text: bytes) -> None:
    job = enqueue_background_job('tests.support.tasks.add', 1)
    connection.hset(job.key, 'status', text)
    assert get_job_status(job.id)['status'] == 'created'
