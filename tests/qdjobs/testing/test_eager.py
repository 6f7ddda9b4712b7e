"""eager_jobs: a task runs where it is enqueued, and ends as in a worker."""

import functools
import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, current_app, g

from qdjobs import (
    CurrentJob,
    Failure,
    InvalidJobError,
    JobQueue,
    enqueue_background_job,
    enqueue_background_jobs,
    get_job_status,
    get_job_statuses,
    retry_job,
)
from qdjobs.config import environment_config
from qdjobs.testing import RecordedJobs, eager_jobs
from tests.support import here
from tests.support.applications import use_redis

HERE = 'tests.support.here'


@pytest.fixture(autouse=True)
def nowhere(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_TASK_MODULES', 'tests.support.outcomes,tests.support.here')
    use_redis(settings, 'redis://127.0.0.1:1/0')
    here.seen.clear()


@pytest.fixture
def jobs() -> Iterator[RecordedJobs]:
    with eager_jobs() as jobs:
        yield jobs


def test_a_task_runs_in_the_thread_and_the_context_of_its_caller(jobs: RecordedJobs) -> None:
    app = Flask('an-app')
    JobQueue(app)
    with app.app_context():
        g.value = 'of the caller'
        job = enqueue_background_job(f'{HERE}.look')
        assert here.seen == [threading.get_ident(), current_app.name, 'of the caller']
    assert get_job_status(job.id)['status'] == 'finished'
    jobs.assert_enqueued(f'{HERE}.look')


def test_other_threads_run_their_own_jobs(jobs: RecordedJobs) -> None:
    def work() -> None:
        enqueue_background_job(f'{HERE}.note', threading.get_ident())
        assert here.seen[-1] == (threading.get_ident(), threading.get_ident())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
        thread.join()
    assert len(here.seen) == len(jobs) == 4


def test_arguments_make_the_trip_through_the_payload(jobs: RecordedJobs) -> None:
    rows = [1, 2]
    enqueue_background_job(f'{HERE}.spoil', rows)
    assert rows == [1, 2]
    letter = here.Letter('zoe', {'a'})
    enqueue_background_job(f'{HERE}.post', letter)
    assert here.seen == [[1, 2, 'spoilt'], letter]
    assert here.seen[1] is not letter
    with pytest.raises(InvalidJobError, match='does not travel'):
        enqueue_background_job(f'{HERE}.note', object())


def test_an_exception_stays_in_the_status_and_is_logged(
    jobs: RecordedJobs, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        job = enqueue_background_job('tests.support.outcomes.fail', job_max_retries=2)
    status = get_job_status(job.id)
    assert (status['status'], status['error']) == ('failed', 'ValueError: it')
    assert len(status['attempts']) == 3
    assert 'raise ValueError' in caplog.text


def test_the_exception_of_the_last_attempt_is_raised_if_wanted() -> None:
    with eager_jobs(raising=True) as jobs:
        enqueue_background_job('tests.support.outcomes.third_time_lucky', job_max_retries=2)
        with pytest.raises(ConnectionError, match='attempt 2'):
            enqueue_background_job(
                'tests.support.outcomes.third_time_lucky', job_id='short', job_max_retries=1
            )
        assert get_job_status('short')['error'] == 'ConnectionError: attempt 2'
        assert len(jobs) == 2


@pytest.mark.parametrize('raised', [KeyboardInterrupt, GeneratorExit])
def test_what_ends_the_test_itself_is_raised(
    jobs: RecordedJobs, raised: type[BaseException]
) -> None:
    with pytest.raises(raised):
        enqueue_background_job(f'{HERE}.leave', raised.__name__)


def test_jobs_of_a_batch_and_jobs_of_jobs_run_in_their_order(jobs: RecordedJobs) -> None:
    enqueue_background_jobs(f'{HERE}.note', [{'value': 1}, {'value': 2}])
    enqueue_background_job(f'{HERE}.note_later', 3)
    assert [value for _, value in here.seen] == [1, 2, 3, 4]
    assert [status['status'] for status in get_job_statuses([job.id for job in jobs])] == [
        'finished'
    ] * 4


def test_delays_do_not_count_and_an_ended_job_runs_again(jobs: RecordedJobs) -> None:
    for value in (1, 2):
        enqueue_background_job(f'{HERE}.note', value, job_id='same', job_delay='1h')
    assert [value for _, value in here.seen] == [1, 2]
    failed = enqueue_background_job('tests.support.outcomes.fail')
    retry_job(failed.id)
    assert len(get_job_status(failed.id)['attempts']) == 1


def test_a_job_sees_itself_started(jobs: RecordedJobs) -> None:
    enqueue_background_job(f'{HERE}.look_at_itself')
    assert here.seen == ['started']


def test_hooks_surround_an_eager_job(jobs: RecordedJobs) -> None:
    app = Flask('an-app')
    seen: list[object] = []
    queue = JobQueue(app)

    @queue.around_job
    def surround(job: CurrentJob) -> Iterator[None]:
        seen.append(job.id)
        yield

    @queue.on_failure
    def report(failure: Failure) -> None:
        seen.append(type(failure.exception))

    with app.app_context():
        job: Any = enqueue_background_job('tests.support.outcomes.fail')
    assert seen == [job.id, ValueError]


def test_a_result_that_is_too_large_fails_with_advice() -> None:
    with eager_jobs():
        job = enqueue_background_job('tests.support.outcomes.return_too_much')
        error = get_job_status(job.id)['error'] or ''
    assert 'has 10.0 MB, more than JOB_MAX_RESULT (10 MB): write it to a file' in error


def test_the_settings_of_the_application_count(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_MAX_RESULT', '20')
    environment_config.cache_clear()
    with eager_jobs():
        job = enqueue_background_job('tests.support.outcomes.return_too_much')
        assert get_job_status(job.id)['status'] == 'finished'


def test_a_job_that_enqueues_itself_without_an_end_is_an_error(jobs: RecordedJobs) -> None:
    with pytest.raises(RuntimeError, match='Each of 30 jobs has enqueued another'):
        enqueue_background_job(f'{HERE}.again')
    assert len(jobs) == 31


def test_a_task_that_is_patched_does_not_run(
    jobs: RecordedJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue_background_job(f'{HERE}.note', 1)
    with monkeypatch.context() as patch:
        patch.setattr(here, 'note', lambda value: None)
        with pytest.raises(RuntimeError, match='note was replaced, perhaps by mock'):
            enqueue_background_job(f'{HERE}.note', 2)
    enqueue_background_job(f'{HERE}.note', 3)
    assert [value for _, value in here.seen] == [1, 3]


def test_a_replacement_does_not_outlive_its_test(monkeypatch: pytest.MonkeyPatch) -> None:
    @functools.wraps(here.note)
    def fake(value: Any) -> None:
        here.seen.append('fake')

    with monkeypatch.context() as patch:
        patch.setattr(here, 'note', fake)
        with eager_jobs():
            enqueue_background_job(f'{HERE}.note', 1)
    with eager_jobs():
        enqueue_background_job(f'{HERE}.note', 2)
    assert here.seen[0] == 'fake'
    assert here.seen[1][1] == 2
