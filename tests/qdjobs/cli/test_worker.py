"""`flask jobs worker`, and applications that are configured by themselves on a shared Redis."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from flask import Flask
from redis import Redis

from qdjobs import (
    JobQueue,
    cancel_job,
    enqueue_background_job,
    enqueue_background_jobs,
    get_job_status,
    list_jobs,
    retry_job,
)
from qdjobs.errors import InvalidJobError, JobNotFoundError
from tests.support.apps import create_plain, create_shop
from tests.support.processes import ROOT

FLASK = str(Path(sys.executable).with_name('flask'))
SHOP = 'tests.support.apps:create_shop'
ADD, APP_NAME = 'tests.support.tasks.add', 'tests.support.tasks.app_name'


@pytest.fixture
def shop() -> Iterator[Flask]:
    """The application of another prefix; the test runs in its context."""
    app = create_shop()
    with app.app_context():
        yield app


def run_worker(*arguments: str, app: str = SHOP, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FLASK, '--app', app, 'jobs', 'worker', *arguments],
        cwd=ROOT,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.slow
def test_it_serves_the_application_s_queues_in_its_context_whatever_the_environment(
    shop: Flask,
) -> None:
    jobs = [enqueue_background_job(APP_NAME, job_queue=queue) for queue in ('fast', 'slow')]
    done = run_worker('--burst', RQ_REDIS_URL='', JOB_KEY_PREFIX='other', JOB_QUEUES='x')
    assert done.returncode == 0, done.stderr
    statuses = [get_job_status(job.id) for job in jobs]
    assert [status['result'] for status in statuses] == ['shop', 'shop']
    assert [job.get_status().value for job in jobs] == ['finished', 'finished']
    assert [job.return_value() for job in jobs] == ['shop', 'shop']
    assert len(jobs[0].results()) == 1


def test_it_serves_only_the_queues_that_are_named(shop: Flask) -> None:
    fast, slow = (enqueue_background_job(ADD, 1, job_queue=queue) for queue in ('fast', 'slow'))
    assert run_worker('--burst', 'slow').returncode == 0
    assert [get_job_status(job.id)['status'] for job in (fast, slow)] == ['queued', 'finished']


@pytest.mark.parametrize(
    ('arguments', 'code', 'says'),
    [
        (('--help',), 0, '--max-idle-time'),
        (('--bursty',), 2, "'--bursty'"),
        (('--burst', 'fats'), 2, "'fats' is no queue of this application: there are fast, slow"),
    ],
)
def test_it_has_the_options_of_rq(
    shop: Flask, arguments: tuple[str, ...], code: int, says: str
) -> None:
    done = shop.test_cli_runner().invoke(args=['jobs', 'worker', *arguments])
    assert done.exit_code == code
    assert says in done.output


def test_redis_away_is_one_line_that_says_what_to_do() -> None:
    done = run_worker(app='tests.support.apps:create_plain', REDIS_URL='redis://127.0.0.1:1/0')
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert 'Is it running, and is it the one that REDIS_URL names?' in line


# Two applications on one Redis


@pytest.mark.slow
def test_a_prefix_keeps_an_application_s_jobs_apart(connection: Redis) -> None:
    other = enqueue_background_job(ADD, 1)
    plain = create_plain()
    with create_shop().app_context():
        mine = enqueue_background_job(ADD, 1)
        batch = enqueue_background_jobs(ADD, [{'a': 1}, {'a': 2}], job_queue='slow', job_delay=60)
        assert [job['id'] for job in list_jobs()] == [mine.id, *(job.id for job in batch)]
        with pytest.raises(JobNotFoundError):
            get_job_status(other.id)
        assert cancel_job(mine.id) == 'canceled'
        again = retry_job(mine.id)
        assert again.get_status().value == 'queued'
        assert run_worker('--burst').returncode == 0
        assert get_job_status(mine.id)['status'] == 'finished'
    with plain.app_context():
        assert get_job_status(other.id)['status'] == 'queued'
        with pytest.raises(JobNotFoundError):
            get_job_status(mine.id)
    keys: list[bytes] = list(connection.scan_iter())
    assert {key.split(b':')[0] for key in keys} == {b'rq', b'shop'}


def test_a_queue_that_the_application_does_not_have_is_refused(shop: Flask) -> None:
    with pytest.raises(InvalidJobError, match='job_queue must be one of fast, slow'):
        enqueue_background_job(ADD, 1, job_queue='default')


def test_a_named_task_goes_to_its_application_outside_of_a_context() -> None:
    app = Flask('named')
    app.config['JOB_KEY_PREFIX'] = 'named'
    app.config['JOB_TASK_MODULES'] = 'tests.support.tasks'
    queue = JobQueue(app)
    queue.add('add', ADD)
    job = queue.enqueue('add', 1)
    assert job.status == 'queued'
    with app.app_context():
        assert get_job_status(job.id)['status'] == 'queued'


def test_a_thread_outside_of_the_context_has_the_one_application_s_configuration() -> None:
    app = create_shop()
    with ThreadPoolExecutor() as threads:
        job = threads.submit(enqueue_background_job, ADD, 1).result()
    with app.app_context():
        assert get_job_status(job.id)['queue'] == 'fast'


def test_a_queue_of_two_applications_needs_the_context_of_one() -> None:
    queue = JobQueue()
    queue.add('add', ADD)
    apps = [Flask(name) for name in ('one', 'two')]
    for app in apps:
        app.config['JOB_KEY_PREFIX'] = app.name
        queue.init_app(app)
    with pytest.raises(RuntimeError, match=r'with app\.app_context\(\)'):
        queue.enqueue('add', 1)
    with apps[1].app_context():
        job = queue.enqueue('add', 1)
        assert job.status == 'queued'
