"""What surrounds a job: its process, folder and application, and what earlier jobs have left."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from redis import Redis

from libraries.job_manager import enqueue_background_job, get_job_status
from qdjobs import JobWorker
from qdjobs.config import environment_config
from tests.support.jobs import done, require_living
from tests.support.outages import await_runs, deaths_of
from tests.support.processes import ROOT, Worker, alive, eventually, horse_of
from tests.support.shared_worker import SharedWorker

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('light')]

ADD = 'tests.support.tasks.add'
PID = 'tests.support.tasks.process_id'
WAIT = 'tests.support.fault_tasks.begin_and_wait'
CHILD = 'tests.support.fault_tasks.leave_a_child'
CHANGE = 'tests.support.fault_tasks.change'
LOOK = 'tests.support.fault_tasks.look'
GROW = 'tests.support.fault_tasks.grow'
SIZE = 'tests.support.worker_tasks.size'
CALM = {'JOB_LEASE': '10'}  # for tests that are not about leases


# -- a folder, an application ----------------------------------------------------------------------


def test_a_working_directory_that_is_removed(own_worker: Worker, tmp_path: Path) -> None:
    """As a deploy removes the folder of an old release."""
    folder = tmp_path / 'release'
    folder.mkdir()
    with own_worker(cwd=folder, **CALM) as worker:
        require_living(worker)
        folder.rmdir()
        for number in range(3):
            status = done(enqueue_background_job(ADD, number))
            assert (status['result'], status['attempts']) == (number + 2, [])
        assert done(enqueue_background_job('tests.support.tasks.segfault'))['status'] == 'failed'
        require_living(worker)


def test_horses_that_die_before_the_task_is_entered_cost_the_job_nothing(
    own_worker: Worker, tmp_path: Path
) -> None:
    fragile = tmp_path / 'fragile'
    environment = CALM | {
        'JOB_APP': 'tests.support.fault_tasks:create_fragile_app',
        'FRAGILE': str(fragile),
    }
    with own_worker(**environment) as worker:
        require_living(worker)
        fragile.touch()
        job = enqueue_background_job(ADD, 1)
        assert worker.wait(60) > 0
    status = get_job_status(job.id)
    assert (status['status'], status['attempts']) == ('queued', [])
    assert deaths_of(job.id) == 0
    fragile.unlink()
    with own_worker(**environment):
        assert done(job)['result'] == 3


def test_the_control_an_application_that_cannot_be_made_again_ends_the_worker(
    own_worker: Worker, tmp_path: Path
) -> None:
    environment = CALM | {
        'JOB_APP': 'tests.support.fault_tasks:create_app_once',
        'MADE_ONCE': str(tmp_path / 'made'),
        'JOB_HORSE_MAX_JOBS': '1',
    }
    with own_worker(**environment) as worker:
        assert done(enqueue_background_job(ADD, 1))['result'] == 3
        assert worker.wait(60) == 1


def test_a_horse_that_does_not_read_its_job_is_replaced(
    settings: pytest.MonkeyPatch, own_worker: Worker
) -> None:
    """Its job is larger than what the pipe holds, so that handing it over would not end."""
    settings.setenv('JOB_MAX_ARGUMENTS', '3')
    environment_config.cache_clear()
    with own_worker(JOB_LEASE='3') as worker:
        require_living(worker)
        os.kill(horse_of(worker.pid), signal.SIGSTOP)
        status = done(enqueue_background_job(SIZE, os.urandom(2_000_000)))
        require_living(worker)
    assert (status['result'], status['attempts']) == (2_000_000, [])


def test_a_module_that_exits_when_it_is_imported(own_worker: Worker, tmp_path: Path) -> None:
    """One of a package: a script beside the tasks."""
    package = tmp_path / 'scripts'
    package.mkdir()
    (package / '__init__.py').touch()
    (package / 'script.py').write_text('import sys\nsys.exit(0)\n')
    environment = CALM | {
        'PYTHONPATH': f'{ROOT}:{tmp_path}',
        'JOB_TASK_MODULES': 'tests.support.tasks,scripts',
    }
    with own_worker(**environment) as worker:
        require_living(worker)


# -- what a job leaves behind ----------------------------------------------------------------------


@pytest.mark.parametrize('end', ['of the horse', 'of the worker'])
def test_a_process_that_a_job_has_left_does_not_outlive_its_horse(
    own_worker: Worker, begun: Path, end: str
) -> None:
    jobs = '1' if end == 'of the horse' else '1000'
    with own_worker(JOB_HORSE_MAX_JOBS=jobs, **CALM) as worker:
        assert done(enqueue_background_job(CHILD, str(begun)))['status'] == 'finished'
        child = int(begun.read_text())
        try:
            if end == 'of the worker':
                worker.terminate()
                assert worker.wait(60) == 0
            else:
                require_living(worker)
            eventually(lambda: not alive(child))
        finally:
            if alive(child):
                os.kill(child, signal.SIGKILL)


CHANGES = ['umask', 'nice', 'soft limit', 'hard limit', 'seed', 'logging', 'output']


@pytest.mark.parametrize('what', CHANGES)
def test_what_a_job_does_to_its_process_does_not_reach_the_next(
    shared_worker: SharedWorker, what: str
) -> None:
    before = done(enqueue_background_job(LOOK, what))
    changed = done(enqueue_background_job(CHANGE, what))
    assert (before['status'], changed['status']) == ('finished', 'finished')
    after = done(enqueue_background_job(LOOK, what))
    assert (after['status'], after['result']) == ('finished', before['result'])
    require_living(shared_worker)


def test_a_horse_that_has_grown_is_replaced(own_worker: Worker) -> None:
    with own_worker(JOB_HORSE_MAX_MEMORY='400', **CALM) as worker:
        small = [done(enqueue_background_job(GROW, 1))['result'] for _ in range(3)]
        large = done(enqueue_background_job(GROW, 500))
        assert {*small, large['result']} == {small[0]}
        after = [done(enqueue_background_job(PID))['result'] for _ in range(2)]
        assert after[0] == after[1] != small[0]
        assert worker.poll() is None


def test_a_connection_of_the_caller_does_not_repeat_commands(redis_url: str) -> None:
    """By itself redis-py repeats each one ten times, each until its own time-out."""
    with Redis(unix_socket_path=urlsplit(redis_url).path) as connection:
        assert retries_of(connection) > 0
        assert retries_of(JobWorker(['default'], connection=connection).connection) == 0


def retries_of(connection: Redis) -> int:
    made: Any = connection.connection_pool.make_connection()
    return int(made.retry.get_retries())


# -- signals ---------------------------------------------------------------------------------------


@pytest.fixture
def terminal() -> Iterator[None]:
    """Processes begin as in a terminal, and not as under `nohup`, which has SIGHUP ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures('terminal')
def test_a_hang_up_is_a_polite_end(own_worker: Worker, begun: Path, gate: Path) -> None:
    """SIGHUP, as a closing terminal sends it."""
    with own_worker(**CALM) as worker:
        job = enqueue_background_job(WAIT, str(begun), str(gate))
        waiting = enqueue_background_job(ADD, 1)
        await_runs(begun, 1)
        worker.send_signal(signal.SIGHUP)
        gate.touch()
        assert worker.wait(60) == 0
    assert get_job_status(job.id)['status'] == 'finished'
    assert get_job_status(waiting.id)['status'] == 'queued'
