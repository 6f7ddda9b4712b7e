"""Records in Redis that somebody has made to take much memory or time of who reads them."""

import pickle
import zlib
from typing import Any

import pytest
from redis import Redis

from libraries.job_manager import InvalidJobError, get_job_status, retry_job
from qdjobs.client.job import BoundedJob
from qdjobs.progress import META
from qdjobs.worker.untrusted import CheckedJob

RECORD = {
    'data': zlib.compress(pickle.dumps(('tests.support.tasks.add', None, (1,), {}))),
    'created_at': '2026-01-01T00:00:00.000000Z',
    'origin': 'default',
    'status': 'failed',
}
BOMB = zlib.compress(bytes(70_000_000), level=1)


def plant(connection: Redis, **fields: Any) -> None:
    connection.hset('rq:job:planted', mapping=RECORD | fields)


@pytest.mark.parametrize('kind', [BoundedJob, CheckedJob])
def test_a_record_that_unpacks_to_much_is_not_fetched(
    connection: Redis, kind: type[BoundedJob]
) -> None:
    plant(connection, data=BOMB)
    with pytest.raises(InvalidJobError, match='unpacks to more'):
        kind.fetch('planted', connection)


def test_a_record_that_unpacks_to_much_is_not_unpacked_when_it_is_tried_again(
    connection: Redis,
) -> None:
    plant(connection, data=BOMB)
    with pytest.raises(InvalidJobError, match="record of job 'planted' cannot be read"):
        retry_job('planted')


def test_a_traceback_that_unpacks_to_much_is_left_alone(connection: Redis) -> None:
    plant(connection, exc_info=BOMB)
    assert BoundedJob.fetch('planted', connection)._exc_info is None
    assert retry_job('planted').is_queued


def test_metadata_of_few_bytes_that_unfold_to_much_are_not_read(connection: Redis) -> None:
    value: list[Any] = []
    for _ in range(18):
        value = [value, value]
    plant(connection, meta=pickle.dumps({META: {'tenant': value}}))
    assert get_job_status('planted')['meta'] == {}


def test_more_than_a_status_can_use_is_not_sent(connection: Redis) -> None:
    plant(connection, meta=pickle.dumps({META: {'a': 'x' * 4_100_000}}))
    connection.xadd('rq:results:planted', {'type': '2', 'exc_string': b'x' * 2_100_000})
    status = get_job_status('planted')
    assert status['meta'] == {}
    assert status['error'] == 'no error was recorded'
