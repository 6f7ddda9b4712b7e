"""Keys of another type than they should have: each is named, and everything else goes on."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from flask.testing import FlaskClient
from redis import Redis

from app import create_app
from libraries.job_manager import (
    JobError,
    cancel_job,
    delete_job,
    enqueue_background_job,
    get_job_status,
    list_jobs,
    retry_job,
    wait_for_job,
)
from qdjobs.client.control import pause_workers, resume_workers
from qdjobs.client.details import read_details
from qdjobs.client.keys import find_wrong_keys
from qdjobs.errors import JobNotFoundError, WrongKeyError
from qdjobs.monitoring.counts import read_counts
from qdjobs.monitoring.health import read_health
from qdjobs.monitoring.registries import describe_jobs, list_queues, list_workers
from qdjobs.worker import ending
from qdjobs.worker.lease import (
    claim_job,
    claim_request,
    end_run,
    late_leases,
    recover,
    remove_expired,
    renew,
    settle_deferred,
    write_presence,
)
from qdjobs.worker.untrusted import restore_job
from tests.support.processes import Worker, eventually

ADD = 'tests.support.tasks.add'
PLANTED = 'planted'
TOKEN = {'Authorization': 'Bearer secret'}

TYPES: dict[str, Callable[[Redis, str], object]] = {
    'string': lambda connection, key: connection.set(key, 'x'),
    'list': lambda connection, key: connection.rpush(key, 'x'),
    'hash': lambda connection, key: connection.hset(key, 'x', 'y'),
    'set': lambda connection, key: connection.sadd(key, 'x'),
    'zset': lambda connection, key: connection.zadd(key, {'x': 1}),
    'stream': lambda connection, key: connection.xadd(key, {'x': 'y'}),
}
KEYS = {
    'rq:queues': 'set',
    'rq:workers': 'set',
    'rq:workers:default': 'set',
    'rq:pending-dependents': 'zset',
    'rq:metrics': 'hash',
    'rq:metrics:labels': 'set',
    'rq:rl-keys': 'set',
    'rq:wake-up:default': 'list',
    'rq:scheduled:default': 'zset',
    'rq:deferred:default': 'zset',
    'rq:ready:default': 'zset',
    'rq:wip:default': 'zset',
    'rq:finished:default': 'zset',
    'rq:failed:default': 'zset',
    'rq:canceled:default': 'zset',
    'rq:worker:reader': 'hash',
    'rq:worker:reader:executions': 'set',
    f'rq:job:{PLANTED}': 'hash',
    f'rq:results:{PLANTED}': 'stream',
    f'rq:executions:{PLANTED}': 'zset',
    f'rq:job:{PLANTED}:dependents': 'set',
    f'rq:job::{PLANTED}:dependencies': 'set',
    f'rq:added:{PLANTED}': 'string',
    'rq:failures': 'hash',
    'rq:suspended': 'string',
}
NEEDED = {'rq:leases': 'zset', 'rq:queue:default': 'list'}  # without these no job of `default` runs
CASES = [
    (key, wrong)
    for key, right in (KEYS | NEEDED).items()
    for wrong in TYPES
    if wrong != right and key != 'rq:suspended'
]


@pytest.fixture
def client(settings: pytest.MonkeyPatch) -> FlaskClient:
    settings.setenv('JOBS_API_TOKEN', 'secret')
    settings.setenv('METRICS_TOKEN', 'secret')
    return create_app().test_client()


def run_one(connection: Redis, queue: str) -> str:
    """Do for the next job of a queue what a worker does."""
    write_presence(connection, 'reader', 60, [queue], {'birth': 'now', 'state': 'busy'})
    claim = claim_job(connection, claim_request('reader', 'execution', 60, [queue, 'low'])).claim
    assert claim is not None
    assert renew(connection, [claim.lease], 60, False) == ['held']
    job = restore_job(claim.lease.job_id, claim.fields, connection)
    job.ended_at = datetime.now(UTC)
    failed = ending.failed(job, 'reader', 'ValueError: it is one')
    ended = end_run(connection, claim.lease, failed.encode())
    recover(connection, late_leases(connection, 100, 10), 3)
    remove_expired(connection, [queue], 10)
    return ended.state


def read_all(job_id: str) -> None:
    """Read what monitors and callers read."""
    list_jobs()
    for status in ('queued', 'scheduled', 'failed', 'canceled', 'started', 'rate_limited'):
        list_jobs(status)
    assert get_job_status(job_id)['status'] == 'failed'
    read_health(1000)
    read_counts()
    list_queues()
    list_workers()
    describe_jobs([job_id, PLANTED])


@pytest.mark.parametrize(('key', 'wrong'), CASES)
def test_a_key_of_another_type_stops_nothing_else(connection: Redis, key: str, wrong: str) -> None:
    TYPES[wrong](connection, key)
    if key.startswith('rq:worker:'):
        connection.sadd('rq:workers', key)
    queue = 'low' if key in NEEDED else 'default'
    job = enqueue_background_job(ADD, 1, job_queue=queue)
    if key == 'rq:leases':  # no job can be claimed, and none is lost
        with pytest.raises(Exception, match=f'WRONGTYPE {key} {wrong}'):
            run_one(connection, queue)
        assert connection.lrange('rq:queue:low', 0, -1) == [job.id.encode()]
        connection.delete(key)
        assert run_one(connection, queue) == 'failed'
        TYPES[wrong](connection, key)
    elif key == 'rq:worker:reader':  # what a worker writes anew when it starts
        with pytest.raises(Exception, match=f'WRONGTYPE {key} {wrong}'):
            run_one(connection, queue)
        connection.delete(key)
        assert run_one(connection, queue) == 'failed'
    else:
        assert run_one(connection, 'default') == 'failed'
    read_all(job.id)
    retry_job(job.id)
    assert cancel_job(job.id) == 'canceled'
    assert delete_job(job.id) == 'deleted'


@pytest.mark.parametrize('key', KEYS | NEEDED)
def test_what_cannot_go_on_names_the_key(connection: Redis, key: str) -> None:
    wrong = 'string' if (KEYS | NEEDED)[key] != 'string' else 'list'
    TYPES[wrong](connection, key)
    calls: list[Callable[[], Any]] = [
        lambda: enqueue_background_job(ADD, 1, job_id=PLANTED),
        lambda: enqueue_background_job(ADD, 1, job_delay=60),
        lambda: enqueue_background_job(ADD, 1, job_id='child', job_after=PLANTED),
        lambda: get_job_status(PLANTED),
        lambda: read_details(PLANTED),
        lambda: cancel_job(PLANTED),
        lambda: delete_job(PLANTED),
        lambda: retry_job(PLANTED),
        lambda: settle_deferred(connection, 'low', 0, 10),
        pause_workers,
        resume_workers,
    ]
    for call in calls:
        try:
            call()
        except WrongKeyError as error:
            assert f'redis-cli DEL {key}' in str(error)  # noqa: PT017
            assert error.job_id is None  # noqa: PT017
        except JobNotFoundError:
            pass
        except JobError as error:
            assert 'Redis' not in str(error)  # noqa: PT017


def test_a_record_of_another_type_is_no_missing_job(connection: Redis, client: FlaskClient) -> None:
    connection.set('rq:job:planted', 'x')
    for call in (get_job_status, cancel_job, delete_job, retry_job, read_details):
        with pytest.raises(WrongKeyError, match='rq:job:planted'):
            call('planted')
    answer = client.get('/api/jobs/planted', headers=TOKEN)
    assert answer.status_code == 500
    assert 'redis-cli DEL rq:job:planted' in answer.json['detail']  # type: ignore[index]
    assert 'Retry-After' not in answer.headers


@pytest.mark.parametrize('key', KEYS)
def test_the_interfaces_answer_beside_a_key_of_another_type(
    connection: Redis, client: FlaskClient, key: str
) -> None:
    TYPES['stream' if KEYS[key] != 'stream' else 'string'](connection, key)
    answer = client.post('/api/jobs', headers=TOKEN, json={'task': 'artboard'})
    assert answer.status_code in (202, 400)
    assert client.get('/api/jobs', headers=TOKEN).status_code == 200
    metrics = client.get('/metrics', headers=TOKEN)
    assert b'jobs_redis_up 1.0' in metrics.data


def test_the_doctor_names_every_key_of_another_type(connection: Redis, client: FlaskClient) -> None:
    keys = [key for key in (*KEYS, *NEEDED) if PLANTED not in key and 'reader' not in key]
    keys = [key for key in keys if key not in ('rq:failures', 'rq:suspended')]
    for key in keys:
        connection.xadd(key, {'x': 'y'})
    found = {name for name, _ in find_wrong_keys(connection, 'rq', ['default'])}
    assert found == set(keys)
    report = client.application.test_cli_runner().invoke(args=['jobs', 'doctor']).output
    assert 'repeat it later' not in report
    for key in keys:
        assert f'redis-cli DEL {key}' in report


@pytest.mark.slow
def test_a_worker_runs_jobs_beside_keys_of_another_type(
    connection: Redis, own_worker: Worker, tmp_path: Any
) -> None:
    job = enqueue_background_job(ADD, 1)
    broken = [
        key for key in KEYS if PLANTED not in key and 'reader' not in key and key != 'rq:suspended'
    ]
    for key in broken:
        connection.delete(key)
        connection.xadd(key, {'x': 'y'})
    with own_worker(JOB_TASK_MODULES='tests.support.tasks') as worker:
        for number in range(3):
            assert wait_for_job(job.id, 60)['status'] == 'finished'
            assert worker.poll() is None
            job = enqueue_background_job(ADD, number)
        log = tmp_path / 'worker.log'
        eventually(lambda: 'redis-cli DEL rq:wip:default' in log.read_text())
    assert 'Redis is away' not in log.read_text()


@pytest.mark.slow
def test_a_retry_that_has_no_place_to_wait_fails_the_job(
    connection: Redis, own_worker: Worker
) -> None:
    connection.set('rq:scheduled:default', 'x')
    job = enqueue_background_job('tests.support.tasks.fail', job_max_retries=3, job_retry_delay=60)
    with own_worker(JOB_TASK_MODULES='tests.support.tasks'):
        eventually(lambda: get_job_status(job.id)['status'] == 'failed')
    assert 'rq:scheduled:default' in str(get_job_status(job.id)['error'])
