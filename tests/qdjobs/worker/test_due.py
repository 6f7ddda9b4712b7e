"""How much a worker does for jobs that become due, and for a job that comes while it is idle."""

from contextlib import ExitStack

import pytest
from redis import Redis

from libraries.job_manager import enqueue_background_job, enqueue_background_jobs, get_job_statuses
from tests.support.processes import Worker, eventually

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('light')]

ADD = 'tests.support.tasks.add'
CALM = {'JOB_LEASE': '10'}  # for tests that are not about leases


def test_many_jobs_that_are_due_at_once_do_not_wait_for_each_other(
    connection: Redis, own_worker: Worker
) -> None:
    """A round comes every five seconds: with 100 jobs a round, the last would wait for 35."""
    calls = [{'a': number} for number in range(800)]
    jobs = enqueue_background_jobs(ADD, calls, job_delay=1)
    now, _ = connection.time()
    eventually(lambda: connection.time()[0] > now + 2)
    with own_worker(JOB_DUE_INTERVAL='5', JOB_TIDY_INTERVAL='20', **CALM):
        eventually(lambda: connection.zcard('rq:scheduled:default') < 800)
        eventually(lambda: connection.zcard('rq:scheduled:default') == 0, timeout=20)
        ids = [job.id for job in jobs]
        eventually(lambda: {one['status'] for one in get_job_statuses(ids)} == {'finished'})


def test_a_job_does_not_wake_every_idle_worker(connection: Redis, own_worker: Worker) -> None:
    count = 8
    waits = ('JOB_IDLE_WAIT', 'JOB_DUE_INTERVAL', 'JOB_HEARTBEAT_INTERVAL', 'JOB_TIDY_INTERVAL')
    with ExitStack() as workers:
        for _ in range(count):
            worker = own_worker(JOB_LEASE='60', **dict.fromkeys(waits, '20'))
            workers.enter_context(worker)
        eventually(lambda: waiting_clients(connection) == count)
        calls = [calls_for_a_job(connection, count) for _ in range(3)]
    assert min(calls) <= 6, calls  # nothing else was due meanwhile


def calls_for_a_job(connection: Redis, workers: int) -> int:
    """How many scripts run until the job has finished and everyone waits again."""
    before = script_calls(connection)
    job = enqueue_background_job(ADD, 1)
    eventually(lambda: connection.hget(job.key, 'status') == b'finished')
    eventually(lambda: waiting_clients(connection) == workers)
    return script_calls(connection) - before


def script_calls(connection: Redis) -> int:
    return int(connection.info('commandstats')['cmdstat_evalsha']['calls'])


def waiting_clients(connection: Redis) -> int:
    """The workers that wait for a wake-up."""
    return sum('b' in client['flags'] for client in connection.client_list())
