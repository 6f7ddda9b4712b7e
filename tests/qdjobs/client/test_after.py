"""job_after: a job waits until others have finished."""

from typing import Any

import pytest
from redis import Redis

from qdjobs import (
    InvalidJobError,
    cancel_job,
    enqueue_background_job,
    enqueue_background_jobs,
    get_job_status,
    retry_job,
    wait_for_job,
)
from qdjobs.config import environment_config
from qdjobs.testing import eager_jobs, recorded_jobs, run_jobs
from tests.support.shared_worker import SharedWorker

ADD = 'tests.support.tasks.add'
FAIL = 'tests.support.tasks.fail'


def test_a_job_waits_for_all_the_others(shared_worker: SharedWorker) -> None:
    with shared_worker.held():
        others = enqueue_background_jobs(ADD, [{'a': number} for number in range(3)])
        summary = enqueue_background_job(ADD, 1, job_after=others, job_queue='high')
        assert get_job_status(summary.id)['status'] == summary.get_status().value == 'deferred'
    assert wait_for_job(summary.id, 60)['status'] == 'finished'
    ended = [get_job_status(job.id)['ended_at'] for job in others]
    started = get_job_status(summary.id)['started_at']
    assert started is not None
    assert all(moment is not None and moment <= started for moment in ended)


def test_a_job_after_finished_ones_waits_for_nothing(connection: Redis) -> None:
    first = enqueue_background_job(ADD, 1)
    run_jobs()
    second = enqueue_background_job(ADD, 2, job_after=first.id)
    assert get_job_status(second.id)['status'] == 'queued'
    assert connection.exists(f'rq:job:{first.id}:dependents') == 0


def test_a_job_of_a_batch_waits_as_well() -> None:
    first = enqueue_background_job(ADD, 1)
    batch = enqueue_background_jobs(ADD, [{'a': 1}, {'a': 2}], job_after=[first])
    assert [get_job_status(job.id)['status'] for job in batch] == ['deferred'] * 2
    run_jobs()
    assert [get_job_status(job.id)['status'] for job in batch] == ['finished'] * 2


def test_a_job_waits_while_the_other_has_failed_and_runs_once_it_has_not() -> None:
    first = enqueue_background_job('tests.support.outcomes.third_time_lucky')
    second = enqueue_background_job('tests.support.outcomes.finish', job_after=first)
    run_jobs()
    assert get_job_status(first.id)['status'] == 'failed'
    third = enqueue_background_job('tests.support.outcomes.finish', job_after=first)
    for waiting in (second, third):
        assert get_job_status(waiting.id)['status'] == 'deferred'
    enqueue_background_job('tests.support.outcomes.finish', job_id=first.id)
    run_jobs()
    for waiting in (second, third):
        assert get_job_status(waiting.id)['status'] == 'finished'


def test_a_waiting_job_can_be_cancelled_and_tried_again() -> None:
    first = enqueue_background_job(ADD, 1)
    second = enqueue_background_job(ADD, 2, job_after=first)
    assert cancel_job(second.id) == 'canceled'
    retry_job(second.id)
    assert get_job_status(second.id)['status'] == 'deferred'
    run_jobs()
    assert get_job_status(second.id)['status'] == 'finished'


@pytest.mark.parametrize(
    ('options', 'reason'),
    [
        ({'job_after': 'missing'}, "job_after: there is no job 'missing'. It may have ended so"),
        (
            {'job_after': [7]},
            r'job_after must be a job, its id, or a list of up to 1000 .* not \[7\]',
        ),
        ({'job_after': 'a b'}, "job_after must be a job, .* not 'a b'"),
        ({'job_after': ['x'] * 1001}, 'job_after must be a job'),
        ({'job_after': ['one'], 'job_id': 'one'}, 'job_after has the job_id of the job itself'),
        ({'job_after': 'one', 'job_delay': 1}, 'job_after excludes job_delay and job_at'),
    ],
)
def test_what_cannot_be_waited_for_is_refused(
    connection: Redis, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidJobError, match=reason):
        enqueue_background_job(ADD, 1, **options)
    assert connection.dbsize() == 0
    with recorded_jobs() as jobs, pytest.raises(InvalidJobError, match=reason):
        enqueue_background_job(ADD, 1, **options)
    assert len(jobs) == 0


def test_a_batch_waits_for_few_jobs_or_few_jobs_for_many(connection: Redis) -> None:
    many = enqueue_background_jobs(ADD, [{'a': 1}] * 1000, job_id='many')
    connection.delete('rq:queue:default')
    with pytest.raises(InvalidJobError, match='are 21000 pairs, more than 20000: have one job'):
        enqueue_background_jobs(ADD, [{'a': 1}] * 21, job_after=many)
    with pytest.raises(InvalidJobError, match='job_after has a job of the batch itself'):
        enqueue_background_jobs(ADD, [{'a': 1}], job_id='many', job_after='many-0')
    waiting = enqueue_background_jobs(ADD, [{'a': 1}] * 20, job_after=many)
    assert {job.get_status(refresh=False).value for job in waiting} == {'deferred'}


def test_a_recorded_job_is_deferred_and_found_by_what_it_waits_for() -> None:
    with recorded_jobs() as jobs:
        first, other = (enqueue_background_job(ADD, number) for number in (1, 2))
        second = enqueue_background_job(ADD, 3, job_after=[first, other])
        assert get_job_status(second.id)['status'] == 'deferred'
        assert jobs.assert_enqueued(ADD, job_after=first).id == second.id
        jobs.refute_enqueued(ADD, a=1, job_after=first)


def test_an_eager_job_runs_once_the_others_have_finished(
    settings: pytest.MonkeyPatch,
) -> None:
    with eager_jobs():
        first = enqueue_background_job(FAIL)
        second = enqueue_background_job(ADD, 1, job_after=first)
        assert get_job_status(second.id)['status'] == 'deferred'
        enqueue_background_job(ADD, 1, job_id=first.id)
        assert get_job_status(second.id)['status'] == 'finished'
        third = enqueue_background_job(ADD, 1, job_after=[first, second])
        assert get_job_status(third.id)['status'] == 'finished'


@pytest.fixture(autouse=True)
def modules(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_TASK_MODULES', 'tests.support.tasks,tests.support.outcomes')
    environment_config.cache_clear()
