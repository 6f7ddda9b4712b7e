"""JOB_APP: how a worker finds its application, and what it says if it cannot."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from redis import Redis

from qdjobs import JobWorker, enqueue_background_job, get_job_status
from qdjobs.config import environment_config
from qdjobs.worker.application import ApplicationError, load_app
from tests.support.jobs import done, lines_of
from tests.support.processes import ROOT, Worker, eventually
from tests.support.shared_worker import SharedWorker

RQ = str(Path(sys.executable).with_name('rq'))
APP_NAME = 'tests.support.tasks.app_name'
LIGHT = {'JOB_TASK_MODULES': 'tests.support.tasks'}  # which a worker imports in a moment


@pytest.fixture(autouse=True)
def root(settings: pytest.MonkeyPatch) -> None:
    """Where a worker is started: Flask looks there first."""
    settings.setattr(sys, 'path', sys.path[:])
    settings.chdir(ROOT)


@pytest.mark.parametrize(
    ('path', 'name'),
    [
        ('tests.support.apps:create_plain', 'plain'),
        ('tests.support.apps:create_plain()', 'plain'),
        ("tests.support.apps:create_plain('given')", 'given'),
        ('tests.support.apps:plain_app', 'ready-made'),
        ('tests.support.apps', 'ready-made'),
        ('app', 'app'),
    ],
)
def test_an_application_is_named_as_for_flask(path: str, name: str) -> None:
    assert load_app(path, environment_config()).name == name


@pytest.mark.parametrize(
    ('path', 'says'),
    [
        ('tests.nowhere:app', 'cannot be loaded: Could not import'),
        ('tests.support.apps:missing', "Failed to find attribute 'missing'"),
        ('tests.support.apps:create_plain(', 'Failed to parse'),
        ('tests.support.apps:ROOT', "Failed to find attribute 'ROOT'"),
        ('tests.support.apps:create_shop', 'key_prefix, queues, task_modules, lease'),
    ],
)
def test_a_wrong_application_is_one_line(path: str, says: str) -> None:
    with pytest.raises(ApplicationError) as caught:
        load_app(path, environment_config())
    (line,) = str(caught.value).splitlines()
    assert says in line


@pytest.mark.parametrize(
    ('name', 'value', 'says'),
    [
        ('JOB_KEY_PREFIX', 'other', 'set RQ_KEY_PREFIX=other too'),
        ('JOB_LEASE', 'long', 'JOB_LEASE must be a whole number'),
        ('JOB_QUEUES', 'a b', 'JOB_QUEUES must list names'),
    ],
)
def test_a_wrong_setting_is_one_line(
    settings: pytest.MonkeyPatch, connection: Redis, name: str, value: str, says: str
) -> None:
    settings.setenv(name, value)
    environment_config.cache_clear()
    with pytest.raises(SystemExit) as caught:
        JobWorker(['default'], connection=connection)
    (line,) = str(caught.value).splitlines()
    assert says in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'value'),
    [('JOB_APP', 'tests.support.apps:missing'), ('JOB_LEASE', 'long')],
)
def test_a_worker_that_cannot_run_jobs_writes_that_line_and_ends_with_1(
    name: str, value: str
) -> None:
    job = enqueue_background_job(APP_NAME)
    ended = run_worker(**{name: value})
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert value in line
    assert get_job_status(job.id)['status'] == 'queued'


@pytest.mark.slow
def test_a_worker_without_any_task_module_claims_nothing() -> None:
    job = enqueue_background_job(APP_NAME)
    ended = run_worker(JOB_TASK_MODULES='shop.tasks')
    assert ended.returncode == 1
    said = 'no module of JOB_TASK_MODULES can be imported. `flask --app … jobs worker` knows those'
    assert said in ended.stderr.splitlines()[-1]
    assert get_job_status(job.id)['status'] == 'queued'


@pytest.mark.slow
def test_a_name_that_a_living_worker_has_is_one_line(own_worker: Worker, connection: Redis) -> None:
    with own_worker('--name', 'twin') as worker:
        eventually(lambda: connection.exists('rq:worker:twin'))
        ended = run_worker('--name', 'twin')
        assert worker.poll() is None
    assert ended.returncode == 1
    assert "There exists an active worker named 'twin' already" in ended.stderr.splitlines()[-1]
    assert 'Traceback' not in ended.stderr


@pytest.mark.slow
def test_what_the_application_itself_raises_is_shown_with_its_cause() -> None:
    job = enqueue_background_job(APP_NAME)
    ended = run_worker(JOB_APP='tests.support.apps:create_broken')
    assert ended.returncode == 1
    lines = ended.stderr.splitlines()
    assert 'RuntimeError: no database' in lines
    assert 'RuntimeError: no database at all' in lines[-1]
    assert 'HorseDied' not in ended.stderr
    assert get_job_status(job.id)['status'] == 'queued'


def run_worker(*options: str, **env: str) -> subprocess.CompletedProcess[str]:
    """A worker that ends when there is no more to do."""
    return subprocess.run(
        [RQ, 'worker', '--worker-class', 'qdjobs.JobWorker', '--burst', *options, 'default'],
        cwd=ROOT,
        env=os.environ | LIGHT | env,
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_jobs_run_in_the_context_of_an_application_that_is_made_once(
    own_worker: Worker, tmp_path: Path
) -> None:
    made = tmp_path / 'made'
    path = 'tests.support.worker_tasks:create_app'
    with own_worker(JOB_APP=path, APP_BUILT=str(made), JOB_LEASE='10', **LIGHT):
        for _ in range(3):
            assert done(enqueue_background_job(APP_NAME))['result'] == 'the-app-of-the-tests'
    assert len(lines_of(made)) == 1


@pytest.mark.slow
def test_a_slow_application_costs_no_job_its_lease(own_worker: Worker) -> None:
    """A new horse is prepared between two jobs, not while the next one is leased already."""
    path = 'tests.support.worker_tasks:create_app_slowly'
    with own_worker(JOB_APP=path, JOB_LEASE='1', **LIGHT) as worker:
        done(enqueue_background_job('tests.support.tasks.segfault'))
        status = done(enqueue_background_job('tests.support.tasks.add', 1))
        assert (status['status'], status['attempts']) == ('finished', [])
        assert worker.poll() is None


def test_a_task_that_misses_its_application_says_how_to_get_one(
    shared_worker: SharedWorker,
) -> None:
    error = done(enqueue_background_job(APP_NAME))['error']
    assert error is not None
    assert error.startswith('RuntimeError: Working outside of application context: ')
    assert 'JOB_APP' in error
