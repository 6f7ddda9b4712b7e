"""What an application adds around its jobs, in real workers."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rq.job import Job

from qdjobs import enqueue_background_job, enqueue_background_jobs, get_job_status, wait_for_job
from qdjobs.config import environment_config
from tests.support.hooked import create_app
from tests.support.processes import Worker, eventually, kill_group

ACT = 'tests.support.hooked.act'
CALM = {'JOB_APP': 'tests.support.hooked:create_app', 'JOB_LEASE': '10'}
TENANT = {'tenant': 'tenant of act'}


@pytest.fixture
def log(settings: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    settings.setenv('HOOK_LOG', str(tmp_path / 'hooks'))
    settings.setenv('JOB_TASK_MODULES', 'tests.support.hooked')
    environment_config.cache_clear()
    return tmp_path / 'hooks'


@pytest.fixture
def app(log: Path) -> Iterator[None]:
    with create_app().app_context():
        yield


def lines(log: Path) -> list[list[Any]]:
    """What the hooks have written, without the name of the application, which is always there."""
    found = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    assert all(line[0] == 'hooked' for line in found)
    return [line[1:] for line in found]


def lose_a_worker(log: Path, own_worker: Worker) -> Job:
    """Kill a worker under a job that runs for long; return the job."""
    job = enqueue_background_job(ACT, 'sleep')
    with own_worker(**CALM | {'JOB_LEASE': '1'}) as worker:
        eventually(lambda: lines(log))
        os.kill(worker.pid, signal.SIGKILL)
        worker.wait(60)
    return job


@pytest.mark.usefixtures('app')
def test_a_job_runs_inside_the_hooks_of_its_application(log: Path, own_worker: Worker) -> None:
    job = enqueue_background_job(ACT, job_meta={'request': 7})
    with own_worker('--burst', **CALM) as worker:
        assert worker.wait(60) == 0
    status = get_job_status(job.id)
    meta = {'request': 7} | TENANT
    assert status['result'] == status['meta'] == meta
    assert lines(log) == [['begin', job.id, 1, meta], ['end', job.id]]


@pytest.mark.slow
@pytest.mark.usefixtures('app')
def test_each_failed_attempt_is_reported_and_none_becomes_a_success(
    log: Path, own_worker: Worker
) -> None:
    job = enqueue_background_job(ACT, 'fail', job_max_retries=1, job_retry_delay=0)
    with own_worker('--burst', **CALM) as worker:
        assert worker.wait(60) == 0
    status = get_job_status(job.id)
    assert (status['status'], status['error']) == ('failed', 'ValueError: it failed')
    error = ['ValueError', 'ValueError: it failed']
    assert lines(log) == [
        *(['begin', job.id, 1, TENANT], ['caught', job.id], ['end', job.id]),
        ['failure', job.id, ACT, 1, *error, False, False],
        *(['begin', job.id, 2, TENANT], ['caught', job.id], ['end', job.id]),
        ['failure', job.id, ACT, 2, *error, True, False],
    ]


@pytest.mark.slow
@pytest.mark.usefixtures('app')
@pytest.mark.parametrize('place', ['before', 'after'])
def test_an_error_of_a_hook_is_an_error_of_its_job(
    log: Path, own_worker: Worker, place: str
) -> None:
    broken = enqueue_background_job(ACT, job_meta={'break': place})
    whole = enqueue_background_job(ACT)
    with own_worker('--burst', **CALM) as worker:
        assert worker.wait(60) == 0
    assert get_job_status(broken.id)['error'] == f'LookupError: {place} the job'
    assert get_job_status(whole.id)['status'] == 'finished'


@pytest.mark.slow
@pytest.mark.usefixtures('app')
def test_an_error_of_a_report_is_logged_and_others_are_made(
    log: Path, own_worker: Worker, tmp_path: Path
) -> None:
    job = enqueue_background_job(ACT, 'fail', job_meta={'break': 'report'})
    with own_worker('--burst', **CALM) as worker:
        assert worker.wait(60) == 0
    assert get_job_status(job.id)['error'] == 'ValueError: it failed'
    assert 'LookupError: in the report' in (tmp_path / 'worker.log').read_text()
    assert lines(log)[-1][:2] == ['failure', job.id]


@pytest.mark.slow
@pytest.mark.usefixtures('app')
@pytest.mark.parametrize(
    ('what', 'lives'),
    [
        (['', ''], ['born', 'ended']),
        (['time out', ''], ['born', 'ended', 'born', 'ended']),  # the first is killed all the same
        (['', 'die', ''], ['born', 'born', 'ended']),
    ],
)
def test_a_horse_lives_inside_its_hook(
    log: Path, own_worker: Worker, what: list[str], lives: list[str]
) -> None:
    for each in what:
        enqueue_background_job(ACT, each, job_timeout=1 if each == 'time out' else None)
    with own_worker('--burst', **CALM) as worker:
        assert worker.wait(60) == 0
    seen = Path(f'{log}.horses').read_text().splitlines()
    assert seen == [f'{each} in hooked' for each in lives]


@pytest.mark.slow
@pytest.mark.usefixtures('log')
def test_a_job_that_is_refused_is_reported(log: Path, own_worker: Worker) -> None:
    job = enqueue_background_job(ACT, job_id='refused')
    with own_worker('--burst', **CALM, JOB_TASK_MODULES='tests.support.fault_tasks') as worker:
        assert worker.wait(60) == 0
    assert get_job_status(job.id)['status'] == 'failed'
    (failure,) = lines(log)
    assert failure[:5] == ['failure', 'refused', ACT, 1, 'UnknownTaskError']
    assert failure[-2:] == [True, False]


@pytest.mark.slow
@pytest.mark.usefixtures('app')
@pytest.mark.parametrize(
    ('what', 'retries', 'error'),
    [
        ('die', 1, 'HorseDied: the work horse was killed by SIGABRT while it ran the job'),
        ('hang', 0, 'JobTimeoutException: Task exceeded maximum timeout value (1 seconds) and did'),
    ],
)
def test_a_death_of_the_horse_is_reported_by_the_next_one(
    log: Path, own_worker: Worker, what: str, retries: int, error: str
) -> None:
    timeout = 1 if what == 'hang' else None
    enqueue_background_job(
        ACT, what, job_timeout=timeout, job_max_retries=retries, job_retry_delay=0
    )
    with own_worker('--burst', **CALM) as worker:
        assert worker.wait(60) == 0
    deaths = [line for line in lines(log) if line[0] == 'failure']
    assert [line[3] for line in deaths] == list(range(1, retries + 2))
    assert [line[-2] for line in deaths] == [False] * retries + [True]
    assert all(line[4] is None and line[5].startswith(error) and line[-1] for line in deaths)


@pytest.mark.slow
@pytest.mark.usefixtures('app')
def test_a_lost_worker_is_reported_by_the_one_that_recovers_its_job(
    log: Path, own_worker: Worker
) -> None:
    job = lose_a_worker(log, own_worker)
    with own_worker('--max-jobs', '1', **CALM | {'JOB_LEASE': '1'}) as other:
        eventually(lambda: len(lines(log)) == 3)
        kill_group(other.pid)
    lost = 'WorkerLostError: the worker died while it ran this job'
    begin = ['begin', job.id, 1, TENANT]
    assert lines(log) == [begin, ['failure', job.id, ACT, 1, None, lost, False, True], begin]


@pytest.mark.slow
@pytest.mark.usefixtures('app')
def test_a_lost_worker_is_reported_before_a_full_queue_is_empty(
    log: Path, own_worker: Worker
) -> None:
    lost = lose_a_worker(log, own_worker)
    enqueue_background_jobs(ACT, [{'what': 'nap'}] * 2000, job_queue='high')
    with own_worker(**CALM | {'JOB_LEASE': '1'}) as other:
        eventually(lambda: any(line[:2] == ['failure', lost.id] for line in lines(log)))
        assert get_job_status(lost.id)['status'] == 'queued'  # behind the others
        kill_group(other.pid)


@pytest.mark.slow
@pytest.mark.usefixtures('app')
def test_a_report_that_exits_changes_no_outcome(log: Path, own_worker: Worker) -> None:
    job = enqueue_background_job(ACT, 'fail', job_meta={'break': 'exit'})
    with own_worker('--burst', **CALM) as worker:
        assert worker.wait(60) == 0
    assert get_job_status(job.id)['error'] == 'ValueError: it failed'
    assert [line[0] for line in lines(log)].count('failure') == 1


@pytest.mark.slow
def test_without_its_application_a_job_runs_without_hooks(log: Path, own_worker: Worker) -> None:
    job = enqueue_background_job(ACT)
    with own_worker('--burst', **CALM | {'JOB_APP': ''}) as worker:
        assert worker.wait(60) == 0
    assert wait_for_job(job.id, 60)['result'] == {}
    assert lines(log) == []
