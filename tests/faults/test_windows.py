"""Each window in which a job could be lost: stop a worker there, kill it, see the job come back."""

import os
import re
import signal
import time
from base64 import b64encode
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue
from rq.registry import StartedJobRegistry

from libraries.job_manager import (
    cancel_job,
    enqueue_background_job,
    enqueue_background_jobs,
    get_job_status,
    get_job_statuses,
    list_jobs,
    retry_job,
)
from qdjobs.client.payload import PlainSerializer
from qdjobs.config import environment_config
from qdjobs.worker.lease import Recovered, claim_job, claim_request, late_leases, recover
from tests.support.jobs import done, lines_of, require_living
from tests.support.processes import Worker, alive, eventually, horse_of, stop
from tests.support.proxy import Proxy
from tests.support.shared_worker import SharedWorker

pytestmark = [pytest.mark.faults, pytest.mark.slow]

ADD = 'tests.support.tasks.add'
SLEEP = 'tests.support.tasks.touch_and_sleep'
WAIT = 'tests.support.tasks.touch_and_wait'
DYING = 'tests.faults.workers.DyingJobWorker'


@pytest.fixture(autouse=True)
def task_modules(settings: pytest.MonkeyPatch) -> None:
    """Without `workers`, which a worker takes long to import."""
    settings.setenv('JOB_TASK_MODULES', 'tests.support.tasks')
    environment_config.cache_clear()


def places(connection: Redis, job_id: str) -> list[str]:
    """Every list and registry in which a job stands."""
    found = []
    for key in connection.scan_iter('rq:*'):
        kind = connection.type(key)
        members = (
            connection.lrange(key, 0, -1)
            if kind == b'list'
            else connection.zrange(key, 0, -1)
            if kind == b'zset'
            else []
        )
        found += [key.decode() for member in members if job_id.encode() in member]
    return sorted(found)


def die_at(own_worker: Worker, point: str, everything: bool = False) -> None:
    """Run a worker that dies at the point, and wait until it has."""
    environment = {'FAULT': point} | ({'FAULT_ALL': '1'} if everything else {})
    with own_worker(worker_class=DYING, **environment) as dying:
        assert dying.wait(60) == -signal.SIGKILL


def test_killed_when_it_has_just_claimed_a_job(
    connection: Redis, own_worker: Worker, shared_worker: SharedWorker
) -> None:
    with shared_worker.held():
        job = enqueue_background_job(ADD, 1)
        die_at(own_worker, 'claimed')
        assert get_job_status(job.id)['status'] == 'started'
        assert 'rq:leases' in places(connection, job.id)
    assert done(job)['result'] == 3


@pytest.mark.upstream
def test_the_control_a_stock_worker_loses_it_for_ever(
    connection: Redis, own_worker: Worker
) -> None:
    job = enqueue_background_job(ADD, 1)
    with own_worker(worker_class='tests.faults.workers.DyingStockWorker', FAULT='claimed') as dying:
        dying.wait(60)
    assert get_job_status(job.id)['status'] == 'queued'
    assert places(connection, job.id) == []


@pytest.mark.parametrize('point', ['in the horse', 'after the task', 'before the end'])
def test_worker_and_horse_killed_while_the_job_runs(
    own_worker: Worker, shared_worker: SharedWorker, point: str
) -> None:
    with shared_worker.held():
        job = enqueue_background_job(ADD, 1)
        die_at(own_worker, point, everything=True)
    status = done(job)
    assert status['result'] == 3
    (attempt,) = status['attempts']
    assert attempt['error'] == 'WorkerLostError: the worker died while it ran this job'


def test_killed_just_after_a_success_was_recorded(own_worker: Worker, connection: Redis) -> None:
    job = enqueue_background_job(ADD, 1)
    die_at(own_worker, 'after the end', everything=True)
    assert get_job_status(job.id)['result'] == 3
    assert places(connection, job.id) == ['rq:finished:default']


@pytest.mark.parametrize('point', ['claimed ahead', 'before the end, with another job begun'])
def test_killed_with_a_job_claimed_ahead(
    own_worker: Worker, shared_worker: SharedWorker, point: str
) -> None:
    with shared_worker.held():
        jobs = enqueue_background_jobs(ADD, [{'a': 1}] * 80)  # so many short ones
        die_at(own_worker, point, everything=True)
        statuses = get_job_statuses(job.id for job in jobs)
        assert [status['status'] for status in statuses].count('started') == 2
    ended = [done(job) for job in jobs]
    assert {status['result'] for status in ended} == {3}
    # It is a death for one of the two: the other had not begun.
    assert sum(len(status['attempts']) for status in ended) == 1


# Before the failure is recorded, the delay of the retry has no part in it.
@pytest.mark.parametrize(
    ('point', 'delay'), [('before the end', 0), ('after the end', 0), ('after the end', 1)]
)
def test_killed_around_a_retry(
    own_worker: Worker, shared_worker: SharedWorker, tmp_path: Path, point: str, delay: int
) -> None:
    with shared_worker.held():
        job = enqueue_background_job(
            'tests.support.tasks.fail_until',
            str(tmp_path / 'marker'),
            1,
            job_max_retries=1,
            job_retry_delay=delay,
        )
        die_at(own_worker, point, everything=True)
    assert done(job)['status'] == 'finished'


def test_killed_before_dependents_are_enqueued(
    connection: Redis, own_worker: Worker, shared_worker: SharedWorker
) -> None:
    queue = Queue('default', connection=connection, serializer=PlainSerializer)
    with shared_worker.held():
        parent = queue.enqueue(ADD, 1)
        child = queue.enqueue(ADD, 2, depends_on=parent)
        die_at(own_worker, 'before dependents', everything=True)
        assert get_job_status(parent.id)['status'] == 'finished'
        assert get_job_status(child.id)['status'] == 'deferred'
    assert done(child)['result'] == 4


def test_a_sigterm_right_after_the_claim_puts_the_job_back_as_it_was(
    connection: Redis, own_worker: Worker
) -> None:
    first = enqueue_background_job(ADD, 1)
    enqueue_background_job(ADD, 2)
    with own_worker(worker_class='tests.faults.workers.TerminatedJobWorker') as worker:
        assert worker.wait(60) == 0
    status = get_job_status(first.id)
    assert (status['status'], status['started_at'], status['attempts']) == ('queued', None, [])
    assert next(job['id'] for job in list_jobs('queued')) == first.id
    assert connection.hget(f'rq:job:{first.id}', 'worker_deaths') is None


def test_a_worker_that_was_stopped_meanwhile_records_nothing(
    own_worker: Worker, shared_worker: SharedWorker, tmp_path: Path
) -> None:
    begun, gate, log = (tmp_path / name for name in ('begun', 'gate', 'worker.log'))
    with own_worker() as stopped:
        with shared_worker.held():
            job = enqueue_background_job(WAIT, str(begun), str(gate))
            eventually(begun.exists)
            horse = horse_of(stopped.pid)
            stop(stopped)
            os.kill(horse, signal.SIGSTOP)
            gate.touch()
        status = done(job)
        assert status['status'] == 'finished'
        os.kill(horse, signal.SIGCONT)
        stopped.send_signal(signal.SIGCONT)
        # Its horse comes to record the outcome, or it kills the horse before.
        eventually(lambda: re.search('lost the lease|discards the outcome', log.read_text()))
        assert get_job_status(job.id) == status
        require_living(shared_worker)
        assert stopped.poll() is None


@pytest.mark.parametrize('victims', ['worker', 'group'])
def test_no_horse_survives_its_worker(
    own_worker: Worker, shared_worker: SharedWorker, tmp_path: Path, victims: str
) -> None:
    begun, gate = tmp_path / 'begun', tmp_path / 'gate'
    with shared_worker.held():
        job = enqueue_background_job(WAIT, str(begun), str(gate))
        with own_worker() as worker:
            eventually(begun.exists)
            horse = horse_of(worker.pid)
            kill = os.kill if victims == 'worker' else os.killpg
            kill(worker.pid, signal.SIGKILL)
            eventually(lambda: not alive(horse))
        gate.touch()
    assert done(job)['result'] == 'done'


def test_a_worker_survives_its_horse(shared_worker: SharedWorker, tmp_path: Path) -> None:
    begun = tmp_path / 'begun'
    job = enqueue_background_job(SLEEP, str(begun), 600.0)
    eventually(begun.exists)
    os.kill(horse_of(shared_worker.pid), signal.SIGKILL)
    assert 'killed by SIGKILL' in str(done(job)['error'])
    require_living(shared_worker)


def test_a_cancelled_job_that_is_still_in_a_queue_never_runs(
    connection: Redis, shared_worker: SharedWorker, tmp_path: Path
) -> None:
    begun = tmp_path / 'begun'
    with shared_worker.held():
        job = enqueue_background_job(SLEEP, str(begun), 0.0)
        cancel_job(job.id)
        connection.rpush('rq:queue:default', job.id)
    require_living(shared_worker)
    assert connection.llen('rq:queue:default') == 0
    assert get_job_status(job.id)['status'] == 'canceled'
    assert not begun.exists()


def test_an_id_that_is_in_two_queues_runs_once(
    connection: Redis, shared_worker: SharedWorker, tmp_path: Path
) -> None:
    lines = tmp_path / 'lines'
    with shared_worker.held():
        job = enqueue_background_job('tests.support.tasks.append', str(lines), 'ran')
        connection.rpush('rq:queue:low', job.id)
    assert done(job)['status'] == 'finished'
    eventually(lambda: connection.llen('rq:queue:low') == 0)
    require_living(shared_worker)
    assert lines_of(lines) == ['ran']


def test_a_job_under_which_three_workers_died_is_a_poison_pill(
    connection: Redis, shared_worker: SharedWorker
) -> None:
    with shared_worker.held():
        job = enqueue_background_job(ADD, 1)
        for number in range(3):
            name = f'w{number}'
            request = claim_request(name, f'execution-{number}', 0.0, ['default'])
            claimed = claim_job(connection, request)
            assert claimed.claim is not None  # and that was the last of this worker
            eventually(lambda: connection.zcount('rq:leases', 0, time.time()) == 1)
            recovered = recover(connection, late_leases(connection, 2.0, 10), 3)
            assert recovered == [Recovered(job.id, 'queued', has_dependents=False, is_death=True)]
    status = done(job)
    assert status['status'] == 'failed'
    assert status['error'] == 'PoisonJobError: 3 workers died while they ran this job'
    assert [attempt['worker'] for attempt in status['attempts']] == ['w0', 'w1', shared_worker.name]
    assert connection.ttl(f'rq:job:{job.id}') > 600_000
    assert retry_job(job.id).id == job.id
    assert done(job)['status'] == 'finished'


def test_what_another_tool_requeues_cannot_expire(
    connection: Redis, shared_worker: SharedWorker
) -> None:
    queue = Queue('default', connection=connection, serializer=PlainSerializer)
    job = queue.enqueue('tests.support.tasks.fail', failure_ttl=60)
    assert done(job)['status'] == 'failed'
    connection.set('rq:suspended', 1)
    with shared_worker.held():
        job.requeue()
        assert connection.ttl(job.key) > 0  # as RQ leaves it
    eventually(lambda: connection.ttl(job.key) == -1)
    connection.delete('rq:suspended')
    assert done(job)['status'] == 'failed'


def test_an_answer_that_is_lost_claims_and_records_a_job_once(
    connection: Redis, own_worker: Worker, proxy: Proxy, tmp_path: Path
) -> None:
    lines = tmp_path / 'lines'
    with own_worker(REDIS_URL=proxy.url, JOB_LEASE='30') as worker:
        require_living(worker)
        # What only the script's arguments have: the queues of a claim.
        stop(worker)  # so that the answer is that which has the job
        proxy.max_cuts, proxy.cut_after = 1, b'\r\ndefault\r\n$3\r\nlow'
        job = enqueue_background_job('tests.support.tasks.append', str(lines), 'ran')
        worker.send_signal(signal.SIGCONT)
        status = done(job)
        assert proxy.cuts == 1
        assert (status['status'], status['attempts']) == ('finished', [])
        assert lines_of(lines) == ['ran']
        # The same for an outcome, which has the result.
        proxy.cut_after, proxy.max_cuts = b64encode(PlainSerializer.dumps(3)), 2
        job = enqueue_background_job(ADD, 1)
        status = done(job)
        assert proxy.cuts == 2
        assert (status['status'], status['attempts']) == ('finished', [])
        assert places(connection, job.id) == ['rq:finished:default']


def test_rq_s_own_clean_up_beside_a_running_job_takes_nothing_away(
    connection: Redis, shared_worker: SharedWorker, tmp_path: Path
) -> None:
    begun, gate = tmp_path / 'begun', tmp_path / 'gate'
    job = enqueue_background_job(WAIT, str(begun), str(gate))
    eventually(begun.exists)
    for _ in range(20):
        StartedJobRegistry('default', connection).cleanup(time.time() + 86_400)
        Queue('default', connection=connection).started_job_registry.count  # noqa: B018
    assert get_job_status(job.id)['status'] == 'started'
    gate.touch()
    assert done(job)['result'] == 'done'
