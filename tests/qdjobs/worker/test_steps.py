"""What can be much is done in steps, so that Redis serves others in between."""

from uuid import uuid4

import pytest
from redis import Redis

from libraries.job_manager import enqueue_background_jobs, get_job_statuses
from qdjobs.client.listing import read_ids
from qdjobs.config import get_config
from qdjobs.worker.lease import Claimed, claim_job, claim_request, remove_expired
from tests.support.load import commands
from tests.support.processes import Worker, eventually

pytestmark = pytest.mark.usefixtures('light')

ADD = 'tests.support.tasks.add'
QUEUES = ('high', 'default', 'low')
STEP = 500  # due jobs that one claim enqueues


def fill_due(connection: Redis, queue: str, jobs: int) -> list[str]:
    """Let jobs be due since long ago; return their ids in the order in which they were."""
    delayed = enqueue_background_jobs(ADD, [{'a': 1}] * jobs, job_queue=queue, job_delay=3600)
    connection.zadd(f'rq:scheduled:{queue}', {job.id: n for n, job in enumerate(delayed, 1)})
    return [job.id for job in delayed]


def count_due(connection: Redis) -> int:
    return sum(connection.zcard(f'rq:scheduled:{queue}') for queue in QUEUES)


def claim(connection: Redis) -> Claimed:
    return claim_job(connection, claim_request('worker', uuid4().hex, 60, get_config().queues))


# Jobs that become due at once


def test_one_claim_enqueues_a_bounded_number_of_due_jobs_of_all_queues(connection: Redis) -> None:
    for queue in QUEUES:
        fill_due(connection, queue, 300)
    assert claim(connection).has_more
    assert [connection.zcard(f'rq:scheduled:{queue}') for queue in QUEUES] == [0, 100, 300]
    assert not claim(connection).has_more
    assert count_due(connection) == 0


def test_a_due_job_costs_few_commands(connection: Redis) -> None:
    fill_due(connection, 'default', STEP)
    claim(connection)  # from now on the server knows the script
    connection.flushall()
    fill_due(connection, 'default', STEP)
    assert sum(commands(connection, lambda: claim(connection)).values()) <= 4 * STEP
    assert count_due(connection) == 0


def test_due_jobs_wait_in_the_order_of_their_times(connection: Redis) -> None:
    due = fill_due(connection, 'default', 5)
    first, at_front, and_before_it = due[0], due[2], due[4]
    for job_id in (at_front, and_before_it):
        connection.hset(f'rq:job:{job_id}', 'enqueue_at_front', 1)
    connection.hset(f'rq:job:{due[1]}', 'ttl', 60)
    found = claim(connection).claim
    assert found is not None
    assert found.lease.job_id == and_before_it
    waiting = read_ids('rq:queue:default', 0, -1)
    assert waiting == [at_front, first, due[1], due[3]]
    assert {status['status'] for status in get_job_statuses(waiting)} == {'queued'}
    assert connection.hget(f'rq:job:{due[3]}', 'due_at') == b'4'
    assert 0 < connection.ttl(f'rq:job:{due[1]}') <= 60
    assert connection.smembers('rq:queues') == {b'rq:queue:default'}


def test_due_jobs_that_wait_for_a_slot_keep_no_worker_busy(connection: Redis) -> None:
    """They stay where they are until maintenance has looked after them."""
    for job_id in fill_due(connection, 'high', STEP):
        connection.hset(f'rq:job:{job_id}', 'rate_limit_key', 'shared')
    fill_due(connection, 'low', 1)
    claimed = claim(connection)
    assert not claimed.has_more
    assert claimed.claim is not None
    assert claimed.claim.queue == 'low'


# Entries that expire at once


def test_expired_entries_of_registries_are_removed_up_to_a_limit(connection: Redis) -> None:
    expired = {f'job-{number}': number for number in range(1, 8)}
    for registry in ('rq:finished:high', 'rq:failed:default'):
        connection.zadd(registry, expired | {'kept': 1e12, 'kept for ever': float('inf')})
    assert not remove_expired(connection, QUEUES, 10)
    assert [connection.zcard(key) for key in ('rq:finished:high', 'rq:failed:default')] == [2, 6]
    assert remove_expired(connection, QUEUES, 10)
    assert connection.zrange('rq:failed:default', 0, -1) == [b'kept', b'kept for ever']


def test_a_worker_removes_what_has_expired_in_steps(connection: Redis, own_worker: Worker) -> None:
    for start in range(1, 25_000, 5_000):
        entries = {f'job-{number}': number for number in range(start, start + 5_000)}
        connection.zadd('rq:finished:default', entries)
    connection.config_resetstat()
    with own_worker():
        eventually(lambda: connection.zcard('rq:finished:default') == 0)
    stats = connection.info('commandstats')
    assert stats['cmdstat_zremrangebyrank']['calls'] == 3
