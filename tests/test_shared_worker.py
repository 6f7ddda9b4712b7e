"""The workers of the tests bring nothing from one test to the next."""

import time
from pathlib import Path

import pytest
from redis import Redis

from libraries.job_manager import enqueue_background_job, get_job_status, wait_for_job
from qdjobs.config import environment_config
from tests.support import shared_worker as support
from tests.support.processes import Worker, eventually, kill_group, session_of
from tests.support.shared_worker import SharedWorker

BEGIN = 'tests.support.worker_tasks.begin_and_sleep'


@pytest.fixture(autouse=True)
def more_tasks(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_TASK_MODULES', 'tests.support.tasks,tests.support.worker_tasks')
    environment_config.cache_clear()


def require_living(worker: SharedWorker) -> None:
    job = enqueue_background_job('tests.support.tasks.add', 1)
    assert wait_for_job(job.id, 60)['result'] == 3
    assert job.id in worker.said()


def test_it_runs_what_is_enqueued_again_and_again(
    connection: Redis, shared_worker: SharedWorker, settings: pytest.MonkeyPatch
) -> None:
    settings.setattr(support, 'PATIENCE', 60.0)  # on a busy machine it is no reason to end it
    for _ in range(3):
        require_living(shared_worker)
        pid = shared_worker.pid
        shared_worker.pause()
        connection.flushall()
        time.sleep(0.7)  # longer than its waits
        assert connection.dbsize() == 0
        shared_worker.resume()
        assert shared_worker.pid == pid


@pytest.mark.slow
def test_a_job_that_is_left_running_ends_with_its_worker(
    connection: Redis, shared_worker: SharedWorker, tmp_path: Path
) -> None:
    begun = tmp_path / 'begun'
    enqueue_background_job(BEGIN, str(begun), 60.0)
    eventually(begun.exists)
    pid = shared_worker.pid
    shared_worker.pause()
    connection.flushall()
    shared_worker.resume()
    require_living(shared_worker)
    assert shared_worker.pid != pid


def test_nothing_runs_while_it_is_held(shared_worker: SharedWorker) -> None:
    require_living(shared_worker)
    with shared_worker.held():
        job = enqueue_background_job('tests.support.tasks.add', 1)
        time.sleep(0.5)
        assert get_job_status(job.id)['status'] == 'queued'
    assert wait_for_job(job.id, 60)['result'] == 3


def test_a_dead_one_is_replaced(shared_worker: SharedWorker) -> None:
    require_living(shared_worker)
    shared_worker.end()
    shared_worker.pause()
    shared_worker.resume()
    require_living(shared_worker)


def test_no_work_horse_outlives_its_worker(rq_worker: Worker, tmp_path: Path) -> None:
    begun = tmp_path / 'begun'
    enqueue_background_job(BEGIN, str(begun), 60.0)
    with rq_worker() as worker:  # RQ's own, whose horse leaves its process group
        eventually(begun.exists)
        horse = int(begun.read_text())
        assert {worker.pid, horse} <= set(session_of(worker.pid))
        kill_group(worker.pid)
        assert session_of(worker.pid) == []
