"""How a job ends when something else wants to end it too: a stop, another run, a lost answer."""

import signal
import time
from pathlib import Path

import pytest
from redis import Redis
from rq import Callback, Queue
from rq.command import send_stop_job_command
from rq.job import Job

from libraries.job_manager import (
    cancel_job,
    enqueue_background_job,
    get_job_status,
    list_jobs,
    retry_job,
)
from tests.support.jobs import done, lines_of, require_living
from tests.support.outages import await_runs, deaths_of, has_said_that_it_stops
from tests.support.processes import Worker, eventually, stop
from tests.support.proxy import Proxy
from tests.support.shared_worker import SharedWorker

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('light')]

ADD = 'tests.support.tasks.add'
APPEND = 'tests.support.tasks.append'
FAIL = 'tests.support.tasks.fail'
PID = 'tests.support.tasks.process_id'
BEGIN = 'tests.support.worker_tasks.begin_and_sleep'
WAIT = 'tests.support.fault_tasks.begin_and_wait'
WAIT_AND_FAIL = 'tests.support.fault_tasks.begin_and_fail'
CALM = {'JOB_LEASE': '10'}  # for tests that are not about leases


# -- a stop ----------------------------------------------------------------------------------------


def test_an_attempt_that_fails_before_the_worker_hears_of_the_stop_is_the_last(
    connection: Redis, own_worker: Worker, tmp_path: Path, gate: Path
) -> None:
    with own_worker(**CALM) as worker:
        for number in range(5):
            begun = tmp_path / f'begun{number}'
            job = enqueue_background_job(
                WAIT_AND_FAIL, str(begun), str(gate), job_max_retries=3, job_retry_delay=0
            )
            await_runs(begun, 1)
            connection.hset(job.key, 'stop_requested', 1)  # as `cancel_job`, but for its message
            gate.touch()
            assert done(job)['status'] in ('stopped', 'failed')
            require_living(worker)
            assert len(lines_of(begun)) == 1
            assert list_jobs('queued') == list_jobs('scheduled') == []


@pytest.mark.parametrize('action', ['stop', 'cancel', 'delete'])
def test_a_job_that_was_ended_meanwhile_is_not_put_back(
    connection: Redis, own_worker: Worker, begun: Path, action: str
) -> None:
    """By a deploy, before the worker has heard of it."""
    with own_worker(JOB_SHUTDOWN_GRACE='2', **CALM) as worker:
        job = enqueue_background_job(BEGIN, str(begun), 600.0)
        await_runs(begun, 1)
        worker.terminate()
        eventually(lambda: has_said_that_it_stops(connection))
        stop(worker)
        if action == 'stop':
            connection.hset(job.key, 'stop_requested', 1)
        elif action == 'cancel':
            Job.fetch(job.id, connection).cancel()
        else:
            Job.fetch(job.id, connection).delete()
        worker.send_signal(signal.SIGCONT)
        assert worker.wait(60) == 0
    assert connection.lrange('rq:queue:default', 0, -1) == []
    assert connection.zcard('rq:leases') == 0
    if action == 'delete':
        assert connection.exists(job.key) == 0
    else:
        assert get_job_status(job.id)['status'] == ('stopped' if action == 'stop' else 'canceled')


def test_the_attempts_of_a_cancelled_job_are_not_kept_for_ever(
    connection: Redis, shared_worker: SharedWorker
) -> None:
    job = enqueue_background_job(FAIL, job_max_retries=3, job_retry_delay=600)
    eventually(lambda: get_job_status(job.id)['status'] == 'scheduled')
    assert cancel_job(job.id) == 'canceled'
    assert connection.ttl(job.key) > 0
    assert connection.ttl(f'rq:results:{job.id}') > 0


OTHERS = ['gone'] * 12_000  # which a test can take away at once


def test_a_cancel_in_a_long_queue_does_not_search_it(
    connection: Redis, shared_worker: SharedWorker, tmp_path: Path
) -> None:
    lines = tmp_path / 'lines'
    with shared_worker.held():
        connection.rpush('rq:queue:default', *OTHERS)
        job = enqueue_background_job(APPEND, str(lines), 'ran')
        before = calls_of(connection, 'lrem')
        assert cancel_job(job.id) == 'canceled'
        assert calls_of(connection, 'lrem') == before
        connection.lrem('rq:queue:default', 0, OTHERS[0])
    require_living(shared_worker)
    assert get_job_status(job.id)['status'] == 'canceled'
    assert lines_of(lines) == []


def test_the_control_a_job_cancelled_in_a_long_queue_and_retried_runs_once(
    connection: Redis, shared_worker: SharedWorker, tmp_path: Path
) -> None:
    lines = tmp_path / 'lines'
    with shared_worker.held():
        connection.rpush('rq:queue:default', *OTHERS)
        job = enqueue_background_job(APPEND, str(lines), 'ran')
        cancel_job(job.id)
        retry_job(job.id)
        connection.lrem('rq:queue:default', 0, OTHERS[0])
    assert done(job)['status'] == 'finished'
    require_living(shared_worker)
    assert lines_of(lines) == ['ran']


def test_an_ended_job_whose_id_is_left_in_a_queue_still_expires(
    connection: Redis, shared_worker: SharedWorker
) -> None:
    require_living(shared_worker)
    with shared_worker.held():
        connection.set('rq:suspended', 1)
        job = enqueue_background_job(ADD, 1)
        assert cancel_job(job.id) == 'canceled'
        connection.rpush('rq:queue:default', job.id)
        requeued = enqueue_background_job(ADD, 1)
        connection.expire(requeued.key, 1000)
    eventually(lambda: connection.ttl(requeued.key) == -1)
    assert connection.ttl(job.key) > 0


def calls_of(connection: Redis, command: str) -> int:
    """How often Redis has run a command, within scripts too."""
    stats = connection.info('commandstats')
    return int(stats.get(f'cmdstat_{command}', {}).get('calls', 0))


# -- another run -----------------------------------------------------------------------------------


@pytest.mark.parametrize('action', ['cancel', 'delete'])
def test_an_earlier_run_does_not_end_a_later_one_of_the_same_id(
    connection: Redis, own_worker: Worker, tmp_path: Path, action: str
) -> None:
    """A run of which nobody knows any longer goes on, and ends while the next one runs."""
    gates = [tmp_path / 'gate1', tmp_path / 'gate2']
    begun = [tmp_path / 'begun1', tmp_path / 'begun2']

    def enqueue(number: int) -> Job:
        return enqueue_background_job(
            WAIT, str(begun[number]), str(gates[number]), f'run {number}', job_id='twice'
        )

    lease = {'JOB_LEASE': '30'}  # it renews none in this test
    with own_worker('--name', 'one', **lease), own_worker('--name', 'two', **lease) as two:
        job = enqueue(0)
        await_runs(begun[0], 1)
        fetched = Job.fetch(job.id, connection)
        fetched.cancel() if action == 'cancel' else fetched.delete()
        job = enqueue(1)
        await_runs(begun[1], 1)
        gates[0].touch()
        require_living(two)  # by the other, which has ended the first run
        status = get_job_status(job.id)
        assert (status['status'], status['result']) == ('started', None)
        gates[1].touch()
        status = done(job)
        assert (status['status'], status['result']) == ('finished', 'run 1')
        assert deaths_of(job.id) == 0
    assert [len(lines_of(path)) for path in begun] == [1, 1]


# -- a lost answer ---------------------------------------------------------------------------------


def test_a_job_that_returned_in_time_has_finished_however_late_it_is_recorded(
    own_worker: Worker, proxy: Proxy, begun: Path
) -> None:
    long = {'JOB_LEASE': '30', 'JOB_HEARTBEAT_INTERVAL': '20', 'JOB_TIDY_INTERVAL': '20'}
    with own_worker(REDIS_URL=proxy.url, **long) as worker:  # which asks Redis nothing meanwhile
        require_living(worker)
        proxy.hang_when = begun.exists
        job = enqueue_background_job(BEGIN, str(begun), 0.0, job_timeout=2)
        eventually(lambda: proxy.hang)
        time.sleep(5)  # the time-out, and what the worker grants beyond it
        proxy.hang_when, proxy.hang = None, False
        status = done(job)
        assert (status['status'], status['attempts']) == ('finished', [])
        assert len(lines_of(begun)) == 1
        require_living(worker)


# -- after the end ---------------------------------------------------------------------------------


def test_the_grace_of_a_deploy_ends_the_callback_of_a_stop_too(
    connection: Redis, plain_queue: Queue, own_worker: Worker, begun: Path
) -> None:
    endless = Callback('tests.support.worker_tasks.on_stopped_endlessly', timeout=100)
    with own_worker(JOB_SHUTDOWN_GRACE='1', **CALM) as worker:
        job = plain_queue.enqueue(BEGIN, str(begun), 100, on_stopped=endless)
        eventually(begun.exists)
        send_stop_job_command(connection, job.id)
        eventually(lambda: connection.exists(f'callback:{job.id}'))
        worker.terminate()
        assert worker.wait(60) == 0
    assert get_job_status(job.id)['status'] == 'stopped'
