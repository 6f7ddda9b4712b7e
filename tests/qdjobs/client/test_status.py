"""The line that states an error, and what other tools have written into a record."""

import asyncio
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis
from rq.job import JobStatus

from libraries.job_manager import (
    cancel_job,
    enqueue_background_job,
    get_job_status,
    retry_job,
    wait_for_job,
)
from qdjobs import Progress
from qdjobs.client.payload import PlainSerializer
from qdjobs.client.status import STATUSES, is_over, last_line
from qdjobs.worker import ending
from qdjobs.worker.ending import Ending
from tests.support.jobs import end_next
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


# A job that the code of no worker can run so far

WHY = "UnknownTaskError: 'shop.tasks.new' names no public function: shop.tasks has old."


def test_a_job_that_waits_for_newer_code_says_why_until_it_has_run(connection: Redis) -> None:
    job = enqueue_background_job('tests.support.tasks.add', 1, job_max_retries=1)
    end_next(connection, ending.unknown_here(time.time(), WHY))
    status = get_job_status(job.id)
    says = 'Waits for a worker of another version: restart the workers with the new code. '
    assert (status['status'], status['error']) == ('scheduled', says + WHY)
    assert status['attempts'] == []
    assert not is_over(status)
    connection.zadd('rq:scheduled:default', {job.id: 1})
    moment = '2026-01-01T00:00:00Z'
    end_next(connection, Ending('scheduled', moment, counter='failed_job_count', delay=600.0))
    status = get_job_status(job.id)
    assert (status['status'], status['error']) == ('scheduled', None)


def test_a_job_that_is_retried_waits_for_no_newer_code(connection: Redis) -> None:
    job = enqueue_background_job('tests.support.tasks.add', 1)
    end_next(connection, ending.unknown_here(time.time(), WHY))
    cancel_job(job.id)
    assert get_job_status(job.id)['error'] is None
    retry_job(job.id)
    assert not {b'unknown_since', b'unknown_why'} & connection.hgetall(job.key).keys()


def test_why_a_job_waits_is_encodable_and_short(connection: Redis) -> None:
    job = enqueue_background_job('tests.support.tasks.add', 1)
    end_next(connection, ending.unknown_here(time.time(), '\udc80' + 'x' * 10_000))
    assert len(get_job_status(job.id)['error'] or '') == 500


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
