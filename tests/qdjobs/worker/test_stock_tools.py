"""Tools as RQ ships them read our jobs without a flag; and what they, or anyone, leave in Redis
runs nothing when we read it.
"""

from pathlib import Path

import pytest
import rq_dashboard
from flask import Flask
from redis import Redis
from rq.job import Job

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
from tests.support.hostile import PLACES, plant
from tests.support.jobs import lines_of, run_rq
from tests.support.processes import Worker, eventually

APPEND = 'tests.support.tasks.append'


def test_the_plain_command_runs_our_jobs_in_the_order_of_the_queues(
    rq_worker: Worker, tmp_path: Path
) -> None:
    lines = tmp_path / 'lines'
    for number in range(2):
        for queue in ('low', 'default', 'high'):
            enqueue_background_job(APPEND, str(lines), f'{queue}{number}', job_queue=queue)
    with rq_worker():  # no option and no environment but REDIS_URL
        eventually(lambda: len(lines_of(lines)) == 6)
    assert lines_of(lines) == ['high0', 'high1', 'default0', 'default1', 'low0', 'low1']


@pytest.mark.slow
@pytest.mark.filterwarnings('ignore::DeprecationWarning:flask')  # rq-dashboard's own
def test_a_plain_worker_runs_our_jobs_and_rq_s_tools_read_them(
    rq_worker: Worker, redis_url: str
) -> None:
    drawing = enqueue_background_job(
        'workers.svg_tasks.generate_complex_svg',
        width=210,
        height=297,
        pattern_type='spiral',
        output_filename='spiral.svg',
        job_timeout='2m',
    )
    finished = enqueue_background_job('tests.support.tasks.echo', {'a': (1, 'x')}, job_queue='high')
    broken = enqueue_background_job('tests.support.tasks.fail', 'too wide')
    with rq_worker('--burst') as worker:
        assert worker.wait(240) == 0
    result = get_job_status(drawing.id)['result']
    assert result == str(output_dir() / 'spiral.svg')
    assert 'viewBox="0 0 210 297"' in Path(result).read_text()

    app = Flask('monitor')
    app.config.from_object(rq_dashboard.default_settings)
    app.config['RQ_DASHBOARD_REDIS_URL'] = redis_url
    rq_dashboard.web.setup_rq_connection(app)
    app.register_blueprint(rq_dashboard.blueprint, url_prefix='/rq')
    client = app.test_client()
    for job, shown in ((finished, 'tests.support.tasks.echo'), (broken, 'too wide')):
        answer = client.get(f'/rq/0/data/job/{job.id}.json')
        assert answer.status_code == 200
        assert shown in answer.text

    info = run_rq('info')
    assert info.exit_code == 0, info.output
    assert 'default' in info.output
    requeued = run_rq('requeue', '--queue', 'default', broken.id)
    assert requeued.exit_code == 0, requeued.output
    assert get_job_status(broken.id)['status'] == 'queued'


@pytest.mark.parametrize('place', PLACES)
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


def test_a_hostile_result_is_shown_as_a_failure(connection: Redis, tmp_path: Path) -> None:
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


@pytest.mark.slow
def test_our_serializer_can_be_named_to_rq(rq_worker: Worker) -> None:
    job = enqueue_background_job('tests.support.tasks.echo', 1)
    with rq_worker('--burst', '--serializer', 'qdjobs.client.payload.PlainSerializer') as worker:
        assert worker.wait(240) == 0
    assert get_job_status(job.id)['result'] == [[1], {}]
    assert PlainSerializer.loads(PlainSerializer.dumps([1])) == [1]


@pytest.mark.upstream
def test_a_stock_worker_with_a_scheduler_ends_at_a_sigterm(rq_worker: Worker) -> None:
    with rq_worker('--with-scheduler') as worker:
        job = enqueue_background_job('tests.support.tasks.sleep', 0.1)
        eventually(lambda: get_job_status(job.id)['status'] == 'finished')
        worker.terminate()
        assert worker.wait(240) == 0
