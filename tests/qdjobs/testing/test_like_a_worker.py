"""Jobs that run in the process of a test end as they end in a real worker."""

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from qdjobs import Status, enqueue_background_job, get_job_status, list_jobs
from qdjobs.config import environment_config
from qdjobs.testing import eager_jobs, run_jobs
from tests.support.processes import Worker, eventually

MODULE = 'tests.support.outcomes'
CASES: dict[str, dict[str, Any]] = {
    'finish': {},
    'describe': {'job_meta': {'tenant': 7}, 'job_max_retries': 1, 'job_queue': 'low'},
    'fail': {},
    'fail_for_good': {'job_max_retries': 3},
    'leave': {},
    'return_an_object': {'job_max_retries': 3},
    'return_too_much': {},
    'ask_again': {},
    'third_time_lucky': {'job_max_retries': 3, 'job_retry_delay': 0},
    'progress': {'job_meta': {'a': 1}},
    'fail_after_progress': {'job_max_retries': 1, 'job_retry_delay': 0},
    'wait': {'job_delay': 0.01},
    'enqueue_another': {},
}
OF_ONE_RUN = ('created_at', 'started_at', 'ended_at', 'worker')


@pytest.fixture(autouse=True)
def modules(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_TASK_MODULES', MODULE)
    environment_config.cache_clear()


def enqueue_all() -> None:
    for name, options in CASES.items():
        enqueue_background_job(f'{MODULE}.{name}', job_id=name, **options)


def outcomes() -> dict[str, dict[str, Any]]:
    """The statuses, without what differs from one run to the next."""
    return {name: comparable(get_job_status(name)) for name in CASES}


def comparable(status: Status) -> dict[str, Any]:
    found: dict[str, Any] = {**status, 'attempts': [one['error'] for one in status['attempts']]}
    for name in OF_ONE_RUN:
        found[name] = found[name] is not None
    if status['id'] == 'enqueue_another':
        found['result'] = len(found['result'])
    return found


def ended() -> bool:
    return not [job for job in list_jobs() if job['status'] in ('queued', 'started', 'scheduled')]


def worked(own_worker: Worker) -> dict[str, dict[str, Any]]:
    enqueue_all()
    with own_worker(JOB_LEASE='10'):
        eventually(ended)
    return outcomes()


def drained() -> dict[str, dict[str, Any]]:
    enqueue_all()
    while not ended():
        run_jobs()
    return outcomes()


def run_at_once() -> dict[str, dict[str, Any]]:
    with eager_jobs():
        enqueue_all()
        return outcomes()


@pytest.mark.parametrize('run', [drained, run_at_once])
def test_a_job_ends_as_in_a_worker(
    run: Callable[[], dict[str, dict[str, Any]]], own_worker: Worker, connection: Redis
) -> None:
    ours = run()
    connection.flushall()
    assert ours == worked(own_worker)
