"""job_on_success and job_on_failure: a job of its own follows the end of another."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask import Flask
from redis import Redis

from qdjobs import (
    InvalidJobError,
    JobNotFoundError,
    JobQueue,
    UnknownTaskError,
    cancel_job,
    enqueue_background_job,
    enqueue_background_jobs,
    get_job_status,
    retry_job,
)
from qdjobs.config import environment_config
from qdjobs.testing import eager_jobs, recorded_jobs, run_jobs

FINISH = 'tests.support.outcomes.finish'
FAIL = 'tests.support.outcomes.fail'
DESCRIBE = 'tests.support.after_tasks.describe_end'

Run = Callable[[], Any]


@contextmanager
def queued() -> Iterator[None]:
    yield


@pytest.fixture(params=[queued, eager_jobs], ids=['queued', 'eager'])
def run(request: pytest.FixtureRequest) -> Run:
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ('task', 'end', 'seen'),
    [
        (FINISH, 'success', ['finished', {'b': b'x', 'n': [1, (2, 3)]}, None]),
        (FAIL, 'failure', ['failed', None, 'ValueError: it']),
    ],
)
def test_it_is_enqueued_with_the_id_of_the_job_that_has_ended(
    run: Run, task: str, end: str, seen: list[Any]
) -> None:
    with run():
        job = enqueue_background_job(
            task,
            job_queue='low',
            job_meta={'tenant': 7},
            job_on_success=DESCRIBE,
            job_on_failure=DESCRIBE,
        )
        if run is queued:
            run_jobs()
        status = get_job_status(f'{job.id}-on-{end}')
        assert status['result'] == [job.id, *seen, 'low', {'tenant': 7}]
        assert status['task'] == DESCRIBE
        other = {'success': 'failure', 'failure': 'success'}[end]
        with pytest.raises(JobNotFoundError):
            get_job_status(f'{job.id}-on-{other}')


def test_each_job_of_a_batch_has_its_own() -> None:
    jobs = enqueue_background_jobs(FINISH, [{}] * 3, job_id='batch', job_on_success=DESCRIBE)
    run_jobs()
    for job in jobs:
        assert get_job_status(f'{job.id}-on-success')['result'][0] == job.id


def test_an_attempt_that_is_followed_by_another_is_no_failure(connection: Redis) -> None:
    job = enqueue_background_job(FAIL, job_max_retries=1, job_on_failure=DESCRIBE)
    run_jobs()
    assert get_job_status(job.id)['status'] == 'scheduled'
    assert not connection.exists(f'rq:job:{job.id}-on-failure')


def test_a_job_that_is_cancelled_is_followed_by_none(connection: Redis) -> None:
    job = enqueue_background_job(FINISH, job_on_success=DESCRIBE, job_on_failure=DESCRIBE)
    cancel_job(job.id)
    run_jobs()
    assert list(connection.scan_iter('rq:job:*-on-*')) == []


def test_it_is_retried_and_follows_each_failure_once(connection: Redis) -> None:
    task = 'tests.support.after_tasks.fail_after_end'
    job = enqueue_background_job(FAIL, job_on_failure=task)
    run_jobs()
    follower = f'{job.id}-on-failure'
    status = get_job_status(follower)
    assert (status['status'], len(status['attempts'])) == ('scheduled', 1)
    assert connection.hget(f'rq:job:{follower}', 'retries_left') == b'2'
    retry_job(job.id)  # fails again, while what follows the first failure still waits
    run_jobs()
    status = get_job_status(follower)
    assert (status['status'], len(status['attempts'])) == ('scheduled', 1)


def test_a_retried_job_is_followed_anew() -> None:
    job = enqueue_background_job(FAIL, job_on_failure=DESCRIBE)
    run_jobs()
    first = get_job_status(f'{job.id}-on-failure')
    assert first['status'] == 'finished'
    retry_job(job.id)
    run_jobs()
    assert get_job_status(f'{job.id}-on-failure')['created_at'] != first['created_at']


def test_it_follows_a_job_whose_result_is_not_kept() -> None:
    job = enqueue_background_job(FINISH, job_result_ttl=1, job_on_success=DESCRIBE)
    run_jobs()
    assert get_job_status(f'{job.id}-on-success')['status'] == 'finished'


def test_the_outcome_is_kept_for_what_follows(connection: Redis) -> None:
    alone = enqueue_background_job(FINISH, job_result_ttl=1)
    followed = enqueue_background_job(FINISH, job_result_ttl=1, job_on_success=DESCRIBE)
    run_jobs()
    assert connection.ttl(alone.key) <= 1
    assert connection.ttl(followed.key) > 3000


def test_those_of_a_batch_are_not_retried_together(connection: Redis) -> None:
    jobs = enqueue_background_jobs(FAIL, [{}] * 3, job_on_failure=DESCRIBE)
    run_jobs()
    keys = [f'rq:job:{job.id}-on-failure' for job in jobs]
    assert len({connection.hget(key, 'retry_intervals') for key in keys}) == 3


def test_an_exception_that_is_raised_keeps_nothing_from_following() -> None:
    with eager_jobs(raising=True):
        with pytest.raises(ValueError, match='it'):
            enqueue_background_job(FAIL, job_id='a', job_on_failure=DESCRIBE)
        assert get_job_status('a-on-failure')['status'] == 'finished'


def test_a_queue_knows_it_by_its_name(connection: Redis) -> None:
    app, queue = Flask('shop'), JobQueue()
    queue.add('describe', DESCRIBE)
    queue.add('finish', FINISH, job_on_success='describe')
    queue.init_app(app)
    with app.app_context():
        job = queue.enqueue('finish')
        run_jobs()
        assert get_job_status(f'{job.id}-on-success')['task'] == DESCRIBE
        with pytest.raises(UnknownTaskError, match="No task is named 'nothing': there is describe"):
            queue.enqueue('finish', job_on_failure='nothing')


@pytest.mark.parametrize('option', ['job_on_success', 'job_on_failure'])
@pytest.mark.parametrize(
    ('path', 'error', 'reason'),
    [
        ('tests.support.after_tasks.nothing', UnknownTaskError, 'names no public function'),
        ('os.system', UnknownTaskError, ''),
        (FINISH, InvalidJobError, r'one argument, the id .* as in `def finish\(ended_id: str\)`'),
        ('tests.support.after_tasks.take_two', InvalidJobError, 'gets one argument, the id of the'),
        (7, InvalidJobError, 'must be the dotted path of a task, not 7'),
    ],
)
def test_a_wrong_one_is_refused_at_the_call(
    connection: Redis, option: str, path: Any, error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=f'{option}.*{reason}'):
        enqueue_background_job(FINISH, **{option: path})
    assert connection.dbsize() == 0
    with recorded_jobs() as jobs, pytest.raises(error):
        enqueue_background_job(FINISH, **{option: path})
    assert len(jobs) == 0


def test_a_test_finds_it_among_the_options() -> None:
    with recorded_jobs() as jobs:
        enqueue_background_job(FINISH, job_on_failure=DESCRIBE)
        jobs.assert_enqueued(FINISH, job_on_failure=DESCRIBE)
        jobs.refute_enqueued(FINISH, job_on_failure=FAIL)


@pytest.fixture(autouse=True)
def modules(settings: pytest.MonkeyPatch) -> None:
    names = 'tests.support.tasks,tests.support.outcomes,tests.support.after_tasks'
    settings.setenv('JOB_TASK_MODULES', names)
    environment_config.cache_clear()
