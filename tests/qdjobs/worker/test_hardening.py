"""Records that somebody else has planted: each fails, runs nothing, and the worker goes on."""

import json
import pickle
import time
import zlib
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from libraries.job_manager import enqueue_background_job, get_job_status, wait_for_job
from qdjobs.config import environment_config
from tests.qdjobs.worker.test_stock_tools import Hostile
from tests.qdjobs.worker.test_worker import require_living
from tests.support.processes import Worker, eventually

ADD = 'tests.support.tasks.add'
CALM = {'JOB_LEASE': '10'}  # for tests that are not about leases


@pytest.fixture(autouse=True)
def more_tasks(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_TASK_MODULES', 'workers,tests.support.tasks,tests.support.worker_tasks')
    environment_config.cache_clear()


def data_of(*call: Any) -> bytes:
    return zlib.compress(pickle.dumps(call))


def plant(
    connection: Redis, fields: dict[str, Any] | None = None, job_id: str | bytes = 'planted'
) -> bytes:
    """A waiting job as RQ would write it, but for `fields`; None leaves a field out."""
    key = b'rq:job:' + (job_id if isinstance(job_id, bytes) else job_id.encode())
    record: dict[str, Any] = {
        'data': data_of(ADD, None, (1,), {}),
        'created_at': '2026-01-01T00:00:00.000000Z',
        'origin': 'default',
        'status': 'queued',
        'description': 'planted',
        'timeout': '60',
    }
    record |= fields or {}
    mapping: dict[Any, Any] = {name: value for name, value in record.items() if value is not None}
    connection.hset(key, mapping=mapping)
    connection.sadd('rq:queues', 'rq:queue:default')
    connection.rpush('rq:queue:default', job_id)
    return key


def webhook(url: str) -> str:
    return json.dumps([{'url': url, 'job_status': 'failed', 'method': 'GET'}])


def cases(canary: Path) -> dict[str, tuple[dict[str, Any], str]]:
    hostile = pickle.dumps(Hostile(canary))
    return {
        'another function': (
            {'data': data_of('os.mkdir', None, (str(canary),), {})},
            'outside the allowed task modules',
        ),
        'an instance': ({'data': data_of('upper', 'text', (), {})}, 'method of an object'),
        'no function': ({'data': data_of(5, None, (), {})}, 'names no function'),
        'no call': ({'data': zlib.compress(pickle.dumps(5))}, 'cannot be read'),
        'success callback': ({'success_callback_name': 'os.mkdir'}, 'outside the allowed'),
        'failure callback': ({'failure_callback_name': 'os.mkdir'}, 'outside the allowed'),
        'stopped callback': ({'stopped_callback_name': 'os.mkdir'}, 'outside the allowed'),
        'webhook': ({'webhooks': webhook('http://127.0.0.1:1/')}, 'JOB_WEBHOOK_HOSTS'),
        'hostile data': ({'data': zlib.compress(hostile)}, 'mkdir'),
        'hostile meta': ({'meta': hostile}, 'mkdir'),
        'hostile result': ({'result': hostile}, 'mkdir'),
        'missing data': ({'data': None}, 'cannot be read'),
        'bad time-out': ({'timeout': 'soon'}, 'cannot be read'),
        'huge time-out': ({'timeout': '1000000000000'}, 'OverflowError'),
        'bad date': ({'created_at': 'yesterday'}, 'cannot be read'),
        'bad count': ({'retries_left': 'many'}, 'cannot be read'),
        'bad text': ({'description': b'\xff\xfe'}, 'cannot be read'),
        'bad origin': ({'origin': b'\xff'}, 'cannot be read'),
        'a bomb': ({'data': zlib.compress(bytes(200_000_000))}, 'unpacks to more than'),
        'a bomb in a bomb': (
            {'data': zlib.compress(zlib.compress(bytes(200_000_000)))},
            'cannot be read',
        ),
    }


@pytest.mark.parametrize('case', list(cases(Path('/'))))
def test_a_planted_record_fails_once_and_runs_nothing(
    connection: Redis, job_worker: Worker, tmp_path: Path, case: str
) -> None:
    canary = tmp_path / 'canary'
    fields, error = cases(canary)[case]
    key = plant(connection, fields)
    with job_worker(**CALM) as worker:
        eventually(lambda: connection.hget(key, 'status') == b'failed')
        require_living(worker)
    status = get_job_status('planted')
    assert status['status'] == 'failed'
    assert error in str(status['error'])
    assert len(status['attempts']) == 1
    assert not canary.exists()
    assert connection.hget(key, 'worker_deaths') is None
    assert connection.zrange('rq:leases', 0, -1) == []
    if case != 'bad origin':
        assert connection.zrange('rq:failed:default', 0, -1) == [b'planted']
        assert connection.zrange('rq:wip:default', 0, -1) == []


@pytest.mark.parametrize('case', ['another function', 'an instance', 'hostile data', 'webhook'])
def test_a_planted_record_is_not_retried(
    connection: Redis, job_worker: Worker, tmp_path: Path, case: str
) -> None:
    fields, _ = cases(tmp_path / 'canary')[case]
    retries = {'retries_left': '1000000', 'retry_intervals': '[0]'}
    key = plant(connection, fields | retries)
    with job_worker(**CALM) as worker:
        eventually(lambda: connection.hget(key, 'status') == b'failed', timeout=5)
        require_living(worker)
    assert len(get_job_status('planted')['attempts']) == 1


@pytest.mark.parametrize('intervals', ['["x"]', '[1e30]', '{"a": 1}', '5', '[null]'])
def test_bad_retry_intervals_do_not_end_the_worker(
    connection: Redis, job_worker: Worker, intervals: str
) -> None:
    failing = data_of('tests.support.tasks.fail', None, (), {})
    key = plant(connection, {'data': failing, 'retries_left': '1', 'retry_intervals': intervals})
    with job_worker(**CALM) as worker:
        eventually(lambda: worker.poll() is not None or connection.hget(key, 'status') == b'failed')
        assert worker.poll() is None
        require_living(worker)


@pytest.mark.parametrize('field', ['result_ttl', 'failure_ttl'])
@pytest.mark.parametrize('task', [ADD, 'tests.support.tasks.fail'])
def test_an_impossible_ttl_loses_no_registration(
    connection: Redis, job_worker: Worker, field: str, task: str
) -> None:
    key = plant(
        connection, {'data': data_of(task, None, (1,), {}), field: '1000000000000000000000'}
    )
    with job_worker(**CALM) as worker:
        eventually(lambda: connection.hget(key, 'status') in (b'failed', b'finished'))
        require_living(worker)
    places = ['rq:failed:default', 'rq:finished:default']
    assert any(connection.zscore(place, 'planted') is not None for place in places)


@pytest.mark.parametrize('job_id', ['with space', 'a:b', 'ä', b'\xff\xfe', 'x' * 5000])
def test_an_odd_id_fails_once_and_runs_nothing(
    connection: Redis, job_worker: Worker, tmp_path: Path, job_id: str | bytes
) -> None:
    lines = tmp_path / 'lines'
    data = data_of('tests.support.tasks.append', None, (str(lines), 'ran'), {})
    key = plant(connection, {'data': data}, job_id)
    with job_worker() as worker:
        eventually(lambda: connection.hget(key, 'status') in (b'failed', b'finished'))
        require_living(worker)
    # Whether it is run is a matter of taste; once is not.
    assert not lines.exists() or lines.read_text() == 'ran\n'
    assert connection.hget(key, 'worker_deaths') is None
    assert connection.zrange('rq:leases', 0, -1) == []


def test_a_key_that_is_no_record_is_passed_over(connection: Redis, job_worker: Worker) -> None:
    connection.set('rq:job:text', 'no hash')
    connection.rpush('rq:queue:default', 'text', 'missing', '')
    with job_worker(**CALM) as worker:
        require_living(worker)
        assert connection.llen('rq:queue:default') == 0


@pytest.mark.parametrize('key', ['executions', 'results', 'execution'])
def test_a_key_of_another_type_beside_the_record(
    connection: Redis, job_worker: Worker, key: str
) -> None:
    record = plant(connection)
    connection.set(f'rq:{key}:planted', 'of another type')
    with job_worker() as worker:
        require_living(worker)
        eventually(lambda: connection.hget(record, 'status') in (b'failed', b'finished'))
        require_living(worker)
        eventually(lambda: connection.zrange('rq:leases', 0, -1) == [])
        places = ['rq:failed:default', 'rq:finished:default']
        assert any(connection.zscore(place, 'planted') is not None for place in places)


def test_a_bad_record_among_the_scheduled_ends_no_worker(
    connection: Redis, job_worker: Worker
) -> None:
    """A job under a rate limit is left to RQ's own code, which raises for such a record."""
    for number, fields in enumerate(
        ({'status': 'nonsense'}, {'created_at': 'yesterday'}, {'timeout': 'soon'})
    ):
        record: dict[Any, Any] = {
            'data': data_of(ADD, None, (1,), {}),
            'origin': 'default',
            'status': 'scheduled',
            'rate_limit_key': 'k',
            'rate_limit_concurrency': '1',
            **fields,
        }
        connection.hset(f'rq:job:bad{number}', mapping=record)
        connection.zadd('rq:scheduled:default', {f'bad{number}': 1})
    with job_worker() as worker:
        eventually(lambda: worker.poll() is not None or connection.exists('rq:tidying'))
        time.sleep(1)
        assert worker.poll() is None
        require_living(worker)


def test_a_bad_id_among_the_scheduled_ends_no_worker(connection: Redis, job_worker: Worker) -> None:
    connection.hset('rq:job:no id!', mapping={'rate_limit_key': 'k', 'status': 'scheduled'})
    connection.zadd('rq:scheduled:default', {'no id!': 1})
    with job_worker() as worker:
        eventually(lambda: worker.poll() is not None or connection.exists('rq:tidying'))
        time.sleep(1)
        assert worker.poll() is None
        require_living(worker)


@pytest.mark.parametrize('member', [b'bad', b'no id!', b'\xff'])
def test_a_bad_record_among_those_with_dependents_ends_no_worker(
    connection: Redis, job_worker: Worker, member: bytes
) -> None:
    connection.hset(
        b'rq:job:' + member, mapping={'data': b'x', 'status': 'nonsense', 'origin': 'default'}
    )
    connection.zadd('rq:pending-dependents', {member: 1})
    with job_worker() as worker:
        eventually(lambda: worker.poll() is not None or connection.exists('rq:tidying'))
        time.sleep(1)
        assert worker.poll() is None
        require_living(worker)


def test_commands_that_are_none_end_nothing(connection: Redis, job_worker: Worker) -> None:
    with job_worker('--name', 'w', **CALM) as worker:
        require_living(worker)
        for message in ('not json', 'null', '[]', '{}', '{"command": "stop-job", "job_id": []}'):
            connection.publish('rq:pubsub:w', message)
        require_living(worker)


def test_a_result_that_does_not_travel_fails_the_job(job_worker: Worker) -> None:
    with job_worker(**CALM) as worker:
        for task in ('return_unplain', 'return_unpicklable'):
            job = enqueue_background_job(f'tests.support.tasks.{task}')
            status = wait_for_job(job.id, 20)
            assert status['status'] == 'failed'
            assert str(status['error']).startswith(
                'InvalidJobError: the result of tests.support.tasks.'
            )
        require_living(worker)
