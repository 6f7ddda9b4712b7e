"""JOB_APP: how a worker finds its application, and what it says if it cannot."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qdjobs import enqueue_background_job, get_job_status
from tests.support.processes import ROOT

RQ = str(Path(sys.executable).with_name('rq'))
APP_NAME = 'tests.support.tasks.app_name'


def work(**env: str) -> subprocess.CompletedProcess[str]:
    """A worker that ends when there is no more to do."""
    return subprocess.run(
        [RQ, 'worker', '--worker-class', 'qdjobs.JobWorker', '--burst', 'default'],
        cwd=ROOT,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ('app', 'name'),
    [
        ('tests.support.apps:create_plain', 'plain'),
        ('tests.support.apps:create_plain()', 'plain'),
        ("tests.support.apps:create_plain('given')", 'given'),
        ('tests.support.apps:plain_app', 'ready-made'),
        ('tests.support.apps', 'ready-made'),
        ('app', 'app'),
    ],
)
def test_an_application_is_named_as_for_flask(app: str, name: str) -> None:
    job = enqueue_background_job(APP_NAME)
    done = work(JOB_APP=app)
    assert done.returncode == 0, done.stderr
    assert get_job_status(job.id)['result'] == name


@pytest.mark.parametrize(
    ('env', 'says'),
    [
        ({'JOB_APP': 'tests.nowhere:app'}, 'cannot be loaded: Could not import'),
        ({'JOB_APP': 'tests.support.apps:missing'}, "Failed to find attribute 'missing'"),
        ({'JOB_APP': 'tests.support.apps:create_plain('}, 'Failed to parse'),
        ({'JOB_APP': 'tests.support.apps:ROOT'}, "Failed to find attribute 'ROOT'"),
        ({'JOB_APP': 'tests.support.apps:create_shop'}, 'key_prefix, queues, task_modules, lease'),
        ({'JOB_KEY_PREFIX': 'other'}, 'set RQ_KEY_PREFIX=other too'),
        ({'JOB_LEASE': 'long'}, 'JOB_LEASE must be a whole number'),
        ({'JOB_QUEUES': 'a b'}, 'JOB_QUEUES must list names'),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_1(env: dict[str, str], says: str) -> None:
    job = enqueue_background_job(APP_NAME)
    done = work(**env)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert says in line
    assert get_job_status(job.id)['status'] == 'queued'


def test_what_the_application_itself_raises_is_shown_with_its_cause() -> None:
    done = work(JOB_APP='tests.support.apps:create_broken')
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert 'RuntimeError: no database' in lines
    assert 'RuntimeError: no database at all' in lines[-1]
    assert 'HorseDied' not in done.stderr


def test_a_task_that_misses_its_application_is_told_how_to_get_one() -> None:
    job = enqueue_background_job('tests.support.tasks.app_name')
    assert work().returncode == 0
    error = get_job_status(job.id)['error']
    assert error is not None
    assert error.startswith('RuntimeError: Working outside of application context: ')
    assert 'JOB_APP' in error
