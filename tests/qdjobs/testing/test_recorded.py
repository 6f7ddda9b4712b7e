"""recorded_jobs: every way to enqueue is recorded, checked, and reaches no Redis."""

import re
import threading
import unittest
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask, current_app
from redis import Redis

from libraries.job_manager import enqueue_background_job as imported_by_name
from qdjobs import (
    InvalidJobError,
    JobNotFoundError,
    JobQueue,
    UnknownTaskError,
    cancel_job,
    delete_job,
    enqueue_background_jobs,
    get_job_status,
    get_job_statuses,
    list_jobs,
    retry_job,
    wait_for_job,
)
from qdjobs.client.call import Call
from qdjobs.config import environment_config
from qdjobs.monitoring.health import read_health
from qdjobs.testing import RecordedJobs, eager_jobs, recorded_jobs
from tests.support import here, tasks
from tests.support.applications import use_redis

ADD = 'tests.support.tasks.add'
ECHO = 'tests.support.tasks.echo'
JOBS = '/api/jobs'


@pytest.fixture(autouse=True)
def nowhere(settings: pytest.MonkeyPatch) -> None:
    """No Redis answers: what needs one fails."""
    settings.setenv('JOBS_API_TOKEN', 'secret')
    use_redis(settings, 'redis://127.0.0.1:1/0')


@pytest.fixture
def queue() -> Iterator[JobQueue]:
    app = Flask('an-app')
    queue = JobQueue(app)
    queue.add('add', ADD, job_queue='high')
    with app.app_context():
        yield queue


@pytest.fixture
def jobs() -> Iterator[RecordedJobs]:
    with recorded_jobs() as jobs:
        yield jobs


def test_every_way_to_enqueue_is_recorded(jobs: RecordedJobs, queue: JobQueue) -> None:
    imported_by_name(ADD, 1, job_timeout='1m')
    queue.enqueue('add', 2)
    queue.using(job_delay='5m').enqueue('add', 3)
    enqueue_background_jobs(ADD, [{'a': 4}, {'a': 5}], job_id='batch')
    thread = threading.Thread(target=imported_by_name, args=(ADD, 6))
    thread.start()
    thread.join()
    client = current_app.test_client()
    client.environ_base['HTTP_AUTHORIZATION'] = 'Bearer secret'
    answer = client.post(JOBS, json={'task': 'add', 'params': {'a': 7}})
    assert answer.status_code == 201
    assert client.get(answer.location).get_json()['status'] == 'queued'
    numbers = [{**dict(zip('a', job.args, strict=False)), **job.kwargs}['a'] for job in jobs]
    assert numbers == [1, 2, 3, 4, 5, 6, 7]
    assert [job.options.queue for job in jobs[:4]] == ['default', 'high', 'high', 'default']
    assert [job.id for job in jobs[3:5]] == ['batch-0', 'batch-1']
    statuses = get_job_statuses([job.id for job in jobs])
    assert [status['status'] for status in statuses] == ['queued'] * 2 + ['scheduled'] + [
        'queued'
    ] * 4


def test_every_check_of_a_real_enqueue_happens(jobs: RecordedJobs, queue: JobQueue) -> None:
    @queue.before_enqueue
    def refuse(call: Call) -> None:
        if call.args == (13,):
            raise LookupError('unlucky')

    mistakes: tuple[tuple[Callable[[], object], type[Exception]], ...] = (
        (lambda: imported_by_name('tests.support.tasks.ad'), UnknownTaskError),
        (lambda: imported_by_name(ADD, '1'), InvalidJobError),
        (lambda: imported_by_name(ADD, 1, job_queue='none'), InvalidJobError),
        (lambda: imported_by_name(ECHO, object()), InvalidJobError),
        (lambda: imported_by_name(ECHO, 'x' * 1_000_001), InvalidJobError),
        (lambda: imported_by_name(ADD, 13), LookupError),
    )
    for wrong, error in mistakes:
        with pytest.raises(error):
            wrong()
    assert len(jobs) == 0


def test_a_job_that_waits_already_is_not_added_again(jobs: RecordedJobs) -> None:
    first, second = (imported_by_name(ADD, number, job_id='one') for number in (1, 2))
    assert (first.id, second.id) == ('one', 'one')
    assert second.description == f'{ADD}(1)'
    assert len(jobs) == 1


def test_a_recorded_job_can_be_read_cancelled_retried_and_deleted(jobs: RecordedJobs) -> None:
    job = imported_by_name(ADD, 1, job_queue='low', job_meta={'tenant': 7})
    assert job.get_status().value == 'queued'
    assert get_job_status(job.id)['meta'] == {'tenant': 7}
    assert wait_for_job(job.id, 0)['status'] == 'queued'
    assert [one['id'] for one in list_jobs(queue='low')] == [job.id]
    assert list_jobs(queue='high') == list_jobs('failed') == []
    with pytest.raises(InvalidJobError, match='is queued, and cannot be tried again'):
        retry_job(job.id)
    assert cancel_job(job.id) == get_job_status(job.id)['status'] == 'canceled'
    retry_job(job.id)
    assert get_job_status(job.id)['status'] == 'queued'
    assert delete_job(job.id) == 'canceled'
    assert delete_job(job.id) == 'deleted'
    for missing in (get_job_status, cancel_job, delete_job, retry_job):
        with pytest.raises(JobNotFoundError):
            missing(job.id)
    assert len(jobs) == 1


def test_what_needs_a_redis_says_so(jobs: RecordedJobs) -> None:
    with pytest.raises(RuntimeError, match=r'This needs a Redis, and qdjobs\.testing keeps'):
        read_health()
    with pytest.raises(RuntimeError, match='where RQ does not find them'):
        imported_by_name(ADD, 1).refresh()


@pytest.mark.parametrize(
    ('args', 'kwargs'),
    [
        ((), {}),
        ((1,), {}),
        ((), {'a': 1}),
        ((1, 5), {}),
        ((), {'b': 5, 'job_queue': 'high', 'job_timeout': '2m', 'job_max_retries': 1}),
        ((), {'job_meta': {'tenant': 7}}),
        ((), {'job_id': 'this', 'job_delay': '10m', 'job_result_ttl': '1h'}),
    ],
)
def test_a_job_is_found_by_what_is_named(
    jobs: RecordedJobs, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> None:
    imported_by_name(ADD, 2)
    imported_by_name(
        ADD,
        1,
        b=5,
        job_id='this',
        job_queue='high',
        job_timeout=120,
        job_max_retries=1,
        job_meta={'tenant': 7, 'other': 1},
        job_delay=600,
        job_result_ttl=3600,
    )
    found = jobs.assert_enqueued(ADD, *args, **kwargs)
    assert found.id == (jobs[0].id if not args and not kwargs else 'this')
    assert jobs.assert_enqueued(tasks.add, *args, **kwargs) == found
    with pytest.raises(AssertionError, match=f'{ADD}.* was enqueued. Enqueued:\n    {ADD}'):
        jobs.refute_enqueued(ADD, *args, **kwargs)


@pytest.mark.parametrize(
    ('args', 'kwargs', 'shown'),
    [
        ((3,), {}, ''),
        ((1,), {'b': 6}, ''),
        ((), {'job_queue': 'low'}, ''),  # that each line has
        ((), {'job_meta': {'tenant': 8}}, ", job_meta={'tenant': 7}"),
        ((), {'job_delay': '1m'}, ', due at .* UTC, job_delay=600'),
        ((), {'job_at': datetime.now(UTC) + timedelta(days=1)}, r', due .*, job_at=datetime\..*'),
        ((), {'job_id': 'that'}, ", job_id='this'"),
        ((), {'job_after': 'that'}, r', job_after=\(\)'),
        ((3,), {'job_max_retries': 2, 'job_timeout': 9}, ', job_max_retries=0, job_timeout=300'),
    ],
)
def test_a_job_that_differs_is_not_found_and_shown_with_what_was_named(
    jobs: RecordedJobs, args: tuple[Any, ...], kwargs: dict[str, Any], shown: str
) -> None:
    delay: dict[str, Any] = {'job_delay': 600} if 'due' in shown else {}
    imported_by_name(ADD, 1, 5, job_queue='high', job_meta={'tenant': 7}, job_id='this', **delay)
    jobs.refute_enqueued(ADD, *args, **kwargs)
    with pytest.raises(AssertionError) as failure:
        jobs.assert_enqueued(ADD, *args, **kwargs)
    shown = rf' was not enqueued\. Enqueued:\n    {ADD}\(1, 5\) in high{shown}'
    assert re.search(f'{shown}$', str(failure.value))


def test_an_object_is_found_by_itself_and_by_its_plain_form(
    settings: pytest.MonkeyPatch, jobs: RecordedJobs
) -> None:
    settings.setenv('JOB_TASK_MODULES', 'tests.support.here')
    environment_config.cache_clear()
    rows = ['a']
    post, letter = 'tests.support.here.post', here.Letter('zoe', {'a'})
    imported_by_name(post, letter)
    letter.tags.add('later')
    imported_by_name('tests.support.here.spoil', rows)
    rows.append('later')
    jobs.assert_enqueued(post, here.Letter('zoe', {'a'}))
    jobs.assert_enqueued(post, letter={'to': 'zoe', 'tags': ['a']})
    jobs.refute_enqueued(post, letter)
    jobs.assert_enqueued('tests.support.here.spoil', ['a'])
    with pytest.raises(InvalidJobError, match='Expected object, got str'):
        jobs.refute_enqueued(post, letter='zoe')


def test_an_assertion_says_that_nothing_was_enqueued_and_when_a_job_is_due(
    jobs: RecordedJobs,
) -> None:
    with pytest.raises(AssertionError, match=rf'{ADD}\(a=1\) was not enqueued. Nothing was enq'):
        jobs.assert_enqueued(ADD, a=1)
    at = datetime.now(UTC) + timedelta(days=1)
    imported_by_name(ADD, 1, job_at=at)
    jobs.assert_enqueued(ADD, job_at=at)
    assert repr(jobs) == f'<Enqueued:\n    {ADD}(1) in default, due at {at:%Y-%m-%d %H:%M:%S} UTC>'


@pytest.mark.parametrize('assertion', ['assert_enqueued', 'refute_enqueued'])
@pytest.mark.parametrize(
    ('task', 'kwargs', 'error'),
    [
        ('tests.support.tasks.ad', {}, UnknownTaskError),
        ('ad', {}, UnknownTaskError),
        (ADD, {'c': 1}, InvalidJobError),
        (ADD, {'job_que': 'high'}, InvalidJobError),
        (ADD, {'job_delay': 'soon'}, InvalidJobError),
        (ADD, {'job_queue': 'hihg'}, InvalidJobError),
        (ADD, {'a': '1'}, InvalidJobError),
    ],
)
def test_an_assertion_about_what_cannot_be_is_an_error(
    jobs: RecordedJobs, assertion: str, task: str, kwargs: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        getattr(jobs, assertion)(task, **kwargs)


def test_a_block_in_a_block_records_its_own(jobs: RecordedJobs) -> None:
    outer = imported_by_name(ADD, 1)
    with recorded_jobs() as inner:
        imported_by_name(ADD, 2)
        with pytest.raises(JobNotFoundError):
            get_job_status(outer.id)
    imported_by_name(ADD, 3)
    assert [job.args for job in inner] == [(2,)]
    assert [job.args for job in jobs] == [(1,), (3,)]


def test_after_the_block_jobs_go_to_redis_again(
    settings: pytest.MonkeyPatch, redis_url: str
) -> None:
    def fail_in(block: Callable[[], AbstractContextManager[RecordedJobs]]) -> None:
        with block():
            imported_by_name(ADD, 1)
            raise ZeroDivisionError

    use_redis(settings, redis_url)
    with Redis.from_url(redis_url) as connection:
        for block in (recorded_jobs, eager_jobs):
            with pytest.raises(ZeroDivisionError):
                fail_in(block)
        assert connection.dbsize() == 0
        imported_by_name(ADD, 1)
        assert connection.dbsize() > 0


class TestOfUnittest(unittest.TestCase):
    """The same without pytest's fixtures."""

    def setUp(self) -> None:
        self.jobs = self.enterContext(recorded_jobs())

    def test_it_works_in_unittest(self) -> None:
        imported_by_name(ADD, 1)
        self.jobs.assert_enqueued(ADD, a=1)


def test_the_modules_of_all_applications_count_outside_of_a_context(
    settings: pytest.MonkeyPatch, jobs: RecordedJobs
) -> None:
    for number, module in enumerate(('tests.support.tasks', 'tests.support.outcomes')):
        app = Flask('an-app')
        app.config.update(JOB_TASK_MODULES=module, JOB_KEY_PREFIX=f'app{number}')
        JobQueue(app)
    settings.setenv('JOB_TASK_MODULES', 'workers')
    environment_config.cache_clear()
    jobs.refute_enqueued('tests.support.outcomes.finish')
    jobs.refute_enqueued(ADD)
