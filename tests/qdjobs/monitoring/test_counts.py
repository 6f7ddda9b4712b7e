"""What is counted about jobs: once each, in the step that it counts, and whatever a record says."""

import signal
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from redis import Redis
from rq import Queue
from rq.job import JobStatus
from rq.utils import utcformat

from libraries.job_manager import (
    cancel_job,
    enqueue_background_job,
    enqueue_background_jobs,
    get_job_status,
    retry_job,
)
from qdjobs.client.counts import BUCKETS, OUTCOMES
from qdjobs.client.payload import PlainSerializer
from qdjobs.config import environment_config
from qdjobs.monitoring.counts import Histogram, read_counts
from qdjobs.worker.ending import Ending
from qdjobs.worker.lease import claim_job, claim_request, end_run
from tests.support.jobs import done
from tests.support.processes import Worker, eventually, kill_group
from tests.support.shared_worker import SharedWorker

ADD = 'tests.support.tasks.add'
FAIL = 'tests.support.tasks.fail'
SLEEP = 'tests.support.tasks.sleep'
MAX_LABELS = 300
AT_ONCE: dict[str, Any] = {'job_max_retries': 1, 'job_retry_delay': 0}


def counted(task: str = ADD, queue: str = 'default') -> dict[str, int]:
    """What is counted about the jobs of a task and a queue, without what is 0."""
    jobs = read_counts().jobs
    found = {outcome: jobs[outcome].get((queue, task), 0) for outcome in OUTCOMES}
    return {outcome: number for outcome, number in found.items() if number}


def bounds_of(histogram: Histogram) -> list[str]:
    """The bound of each run, the smallest first."""
    bounds, before = [], 0
    for bound, number in zip((*BUCKETS, 'inf'), histogram.cumulative, strict=True):
        bounds += [bound] * (number - before)
        before = number
    return bounds


def ago(seconds: float) -> str:
    return utcformat(datetime.now(UTC) - timedelta(seconds=seconds))


# Once each


def test_outcomes_are_counted_by_queue_and_task(shared_worker: SharedWorker) -> None:
    for job in (
        enqueue_background_job(ADD, 1),
        enqueue_background_job(ADD, 1),
        enqueue_background_job(ADD, 1, job_queue='high'),
        enqueue_background_job(FAIL, job_queue='low', job_max_retries=2, job_retry_delay=0),
    ):
        done(job)
    assert counted(ADD) == {'enqueued': 2, 'finished': 2}
    assert counted(ADD, 'high') == {'enqueued': 1, 'finished': 1}
    assert counted(FAIL, 'low') == {'enqueued': 1, 'retried': 2, 'failed': 1}
    assert counted(FAIL) == counted('other') == {}


def test_what_is_enqueued_is_counted_once() -> None:
    enqueue_background_jobs(ADD, [{'a': 1}] * 3)
    enqueue_background_job(ADD, 1, job_delay=60)
    for _ in range(2):
        enqueue_background_jobs(ADD, [{'a': 1}] * 2, job_id='twice')
    assert counted() == {'enqueued': 6}


def test_a_cancelled_job_that_is_retried_is_enqueued_again() -> None:
    job = enqueue_background_job(ADD, 1)
    for _ in range(2):
        cancel_job(job.id)
    assert counted() == {'enqueued': 1, 'canceled': 1}
    retry_job(job.id)
    assert counted() == {'enqueued': 2, 'canceled': 1}


@pytest.mark.slow
def test_a_lost_run_and_a_stopped_job_are_no_failures(own_worker: Worker) -> None:
    job = enqueue_background_job(SLEEP, 600)
    with own_worker() as worker:
        eventually(lambda: get_job_status(job.id)['status'] == 'started')
        kill_group(worker.pid)
    with own_worker():
        eventually(lambda: counted(SLEEP) == {'enqueued': 1, 'lost': 1})
        eventually(lambda: get_job_status(job.id)['status'] == 'started')
        cancel_job(job.id)
        done(job)
    assert counted(SLEEP) == {'enqueued': 1, 'lost': 1, 'stopped': 1}


@pytest.mark.slow
def test_a_released_run_is_not_counted(own_worker: Worker) -> None:
    job = enqueue_background_job(SLEEP, 600)
    with own_worker(JOB_SHUTDOWN_GRACE='1') as worker:
        eventually(lambda: get_job_status(job.id)['status'] == 'started')
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0
    assert get_job_status(job.id)['status'] == 'queued'
    assert counted(SLEEP) == {'enqueued': 1}
    assert read_counts().times == {'waiting': {}, 'running': {}}


def test_an_end_that_is_recorded_again_is_counted_once(connection: Redis) -> None:
    enqueue_background_job(ADD, 1)
    run_next(connection, times=2)
    assert counted() == {'enqueued': 1, 'finished': 1}


def test_an_application_counts_under_its_own_prefix(
    settings: pytest.MonkeyPatch, connection: Redis
) -> None:
    settings.setenv('JOB_KEY_PREFIX', 'shop')
    environment_config.cache_clear()
    enqueue_background_job(ADD, 1)
    assert counted() == {'enqueued': 1}
    assert not connection.keys('rq:metrics*')


# How long


def test_times_are_measured_by_task(shared_worker: SharedWorker, connection: Redis) -> None:
    with shared_worker.held():
        job = enqueue_background_job(SLEEP, 0.03)
        connection.hset(job.key, 'enqueued_at', ago(100))
    done(job)
    times = read_counts().times
    assert list(times['waiting']) == list(times['running']) == [SLEEP]
    assert bounds_of(times['waiting'][SLEEP]) == ['300']
    assert times['waiting'][SLEEP].seconds == pytest.approx(100, abs=60)
    [bound] = bounds_of(times['running'][SLEEP])
    assert 0.1 <= float(bound) <= 60
    assert 0.03 <= times['running'][SLEEP].seconds <= float(bound)


def test_a_delayed_job_waits_from_when_it_is_due(
    shared_worker: SharedWorker, connection: Redis
) -> None:
    """Its retry does not."""
    with shared_worker.held():
        job = enqueue_background_job(FAIL, job_delay=60, **AT_ONCE)
        due = connection.time()[0] - 100
        connection.zadd('rq:scheduled:default', {job.id: due})
    done(job)
    first, second = bounds_of(read_counts().times['waiting'][FAIL])
    assert float(first) <= 60
    assert second == '300'


def test_clocks_that_differ_measure_nothing_negative(
    shared_worker: SharedWorker, connection: Redis
) -> None:
    with shared_worker.held():
        for seconds in (100, -1000):
            job = enqueue_background_job(ADD, 1)
            connection.hset(job.key, 'enqueued_at', ago(seconds))
    done(job)
    waiting = read_counts().times['waiting'][ADD]
    assert bounds_of(waiting) == ['0.005', '300']
    assert 100 <= waiting.seconds <= 300


# Whatever a record says

BAD_TASKS: list[str | bytes] = ['', 'a|b', 'a b', 'a.' * 200, b'\xff', 'a\n', '"}', 'ä.ö']
BAD_MOMENTS = ['', 'x', 'nan', 'inf', '-inf', '1e400', '-9e12', '-1e300', '0x10']


def run_next(connection: Redis, times: int = 1) -> None:
    """Claim the next job, and record so many times that it has finished."""
    claim = claim_job(connection, claim_request('tester', uuid4().hex, 30, ['default'])).claim
    assert claim is not None
    ending = Ending(
        status='finished',
        moment=ago(0),
        ended_at=ago(0),
        kind=1,
        enqueued_at=1000.0,
        execution_started_at=1001.0,
        execution_ended_at=1002.0,
        counter='successful_job_count',
        ttl=60,
    )
    for _ in range(times):
        assert end_run(connection, claim.lease, ending.encode()).state == 'finished'


@pytest.mark.parametrize('task', BAD_TASKS)
def test_a_task_that_is_no_path_is_counted_as_other(connection: Redis, task: str | bytes) -> None:
    job = enqueue_background_job(ADD, 1)
    connection.hset(job.key, 'task', task)
    run_next(connection)
    assert counted() == {'enqueued': 1}
    assert counted('other', 'other') == {'finished': 1}
    counts = read_counts()
    assert sum(counts.jobs['finished'].values()) == 1
    assert list(counts.times['running']) == ['other']


@pytest.mark.parametrize('moment', BAD_MOMENTS)
def test_a_moment_that_is_none_disturbs_no_sum(connection: Redis, moment: str) -> None:
    for _ in range(2):
        job = enqueue_background_job(ADD, 1)
        connection.hset(job.key, 'due_at', moment)
        run_next(connection)
    waiting = read_counts().times['waiting'][ADD]
    assert waiting.cumulative[-1] == 2
    assert 0 <= waiting.seconds < 1e9
    assert counted() == {'enqueued': 2, 'finished': 2}


@pytest.mark.parametrize('moment', ['0001-01-01T00:00:00', '9999-12-31T23:59:59.999999Z'])
def test_a_moment_that_no_clock_shows_ends_no_worker(
    shared_worker: SharedWorker, connection: Redis, moment: str
) -> None:
    with shared_worker.held():
        job = enqueue_background_job(ADD, 1)
        connection.hset(job.key, 'enqueued_at', moment)
    assert done(job)['status'] == 'finished'
    assert counted() == {'enqueued': 1, 'finished': 1}


def test_a_job_of_stock_rq_is_counted_under_its_queue(
    shared_worker: SharedWorker, connection: Redis
) -> None:
    queue = Queue('low', connection, serializer=PlainSerializer)
    job = queue.enqueue(ADD, 1)
    eventually(lambda: job.get_status() == JobStatus.FINISHED)
    assert counted('other', 'low') == {'finished': 1}


@pytest.mark.slow
def test_the_number_of_labels_is_bounded(connection: Redis) -> None:
    enqueue_background_job(ADD, 1)
    run_next(connection)
    for number in range(MAX_LABELS + 20):
        job = enqueue_background_job(ADD, 1)
        connection.hset(job.key, 'task', f'module.task_{number}')
        run_next(connection)
    assert counted() == {'enqueued': MAX_LABELS + 21, 'finished': 1}
    assert counted('module.task_0') == {'finished': 1}
    assert counted('other', 'other') == {'finished': 21}
    size = connection.hlen('rq:metrics')
    job = enqueue_background_job(ADD, 1)
    connection.hset(job.key, 'task', 'module.another')
    run_next(connection)
    assert connection.hlen('rq:metrics') == size
    assert len(read_counts().times['running']) == MAX_LABELS + 1


def test_fields_are_found_without_a_search(connection: Redis) -> None:
    """Which a small hash would need, since Redis keeps it as a list."""
    enqueue_background_job(ADD, 1)
    assert connection.object('encoding', 'rq:metrics') == b'hashtable'


# Whatever is in Redis


@pytest.mark.parametrize('key', ['rq:metrics', 'rq:metrics:labels'])
def test_a_key_of_another_type_disturbs_nothing(
    connection: Redis, shared_worker: SharedWorker, key: str
) -> None:
    with shared_worker.held():
        connection.set(key, 'another')
        job = enqueue_background_job(ADD, 1)
        failing = enqueue_background_job(FAIL, **AT_ONCE)
        cancel_job(job.id)
        retry_job(job.id)
    assert done(job)['status'] == 'finished'
    assert len(done(failing)['attempts']) == 2
    assert 'WRONGTYPE' not in shared_worker.said()
    assert not any(counted())
    assert connection.get(key) == b'another'


def test_what_is_no_count_counts_nothing(connection: Redis) -> None:
    connection.hset(
        'rq:metrics',
        mapping={
            f'finished|default|{ADD}|1': 'many',
            f'failed|default|{ADD}|1': '9' * 400,
            f'retried|default|{ADD}|1': '-5',
            f'lost|default|{ADD}|': 3,
            f'waiting|{ADD}|7': 1,
            f'running|{ADD}|sum': '1e9',
            'finished|x|y|z|1': 1,
            'invented|default|x|1': 1,
            'finished|de"fault|x|1': 1,
            b'\xff': 1,
            b'finished|default|\xff|1': 1,
            '': 1,
        },
    )
    assert counted() == {'lost': 3}
    assert {task for _, task in read_counts().jobs['finished']} == {ADD, 'other'}


def test_failures_that_an_earlier_version_has_counted_are_kept(
    connection: Redis, shared_worker: SharedWorker
) -> None:
    connection.hset('rq:failures', mapping={'low': 5, 'default': 'many'})
    done(enqueue_background_job(FAIL, job_queue='low'))
    assert counted('other', 'low') == {'failed': 5}
    assert counted(FAIL, 'low') == {'enqueued': 1, 'failed': 1}
    assert counted('other') == {}


def test_a_known_label_has_every_outcome(connection: Redis) -> None:
    """Prometheus sees no increase in a counter that it first sees at 1."""
    enqueue_background_job(ADD, 1)
    for outcome, found in read_counts().jobs.items():
        assert found.get(('default', ADD)) == (outcome == 'enqueued')
        assert found.get(('low', 'other')) == 0
