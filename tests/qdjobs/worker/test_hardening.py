"""Records that somebody else has planted: each fails, runs nothing, and the worker goes on."""

import pickle
import zlib
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq.command import send_stop_job_command

from libraries.job_manager import enqueue_background_job, get_job_status
from qdjobs.client.payload import PlainSerializer
from qdjobs.worker.lease import claim_job, claim_request
from tests.support.hostile import Hostile
from tests.support.jobs import done, require_living
from tests.support.processes import ROOT, Worker, eventually
from tests.support.shared_worker import SharedWorker

ADD = 'tests.support.tasks.add'


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


WEBHOOK = '[{"url": "http://127.0.0.1:1/", "job_status": "failed", "method": "GET"}]'


@cache
def bomb() -> bytes:
    """Little that unpacks to more than a worker reads."""
    return zlib.compress(bytes(70_000_000), level=1)


# Each makes some fields of a record, given the path of a folder that nothing must create; and what
# the job fails with.
CASES: dict[str, tuple[Callable[[Path], dict[str, Any]], str]] = {
    'another function': (
        lambda canary: {'data': data_of('os.mkdir', None, (str(canary),), {})},
        'outside the allowed task modules',
    ),
    'an instance': (lambda _: {'data': data_of('upper', 'text', (), {})}, 'method of an object'),
    'no function': (lambda _: {'data': data_of(5, None, (), {})}, 'names no function'),
    'no call': (lambda _: {'data': zlib.compress(pickle.dumps(5))}, 'cannot be read'),
    'success callback': (lambda _: {'success_callback_name': 'os.mkdir'}, 'outside the allowed'),
    'failure callback': (lambda _: {'failure_callback_name': 'os.mkdir'}, 'outside the allowed'),
    'stopped callback': (lambda _: {'stopped_callback_name': 'os.mkdir'}, 'outside the allowed'),
    'webhook': (lambda _: {'webhooks': WEBHOOK}, 'job_on_success'),
    'malformed webhook': (lambda _: {'webhooks': '{'}, 'job_on_success'),
    'hostile data': (lambda canary: {'data': zlib.compress(hostile(canary))}, 'mkdir'),
    'hostile meta': (lambda canary: {'meta': hostile(canary)}, 'mkdir'),
    'hostile result': (lambda canary: {'result': hostile(canary)}, 'mkdir'),
    'missing data': (lambda _: {'data': None}, 'cannot be read'),
    'bad time-out': (lambda _: {'timeout': 'soon'}, 'cannot be read'),
    'huge time-out': (lambda _: {'timeout': '1000000000000'}, 'OverflowError'),
    'bad date': (lambda _: {'created_at': 'yesterday'}, 'cannot be read'),
    'bad count': (lambda _: {'retries_left': 'many'}, 'cannot be read'),
    'bad text': (lambda _: {'description': b'\xff\xfe'}, 'cannot be read'),
    'bad origin': (lambda _: {'origin': b'\xff'}, 'cannot be read'),
    'a bomb': (lambda _: {'data': bomb()}, 'unpacks to more than'),
    'a bomb in a bomb': (lambda _: {'data': zlib.compress(bomb())}, 'cannot be read'),
}


def hostile(canary: Path) -> bytes:
    return pickle.dumps(Hostile(canary))


@pytest.mark.parametrize('case', CASES)
def test_a_planted_record_fails_once_and_runs_nothing(
    connection: Redis, shared_worker: SharedWorker, tmp_path: Path, case: str
) -> None:
    canary = tmp_path / 'canary'
    fields, error = CASES[case]
    key = plant(connection, fields(canary))
    eventually(lambda: connection.hget(key, 'status') == b'failed')
    require_living(shared_worker)
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
    connection: Redis, shared_worker: SharedWorker, tmp_path: Path, case: str
) -> None:
    fields, _ = CASES[case]
    retries = {'retries_left': '1000000', 'retry_intervals': '[0]'}
    key = plant(connection, fields(tmp_path / 'canary') | retries)
    eventually(lambda: connection.hget(key, 'status') == b'failed')
    require_living(shared_worker)
    assert len(get_job_status('planted')['attempts']) == 1


@pytest.mark.parametrize('intervals', ['["x"]', '[1e30]', '{"a": 1}', '5', '[null]'])
def test_bad_retry_intervals_do_not_end_the_worker(
    connection: Redis, shared_worker: SharedWorker, intervals: str
) -> None:
    failing = data_of('tests.support.tasks.fail', None, (), {})
    key = plant(connection, {'data': failing, 'retries_left': '1', 'retry_intervals': intervals})
    eventually(
        lambda: shared_worker.poll() is not None or connection.hget(key, 'status') == b'failed'
    )
    assert shared_worker.poll() is None
    require_living(shared_worker)


@pytest.mark.parametrize('intervals', ['["x"]', '[1e400]', '[-1]', '{"a": 1}', '5', '[null]'])
def test_bad_repeat_intervals_lose_no_job(
    connection: Redis, shared_worker: SharedWorker, intervals: str
) -> None:
    key = plant(connection, {'repeats_left': '1', 'repeat_intervals': intervals})
    eventually(lambda: shared_worker.poll() is not None or has_ended(connection, key))
    require_living(shared_worker)
    require_registered(connection, 'planted')


@pytest.mark.parametrize('status', ['scheduled', 'deferred'])
def test_a_bad_ttl_of_a_job_that_is_not_queued_yet_loses_no_job(
    connection: Redis, shared_worker: SharedWorker, status: str
) -> None:
    with shared_worker.held():
        key = plant(connection, {'status': status, 'ttl': 'soon'})
        connection.delete('rq:queue:default')
        if status == 'scheduled':
            connection.zadd('rq:scheduled:default', {'planted': 1})
        else:
            connection.zadd('rq:deferred:default', {'planted': 1})
            connection.sadd('rq:job:parent:dependents', 'planted')
            connection.zadd('rq:pending-dependents', {'parent': 1})
    eventually(lambda: has_ended(connection, key))
    require_living(shared_worker)


@pytest.mark.parametrize('field', ['result_ttl', 'failure_ttl'])
@pytest.mark.parametrize('task', [ADD, 'tests.support.tasks.fail'])
def test_an_impossible_ttl_loses_no_registration(
    connection: Redis, shared_worker: SharedWorker, field: str, task: str
) -> None:
    key = plant(
        connection, {'data': data_of(task, None, (1,), {}), field: '1000000000000000000000'}
    )
    eventually(lambda: has_ended(connection, key))
    require_living(shared_worker)
    require_registered(connection, 'planted')


def require_registered(connection: Redis, job_id: str) -> None:
    places = ['rq:failed:default', 'rq:finished:default']
    assert any(connection.zscore(place, job_id) is not None for place in places)


@pytest.mark.parametrize('job_id', ['with space', 'a:b', 'ä', b'\xff\xfe', 'x' * 5000])
def test_an_odd_id_fails_once_and_runs_nothing(
    connection: Redis, shared_worker: SharedWorker, tmp_path: Path, job_id: str | bytes
) -> None:
    lines = tmp_path / 'lines'
    data = data_of('tests.support.tasks.append', None, (str(lines), 'ran'), {})
    key = plant(connection, {'data': data}, job_id)
    eventually(lambda: has_ended(connection, key))
    require_living(shared_worker)
    # Whether it is run is a matter of taste; once is not.
    assert not lines.exists() or lines.read_text() == 'ran\n'
    assert connection.hget(key, 'worker_deaths') is None
    assert connection.zrange('rq:leases', 0, -1) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    'fields',
    [{'data': data_of(ADD, None, (1, 2, 3), {})}, {'worker_deaths': '3'}],
    ids=['a wrong call', 'a poison pill'],
)
def test_a_lethal_failure_callback_of_a_job_that_is_not_run(
    connection: Redis, own_worker: Worker, fields: dict[str, Any]
) -> None:
    modules = 'tests.support.tasks,tests.support.fault_tasks'
    callback = {'failure_callback_name': 'tests.support.fault_tasks.die_at_once'}
    key = plant(connection, fields | callback)
    with own_worker(JOB_TASK_MODULES=modules, JOB_LEASE='10') as worker:
        eventually(lambda: worker.poll() is not None or has_ended(connection, key))
        require_living(worker)
    assert connection.hget(key, 'status') == b'failed'


@pytest.mark.slow
def test_a_module_that_is_lethal_when_the_horse_imports_it(
    connection: Redis, own_worker: Worker, tmp_path: Path
) -> None:
    """A parent imports the modules of a package, but not those of packages within it."""
    inner = tmp_path / 'outer' / 'inner'
    inner.mkdir(parents=True)
    (inner.parent / '__init__.py').touch()
    (inner / '__init__.py').touch()
    (inner / 'lethal.py').write_text('import os\nos._exit(1)\n')
    plant(connection, {'data': data_of('outer.inner.lethal.run', None, (), {})})
    environment = {
        'JOB_TASK_MODULES': 'tests.support.tasks,outer',
        'PYTHONPATH': f'{ROOT}:{tmp_path}',
        'JOB_LEASE': '10',
    }
    other = enqueue_background_job(ADD, 1)
    with own_worker(**environment) as worker:
        eventually(lambda: worker.poll() is not None or get_job_status(other.id)['result'] == 3)
        assert worker.poll() is None


def test_a_key_that_is_no_record_is_passed_over(
    connection: Redis, shared_worker: SharedWorker
) -> None:
    connection.set('rq:job:text', 'no hash')
    connection.rpush('rq:queue:default', 'text', 'missing', '')
    connection.zadd('rq:scheduled:default', {'text': 1, 'missing': 1})
    require_living(shared_worker)
    assert connection.llen('rq:queue:default') == 0
    eventually(lambda: connection.zcard('rq:scheduled:default') == 0)


@pytest.mark.slow
def test_a_key_of_another_type_beside_the_record(connection: Redis, own_worker: Worker) -> None:
    kinds = ('executions', 'results', 'execution')
    records = {kind: plant(connection, job_id=kind) for kind in kinds}
    for kind in kinds:
        connection.set(f'rq:{kind}:{kind}', 'of another type')
    with own_worker(JOB_TASK_MODULES='tests.support.tasks') as worker:  # a lease of one second
        require_living(worker)
        for record in records.values():
            eventually(partial(has_ended, connection, record))
        require_living(worker)
        eventually(lambda: connection.zrange('rq:leases', 0, -1) == [])
        for kind in kinds:
            require_registered(connection, kind)


@pytest.mark.slow
def test_a_record_that_becomes_another_key_while_its_job_runs(
    connection: Redis, own_worker: Worker, tmp_path: Path
) -> None:
    begun, gate = tmp_path / 'begun', tmp_path / 'gate'
    with own_worker(JOB_TASK_MODULES='tests.support.tasks') as worker:
        job = enqueue_background_job('tests.support.tasks.touch_and_wait', str(begun), str(gate))
        eventually(begun.exists)
        connection.set(job.key, 'of another type')
        gate.touch()
        require_living(worker)
    assert connection.zrange('rq:leases', 0, -1) == []


@pytest.mark.slow
@pytest.mark.parametrize('member', [b'no-colon', b'\xff', b'text:execution'])
def test_a_lease_that_cannot_be_recovered_is_passed_over(
    connection: Redis, own_worker: Worker, tmp_path: Path, member: bytes
) -> None:
    connection.set('rq:job:text', 'of another type')
    connection.zadd('rq:leases', {member: 1})
    lines = tmp_path / 'lines'
    task = 'tests.support.tasks.append'
    key = plant(connection, {'data': data_of(task, None, (str(lines), 'ran'), {})})
    claim_job(connection, claim_request('dead', 'execution', 0.01, ['default']))
    with own_worker(JOB_TASK_MODULES='tests.support.tasks'):
        eventually(lambda: has_ended(connection, key))
    assert lines.read_text() == 'ran\n'


def has_ended(connection: Redis, key: bytes) -> bool:
    return connection.hget(key, 'status') in (b'failed', b'finished')


def require_tidying(connection: Redis, worker: SharedWorker) -> None:
    """Fail unless the worker tidies, and then lives; it does so every half second."""
    lock = 'rq:tidying:default,high,low'
    for _ in range(2):
        connection.delete(lock)
        eventually(lambda: worker.poll() is not None or connection.exists(lock))
    assert worker.poll() is None
    require_living(worker)


def test_a_bad_record_among_the_scheduled_ends_no_worker(
    connection: Redis, shared_worker: SharedWorker
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
    require_tidying(connection, shared_worker)


def test_a_bad_id_among_the_scheduled_ends_no_worker(
    connection: Redis, shared_worker: SharedWorker
) -> None:
    connection.hset('rq:job:no id!', mapping={'rate_limit_key': 'k', 'status': 'scheduled'})
    connection.zadd('rq:scheduled:default', {'no id!': 1})
    require_tidying(connection, shared_worker)


@pytest.mark.parametrize('member', [b'bad', b'no id!', b'\xff'])
def test_a_bad_record_among_those_with_dependents_ends_no_worker(
    connection: Redis, shared_worker: SharedWorker, member: bytes
) -> None:
    connection.hset(
        b'rq:job:' + member, mapping={'data': b'x', 'status': 'nonsense', 'origin': 'default'}
    )
    connection.zadd('rq:pending-dependents', {member: 1})
    require_tidying(connection, shared_worker)
    assert connection.zcard('rq:pending-dependents') == 0


def test_commands_that_are_none_end_nothing(
    connection: Redis, shared_worker: SharedWorker, tmp_path: Path
) -> None:
    require_living(shared_worker)
    channel = f'rq:pubsub:{shared_worker.name}'
    eventually(lambda: connection.pubsub_numsub(channel)[0][1] == 1)
    for message in ('not json', 'null', '[]', '{}', '{"command": "stop-job", "job_id": []}'):
        assert connection.publish(channel, message) == 1
    begun = tmp_path / 'begun'
    job = enqueue_background_job('tests.support.tasks.touch_and_sleep', str(begun), 600.0)
    eventually(begun.exists)
    send_stop_job_command(connection, job.id, PlainSerializer)  # it still hears
    assert done(job)['status'] == 'stopped'


def test_a_result_that_does_not_travel_fails_the_job(shared_worker: SharedWorker) -> None:
    for task in ('return_unplain', 'return_unpicklable'):
        status = done(enqueue_background_job(f'tests.support.tasks.{task}'))
        assert status['status'] == 'failed'
        assert str(status['error']).startswith(
            'InvalidJobError: the result of tests.support.tasks.'
        )
    require_living(shared_worker)
