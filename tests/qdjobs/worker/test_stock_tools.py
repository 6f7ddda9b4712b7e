"""Tools as RQ ships them read our jobs without a flag; and what they, or anyone, leave in Redis
runs nothing when we read it.
"""

import os
import pickle
import signal
import subprocess
import sys
import zlib
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rq_dashboard
from flask import Flask
from redis import Redis
from rq.job import Job
from rq.results import Result

from libraries.files import output_dir
from libraries.job_manager import (
    cancel_job,
    enqueue_background_job,
    get_job_status,
    get_job_statuses,
    list_jobs,
    retry_job,
)
from qdjobs.client.payload import PlainSerializer
from qdjobs.errors import InvalidJobError, JobError
from tests.support.processes import ROOT, Worker, eventually

APPEND = 'tests.support.tasks.append'


class Hostile:
    """Creates a folder wherever it is unpickled by something that trusts Redis."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.canary),)


def rq(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name('rq')), *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_plain_command_runs_our_jobs_in_the_order_of_the_queues(
    rq_worker: Worker, tmp_path: Path
) -> None:
    lines = tmp_path / 'lines'
    for number in range(2):
        for queue in ('low', 'default', 'high'):
            enqueue_background_job(APPEND, str(lines), f'{queue}{number}', job_queue=queue)
    with rq_worker():  # no option and no environment but REDIS_URL
        eventually(lambda: lines.exists() and len(lines.read_text().split()) == 6)
    assert lines.read_text().split() == ['high0', 'high1', 'default0', 'default1', 'low0', 'low1']


def test_the_plain_worker_draws(rq_worker: Worker) -> None:
    job = enqueue_background_job(
        'workers.svg_tasks.generate_complex_svg',
        width=210,
        height=297,
        pattern_type='spiral',
        output_filename='spiral.svg',
        job_timeout='2m',
    )
    with rq_worker('--burst') as worker:
        worker.wait(60)
    result = get_job_status(job.id)['result']
    assert result == str(output_dir() / 'spiral.svg')
    assert 'viewBox="0 0 210 297"' in Path(result).read_text()


def test_rq_info_and_rq_requeue_read_ours(rq_worker: Worker) -> None:
    job = enqueue_background_job('tests.support.tasks.fail')
    with rq_worker('--burst') as worker:
        worker.wait(60)
    info = rq('info')
    assert info.returncode == 0, info.stderr
    assert 'default' in info.stdout
    requeued = rq('requeue', '--queue', 'default', job.id)
    assert requeued.returncode == 0, requeued.stderr
    assert get_job_status(job.id)['status'] == 'queued'


@pytest.mark.filterwarnings('ignore::DeprecationWarning:flask')  # rq-dashboard's own
def test_rq_dashboard_reads_ours(rq_worker: Worker, redis_url: str) -> None:
    done = enqueue_background_job('tests.support.tasks.echo', {'a': (1, 'x')}, job_queue='high')
    broken = enqueue_background_job('tests.support.tasks.fail', 'too wide')
    with rq_worker('--burst') as worker:
        worker.wait(60)
    app = Flask('monitor')
    app.config.from_object(rq_dashboard.default_settings)
    app.config['RQ_DASHBOARD_REDIS_URL'] = redis_url
    rq_dashboard.web.setup_rq_connection(app)
    app.register_blueprint(rq_dashboard.blueprint, url_prefix='/rq')
    client = app.test_client()
    for job, told in ((done, 'tests.support.tasks.echo'), (broken, 'too wide')):
        answer = client.get(f'/rq/0/data/job/{job.id}.json')
        assert answer.status_code == 200
        assert told in answer.text


def plant(connection: Redis, place: str, canary: Path) -> str:
    """A finished job of ours, with a hostile pickle in one place of its record."""
    job = enqueue_background_job('tests.support.tasks.add', 1)
    payload = pickle.dumps(Hostile(canary))
    key = f'rq:job:{job.id}'
    connection.hset(key, 'status', 'finished')
    if place == 'returned':
        successful = Result.Type.SUCCESSFUL.value
        connection.xadd(
            f'rq:results:{job.id}', {'type': successful, 'return_value': b64encode(payload)}
        )
    elif place == 'data':
        connection.hdel(key, 'task')  # so that the data must be read
        connection.hset(key, 'data', zlib.compress(payload))
    else:
        connection.hset(key, place, payload)
    connection.zadd('rq:finished:default', {job.id: '+inf'})
    return job.id


@pytest.mark.parametrize('place', ['data', 'meta', 'result', 'returned'])
def test_a_hostile_pickle_runs_on_no_read_of_ours(
    connection: Redis, tmp_path: Path, place: str
) -> None:
    canary = tmp_path / 'canary'
    job_id = plant(connection, place, canary)
    get_job_status(job_id)
    get_job_statuses([job_id])
    list_jobs('finished')
    for attempt in (cancel_job, retry_job):
        try:
            attempt(job_id)
        except JobError as error:
            assert isinstance(error, InvalidJobError)  # noqa: PT017
    connection.hset(f'rq:job:{job_id}', 'status', 'failed')
    retry_job(job_id)
    # The same id while it waits: the answer is read from what stands there.
    assert enqueue_background_job('tests.support.tasks.add', 1, job_id=job_id).id == job_id
    assert not canary.exists()


@pytest.mark.upstream
def test_the_control_a_stock_read_runs_it(connection: Redis, tmp_path: Path) -> None:
    canary = tmp_path / 'canary'
    job_id = plant(connection, 'meta', canary)
    Job.fetch(job_id, connection)
    assert canary.exists()


def test_a_hostile_result_is_told_as_a_failure(connection: Redis, tmp_path: Path) -> None:
    status = get_job_status(plant(connection, 'returned', tmp_path / 'canary'))
    assert status['status'] == 'failed'
    assert status['error'] is not None
    assert 'posix.mkdir' in status['error']


def test_a_record_full_of_nonsense_can_still_be_read(connection: Redis) -> None:
    job = enqueue_background_job('tests.support.tasks.add', 1)
    for field in ('created_at', 'started_at', 'ended_at', 'meta', 'origin', 'status', 'task'):
        connection.hset(f'rq:job:{job.id}', field, b'\xff nonsense')
    connection.xadd(f'rq:results:{job.id}', {'type': 'x', 'exc_string': '?', 'return_value': '?'})
    status = get_job_status(job.id)
    assert status['created_at'] is None
    assert status['progress'] is None
    connection.hset(f'rq:job:{job.id}', 'status', 'failed')
    assert get_job_status(job.id)['error'] is not None


def test_a_worker_that_is_told_to_stop_leaves_no_process(rq_worker: Worker) -> None:
    with rq_worker('--with-scheduler') as worker:
        job = enqueue_background_job('tests.support.tasks.sleep', 0.1)
        eventually(lambda: get_job_status(job.id)['status'] == 'finished')
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(20) == 0


def test_our_serializer_can_be_named_to_rq(rq_worker: Worker) -> None:
    job = enqueue_background_job('tests.support.tasks.echo', 1)
    with rq_worker('--burst', '--serializer', 'qdjobs.client.payload.PlainSerializer') as worker:
        worker.wait(60)
    assert get_job_status(job.id)['result'] == [[1], {}]
    assert PlainSerializer.loads(PlainSerializer.dumps([1])) == [1]
