"""The fixtures of the pytest plugin, in a pytest of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT

pytestmark = pytest.mark.slow  # a pytest of its own

TESTS = """
import pytest
from flask import Flask
from qdjobs import JobQueue, enqueue_background_job, get_job_status, wait_for_job
from qdjobs.testing import run_jobs

ADD = 'tests.support.tasks.add'

def test_recorded(recorded_jobs):
    enqueue_background_job(ADD, 1)
    recorded_jobs.assert_enqueued(ADD, a=1)

def test_nothing_of_it_is_left(recorded_jobs):
    assert len(recorded_jobs) == 0

def test_eager(eager_jobs):
    assert get_job_status(enqueue_background_job(ADD, 1).id)['result'] == 3
    eager_jobs.assert_enqueued(ADD, a=1)

@pytest.mark.parametrize('turn', [1, 2])
def test_real(embedded_redis, turn):
    job = enqueue_background_job(ADD, 1, job_id='one')
    assert [status['result'] for status in run_jobs()] == [3]

@pytest.fixture
def app():
    app = Flask('an-app')
    app.config['JOB_TASK_MODULES'] = 'tests.support.outcomes'
    JobQueue(app)
    return app

def test_outside_of_a_context_with_another_redis(recorded_jobs, app):
    enqueue_background_job('tests.support.outcomes.finish')

def test_outside_of_a_context(embedded_redis, app):
    enqueue_background_job('tests.support.outcomes.finish')
    assert len(run_jobs()) == 1

def test_an_application_that_was_made_before(app, embedded_redis):
    with app.app_context(), pytest.raises(RuntimeError, match='made before `embedded_redis`'):
        run_jobs()

def test_raised(eager_jobs):
    enqueue_background_job('tests.support.outcomes.finish', 'two')
"""


def test_the_fixtures_work_and_leave_nothing_behind(
    settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / 'test_an_app.py').write_text(TESTS)
    settings.setenv('REDIS_URL', 'redis://127.0.0.1:1/0')
    options = '-q -W error -p no:cacheprovider -p qdjobs.testing.pytest_plugin'
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', *options.split(), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert '1 failed, 8 passed' in done.stdout, done.stdout
    assert 'too many positional arguments' in done.stdout
