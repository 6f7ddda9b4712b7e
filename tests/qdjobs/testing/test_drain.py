"""run_jobs: the real queues are drained in this process and thread."""

import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask, g
from redis import Redis
from rq import Queue

from qdjobs import (
    InvalidJobError,
    JobQueue,
    cancel_job,
    enqueue_background_job,
    enqueue_background_jobs,
    get_job_status,
    get_job_statuses,
)
from qdjobs.client.payload import PlainSerializer
from qdjobs.config import environment_config
from qdjobs.testing import run_jobs
from tests.support import here

HERE = 'tests.support.here'
OUTCOMES = 'tests.support.outcomes'


@pytest.fixture(autouse=True)
def modules(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_TASK_MODULES', f'{OUTCOMES},{HERE},tests.support.progress_tasks')
    environment_config.cache_clear()
    here.seen.clear()


@pytest.fixture
def shop() -> Iterator[Flask]:
    """An application with keys and queues of its own."""
    app = Flask('shop')
    app.config.update(JOB_KEY_PREFIX='shop', JOB_QUEUES='fast,slow')
    JobQueue(app)
    with app.app_context():
        yield app


def test_jobs_run_here_in_the_order_of_their_queues() -> None:
    enqueue_background_job(f'{HERE}.note', 3, job_queue='low')
    enqueue_background_jobs(f'{HERE}.note', [{'value': 1}, {'value': 2}], job_queue='high')
    ran = run_jobs()
    assert here.seen == [(threading.get_ident(), value) for value in (1, 2, 3)]
    assert [status['status'] for status in ran] == ['finished'] * 3
    assert run_jobs() == []


def test_jobs_that_jobs_enqueue_run_too() -> None:
    enqueue_background_job(f'{HERE}.note_later', 1)
    assert [status['task'] for status in run_jobs()] == [f'{HERE}.note_later', f'{HERE}.note']


def test_another_thread_can_run_them() -> None:
    enqueue_background_job(f'{HERE}.note', 1, job_timeout=1)
    thread = threading.Thread(target=run_jobs)
    thread.start()
    thread.join()
    assert here.seen == [(thread.ident, 1)]


def test_a_scheduled_job_and_a_retry_run_once_they_are_due() -> None:
    later = enqueue_background_job(f'{HERE}.note', 1, job_delay='1h')
    failing = enqueue_background_job(f'{OUTCOMES}.fail', job_max_retries=1, job_retry_delay='30m')
    assert [status['id'] for status in run_jobs()] == [failing.id]
    statuses = get_job_statuses([later.id, failing.id])
    assert [status['status'] for status in statuses] == ['scheduled', 'scheduled']
    in_an_hour = datetime.now(UTC) + timedelta(minutes=59)
    assert [status['id'] for status in run_jobs(now=in_an_hour)] == [failing.id]
    assert get_job_status(failing.id)['status'] == 'failed'
    assert run_jobs(now=in_an_hour + timedelta(minutes=2))[0]['id'] == later.id


def test_a_clock_that_a_test_has_turned_is_the_one_that_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    later = datetime.now(UTC) + timedelta(days=300)

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return later

    monkeypatch.setattr('qdjobs.client.options.datetime', Later)
    monkeypatch.setattr('time.time', later.timestamp)
    job = enqueue_background_job(f'{HERE}.note', 2, job_delay='1d')
    assert run_jobs(now=later) == []
    assert run_jobs(now=later + timedelta(days=2))[0]['id'] == job.id


def test_retries_follow_at_once_if_the_time_is_far_ahead() -> None:
    job = enqueue_background_job(f'{OUTCOMES}.third_time_lucky', job_max_retries=2)
    (status,) = run_jobs(now=datetime.now(UTC) + timedelta(days=1))
    assert (status['id'], status['result'], len(status['attempts'])) == (job.id, 3, 2)


def test_a_dependent_job_runs_after_the_other(connection: Redis) -> None:
    queue = Queue('default', connection=connection, serializer=PlainSerializer)
    first = queue.enqueue(f'{HERE}.note', 1)
    queue.enqueue(f'{HERE}.note', 2, depends_on=first)
    run_jobs()
    assert [value for _, value in here.seen] == [1, 2]


def test_an_application_with_its_own_keys_is_served(shop: Flask, connection: Redis) -> None:
    g.value = 'of the caller'
    enqueue_background_job(f'{HERE}.look', job_queue='fast')
    progress = enqueue_background_job('tests.support.progress_tasks.count', 10)
    failing = enqueue_background_job(f'{OUTCOMES}.fail_after_progress', job_max_retries=1)
    run_jobs(now=datetime.now(UTC) + timedelta(hours=1))
    assert here.seen == [threading.get_ident(), 'shop', None]  # a context of its own
    done = get_job_status(progress.id)['progress']
    assert done is not None
    assert done['done'] == 10
    status = get_job_status(failing.id)
    assert status['progress'] == {'done': 1, 'total': 1, 'message': 'half'}
    assert len(status['attempts']) == 2
    assert [key for key in connection.scan_iter() if not bytes(key).startswith(b'shop:')] == []
    assert connection.keys('*worker:*') == []


def test_an_exception_is_raised_once_it_is_recorded() -> None:
    failing = enqueue_background_job(f'{OUTCOMES}.fail')
    enqueue_background_job(f'{HERE}.note', 1)
    with pytest.raises(ValueError, match='it\nfailed'):
        run_jobs(raising=True)
    assert get_job_status(failing.id)['status'] == 'failed'
    assert here.seen == []
    run_jobs(raising=True)
    assert len(here.seen) == 1


def test_a_cancelled_job_and_a_record_that_cannot_be_read_stop_nothing(connection: Redis) -> None:
    cancel_job(enqueue_background_job(f'{HERE}.note', 1).id)
    broken = enqueue_background_job(f'{HERE}.note', 2)
    connection.hset(f'rq:job:{broken.id}', 'data', b'nonsense')
    enqueue_background_job(f'{HERE}.note', 3)
    run_jobs()
    assert [value for _, value in here.seen] == [3]
    assert get_job_status(broken.id)['status'] == 'failed'


def test_no_process_is_started() -> None:
    enqueue_background_job(f'{HERE}.pid')
    run_jobs()
    assert here.seen == [os.getpid()]


@pytest.mark.parametrize('now', [datetime(2030, 1, 1), 7, '1h'])  # noqa: DTZ001
def test_a_time_that_is_not_aware_is_refused(now: Any) -> None:
    with pytest.raises(InvalidJobError, match='now must be an aware datetime, such as'):
        run_jobs(now=now)


def test_jobs_without_an_end_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('qdjobs.testing.drain.MAX_RUNS', 20)
    enqueue_background_job(f'{HERE}.again')
    with pytest.raises(RuntimeError, match='run_jobs has run 20 jobs, and more wait'):
        run_jobs()
