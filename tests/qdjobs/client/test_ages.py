"""Listing by age: across all states, page by page, bounded, and without a change in Redis."""

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from rq import Queue

from libraries.job_manager import (
    cancel_job,
    enqueue_background_job,
    enqueue_background_jobs,
    wait_for_job,
)
from qdjobs.client import ages
from qdjobs.client.ages import Page, Wanted, list_by_age
from qdjobs.client.listing import MAX_SCANNED, walk_jobs
from qdjobs.client.status import STATUSES
from qdjobs.config import QUEUES
from qdjobs.errors import InvalidJobError
from tests.support.load import fill
from tests.support.shared_worker import SharedWorker

ADD, ECHO = 'tests.support.tasks.add', 'tests.support.tasks.echo'
ALL = Wanted(STATUSES, QUEUES)


def ids(page: Page) -> list[str]:
    return [job['id'] for job in page.jobs]


def test_the_job_just_enqueued_is_the_first_behind_112_finished_ones(
    shared_worker: SharedWorker,
) -> None:
    jobs = enqueue_background_jobs(ADD, [{'a': number} for number in range(112)], job_id='old')
    for job in jobs:
        wait_for_job(job.id, 60)
    with shared_worker.held():
        enqueue_background_job(ADD, 1, job_id='new', job_queue='low')
        page = list_by_age(ALL, 50, oldest_first=False)
    assert ids(page) == ['new', *(f'old-{number}' for number in range(111, 62, -1))]
    assert [job['status'] for job in page.jobs[:2]] == ['queued', 'finished']
    assert page.unread == 0


def test_the_order_is_that_of_creation_whatever_the_state() -> None:
    enqueue_background_job(ADD, 1, job_id='a', job_delay=600)
    enqueue_background_job(ADD, 1, job_id='b', job_queue='high')
    enqueue_background_job(ADD, 1, job_id='c', job_queue='low')
    enqueue_background_job(ADD, 1, job_id='d', job_delay=60)
    cancel_job('b')
    assert ids(list_by_age(ALL, 50, oldest_first=False)) == ['d', 'c', 'b', 'a']
    assert ids(list_by_age(ALL, 50, oldest_first=True)) == ['a', 'b', 'c', 'd']


@pytest.mark.parametrize('oldest_first', [False, True])
def test_pages_name_each_job_once_though_jobs_come_and_change_between_them(
    oldest_first: bool,
) -> None:
    before = [job.id for job in enqueue_background_jobs(ADD, [{'a': 1}] * 25)]
    found: list[str] = []
    cursor = None
    for _ in range(3):
        page = list_by_age(ALL, 10, oldest_first, cursor)
        found += ids(page)
        cursor = page.next
        for job_id in before[::7]:
            cancel_job(job_id)  # it moves to another registry
        if not oldest_first:
            enqueue_background_job(ADD, 1)
    assert cursor is None
    assert found == (before if oldest_first else before[::-1])


def test_a_selection_is_by_status_queue_and_task(connection: Redis) -> None:
    enqueue_background_job(ADD, 1, job_id='a')
    enqueue_background_job(ECHO, job_id='b', job_queue='low')
    Queue('low', connection=connection).enqueue('tests.support.tasks.echo', job_id='stock')
    cancel_job('a')
    for wanted, expected in (
        (Wanted(('queued',), QUEUES), ['stock', 'b']),
        (Wanted(STATUSES, ('default',)), ['a']),
        (Wanted(STATUSES, QUEUES, ADD), ['a']),
        (Wanted(('queued',), QUEUES, ADD), []),
    ):
        assert ids(list_by_age(wanted, 50, oldest_first=False)) == expected


def test_a_job_of_rq_whose_payload_is_plain_is_found_by_its_task(connection: Redis) -> None:
    enqueue_background_job(ADD, 1, job_id='a')
    connection.hdel('rq:job:a', 'task')
    assert ids(list_by_age(Wanted(STATUSES, QUEUES, ADD), 50, False)) == ['a']
    assert ids(list_by_age(Wanted(STATUSES, QUEUES, ECHO), 50, False)) == []


def test_of_more_jobs_than_it_reads_it_has_those_at_the_end_of_each_list(
    settings: pytest.MonkeyPatch,
) -> None:
    settings.setattr(ages, 'MAX_SCANNED', 20)
    many = [job.id for job in enqueue_background_jobs(ADD, [{'a': 1}] * 30)]
    few = [job.id for job in enqueue_background_jobs(ADD, [{'a': 1}] * 5, job_queue='low')]
    page = list_by_age(ALL, 50, oldest_first=False)
    assert ids(page) == [*few[::-1], *many[:14:-1]]
    assert (page.unread, page.next) == (15, None)
    page = list_by_age(ALL, 50, oldest_first=True)
    assert ids(page) == [*many[:15], *few]


def test_it_changes_nothing_and_reads_a_bounded_part(
    connection: Redis, dump: Callable[[], dict[bytes, Any]]
) -> None:
    fill(connection, 3000)  # 24 lists, of jobs without a record
    connection.zadd('rq:finished:low', {'expired': 1})
    connection.hset('rq:job:expired', mapping={'status': 'finished', 'origin': 'low'})
    connection.set('rq:failed:low', 'of another type')
    before = dump()
    connection.config_resetstat()
    page = list_by_age(ALL, 50, oldest_first=True)
    stats: Any = connection.info('commandstats')
    assert stats['cmdstat_hmget']['calls'] <= MAX_SCANNED + 100
    assert ids(page) == ['expired']
    assert dump() == before


@pytest.mark.parametrize('created', ['', 'soon', '9999-99-99', '\x1b[2J'])
def test_a_job_without_a_sound_time_is_the_oldest(connection: Redis, created: str) -> None:
    for job_id in 'abc':
        enqueue_background_job(ADD, 1, job_id=job_id)
    connection.hset('rq:job:b', 'created_at', created)
    page = list_by_age(ALL, 2, oldest_first=False)
    assert ids(page) == ['c', 'a']
    assert ids(list_by_age(ALL, 2, False, page.next)) == ['b']


@pytest.mark.parametrize('cursor', ['', 'queued.0.5', '1', '1.a b', f'{"1" * 30}.a', 'x.y'])
def test_a_cursor_of_another_listing_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidJobError, match='cursor must be'):
        list_by_age(ALL, 50, False, cursor)


def test_a_walk_reaches_every_job_though_each_leaves_its_list_meanwhile() -> None:
    made = [job.id for job in enqueue_background_jobs(ADD, [{'a': 1}] * 1234)]
    enqueue_background_job(ADD, 1, job_id='later', job_delay=60)
    walked = []
    for job in walk_jobs(('queued', 'scheduled'), QUEUES):
        walked.append(job['id'])
        cancel_job(job['id'])
    assert sorted(walked) == sorted([*made, 'later'])
