"""Each window in which a job could be lost: stop a worker there, kill it, see the job come back."""

import os
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
    get_job_status,
    list_jobs,
    retry_job,
    wait_for_job,
)
from qdjobs.client.payload import PlainSerializer
from tests.support.processes import Worker, eventually
from tests.support.proxy import Proxy

ADD = 'tests.support.tasks.add'
DYING = 'tests.faults.workers.DyingJobWorker'


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


def die_at(job_worker: Worker, point: str, everything: bool = False) -> None:
    """Run a worker that dies at the point, and wait until it has."""
    environment = {'FAULT': point} | ({'FAULT_ALL': '1'} if everything else {})
    with job_worker(worker_class=DYING, **environment) as dying:
        assert dying.wait(20) == -signal.SIGKILL


def test_killed_when_it_has_just_taken_a_job(connection: Redis, job_worker: Worker) -> None:
    job = enqueue_background_job(ADD, 1)
    die_at(job_worker, 'taken')
    assert get_job_status(job.id)['status'] == 'started'
    assert 'rq:leases' in places(connection, job.id)
    with job_worker():
        assert wait_for_job(job.id, 20)['result'] == 3


@pytest.mark.upstream
def test_the_control_a_stock_worker_loses_it_for_ever(
    connection: Redis, job_worker: Worker
) -> None:
    job = enqueue_background_job(ADD, 1)
    with job_worker(worker_class='tests.faults.workers.DyingStockWorker', FAULT='taken') as dying:
        dying.wait(20)
    assert get_job_status(job.id)['status'] == 'queued'
    assert places(connection, job.id) == []


@pytest.mark.parametrize('point', ['in the horse', 'before success'])
def test_worker_and_horse_killed_while_the_job_runs(job_worker: Worker, point: str) -> None:
    job = enqueue_background_job(ADD, 1)
    die_at(job_worker, point, everything=True)
    with job_worker():
        status = wait_for_job(job.id, 20)
    assert status['result'] == 3
    (attempt,) = status['attempts']
    assert attempt['error'] == 'WorkerLostError: the worker died while it ran this job'


def test_killed_just_after_a_success_was_recorded(job_worker: Worker, connection: Redis) -> None:
    job = enqueue_background_job(ADD, 1)
    die_at(job_worker, 'after success', everything=True)
    assert get_job_status(job.id)['result'] == 3
    assert places(connection, job.id) == ['rq:finished:default']


def test_the_horse_alone_killed_just_after_a_success(job_worker: Worker) -> None:
    with job_worker(worker_class=DYING, FAULT='after success'):
        job = enqueue_background_job(ADD, 1)
        assert wait_for_job(job.id, 20)['result'] == 3
        time.sleep(0.5)  # the worker sees the death, and has nothing to record
        status = get_job_status(job.id)
    assert (status['status'], status['attempts']) == ('finished', [])


@pytest.mark.parametrize('point', ['before failure', 'after failure'])
@pytest.mark.parametrize('delay', [0, 1])
def test_killed_around_a_retry(job_worker: Worker, tmp_path: Path, point: str, delay: int) -> None:
    job = enqueue_background_job(
        'tests.support.tasks.fail_until',
        str(tmp_path / 'marker'),
        1,
        job_max_retries=1,
        job_retry_delay=delay,
    )
    die_at(job_worker, point, everything=True)
    with job_worker():
        assert wait_for_job(job.id, 20)['status'] == 'finished'


def test_killed_before_dependents_are_enqueued(
    connection: Redis, job_worker: Worker, settings: pytest.MonkeyPatch
) -> None:
    queue = Queue('default', connection=connection, serializer=PlainSerializer)
    parent = queue.enqueue(ADD, 1)
    child = queue.enqueue(ADD, 2, depends_on=parent)
    die_at(job_worker, 'before dependents', everything=True)
    assert get_job_status(parent.id)['status'] == 'finished'
    assert get_job_status(child.id)['status'] == 'deferred'
    with job_worker():
        assert wait_for_job(child.id, 30)['result'] == 4


def test_a_sigterm_right_after_taking_puts_the_job_back_as_it_was(
    connection: Redis, job_worker: Worker
) -> None:
    first = enqueue_background_job(ADD, 1)
    enqueue_background_job(ADD, 2)
    with job_worker(worker_class='tests.faults.workers.TerminatedJobWorker') as worker:
        assert worker.wait(20) == 0
    status = get_job_status(first.id)
    assert (status['status'], status['started_at'], status['attempts']) == ('queued', None, [])
    assert next(job['id'] for job in list_jobs('queued')) == first.id
    assert connection.hget(f'rq:job:{first.id}', 'worker_deaths') is None


def test_a_worker_that_stood_still_records_nothing(job_worker: Worker, tmp_path: Path) -> None:
    begun = tmp_path / 'begun'
    with job_worker() as stopped:
        job = enqueue_background_job('tests.support.tasks.touch_and_sleep', str(begun), 2.0)
        eventually(begun.exists)
        stopped.send_signal(signal.SIGSTOP)
        with job_worker('--name', 'second') as second:
            status = wait_for_job(job.id, 20)
            assert status['status'] == 'finished'
            stopped.send_signal(signal.SIGCONT)
            time.sleep(1)  # it finds that the job is not its own any more
            assert get_job_status(job.id) == status
            assert second.poll() is None
        assert stopped.poll() is None
    assert 'second' in Path(tmp_path / 'worker.log').read_text()


def horse_of(worker_pid: int) -> int:
    children = Path(f'/proc/{worker_pid}/task/{worker_pid}/children')
    eventually(lambda: children.read_text().split())
    return int(children.read_text().split()[0])


def alive(pid: int) -> bool:
    try:
        return ') Z ' not in Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return False


@pytest.mark.parametrize('victims', ['worker', 'group', 'horse'])
def test_no_process_survives_its_worker(job_worker: Worker, tmp_path: Path, victims: str) -> None:
    begun = tmp_path / 'begun'
    with job_worker() as worker:
        job = enqueue_background_job('tests.support.tasks.touch_and_sleep', str(begun), 1.0)
        eventually(begun.exists)
        horse = horse_of(worker.pid)
        if victims == 'worker':
            os.kill(worker.pid, signal.SIGKILL)
        elif victims == 'group':
            os.killpg(worker.pid, signal.SIGKILL)
        else:
            os.kill(horse, signal.SIGKILL)
        eventually(lambda: not alive(horse), timeout=5)
        if victims == 'horse':
            status = wait_for_job(job.id, 5)
            assert status['error'] is not None
            assert 'killed by SIGKILL' in status['error']
            assert wait_for_job(enqueue_background_job(ADD, 1).id, 10)['result'] == 3
    if victims != 'horse':
        with job_worker():
            assert wait_for_job(job.id, 20)['result'] == 'done'


def test_a_cancelled_job_that_still_stands_in_a_queue_never_runs(
    connection: Redis, job_worker: Worker, tmp_path: Path
) -> None:
    begun = tmp_path / 'begun'
    job = enqueue_background_job('tests.support.tasks.touch_and_sleep', str(begun), 0.0)
    cancel_job(job.id)
    connection.rpush('rq:queue:default', job.id)
    with job_worker('--burst') as worker:
        assert worker.wait(20) == 0
    assert get_job_status(job.id)['status'] == 'canceled'
    assert not begun.exists()


def test_an_id_that_stands_twice_in_its_queue_runs_once(
    connection: Redis, job_worker: Worker, tmp_path: Path
) -> None:
    lines = tmp_path / 'lines'
    job = enqueue_background_job('tests.support.tasks.append', str(lines), 'ran')
    connection.rpush('rq:queue:low', job.id)
    with job_worker('--burst') as worker:
        assert worker.wait(20) == 0
    assert lines.read_text() == 'ran\n'


def test_a_job_under_which_three_workers_died_is_a_poison_pill(
    connection: Redis, job_worker: Worker
) -> None:
    job = enqueue_background_job(ADD, 1)
    for _ in range(3):
        die_at(job_worker, 'in the horse', everything=True)
        eventually(lambda: connection.zcount('rq:leases', 0, time.time()) == 1)
    with job_worker():
        status = wait_for_job(job.id, 20)
    assert status['status'] == 'failed'
    assert status['error'] == 'PoisonJobError: 3 workers died while they ran this job'
    assert len(status['attempts']) == 3
    assert connection.ttl(f'rq:job:{job.id}') > 600_000
    assert retry_job(job.id).id == job.id
    with job_worker():
        assert wait_for_job(job.id, 20)['status'] == 'finished'


def test_what_another_tool_requeues_cannot_expire(connection: Redis, job_worker: Worker) -> None:
    queue = Queue('default', connection=connection, serializer=PlainSerializer)
    job = queue.enqueue('tests.support.tasks.fail', failure_ttl=60)
    with job_worker('--burst') as worker:
        worker.wait(20)
    with job_worker():
        eventually(lambda: connection.scard('rq:workers'))
        connection.set('rq:suspended', 1)
        job.requeue()
        assert connection.ttl(job.key) > 0  # as RQ leaves it
        eventually(lambda: connection.ttl(job.key) == -1)
        connection.delete('rq:suspended')
        eventually(lambda: get_job_status(job.id)['status'] == 'failed')


@pytest.mark.parametrize('step', ['take', 'record'])
def test_an_answer_that_is_lost_takes_or_records_the_job_once(
    job_worker: Worker, proxy: Proxy, tmp_path: Path, step: str
) -> None:
    lines = tmp_path / 'lines'
    with job_worker(REDIS_URL=proxy.url, JOB_LEASE='30'):
        job = enqueue_background_job(ADD, 1)
        assert wait_for_job(job.id, 20)['status'] == 'finished'
        proxy.max_cuts = 1
        # What only the script's arguments have: the queues for `take`, the result for `record`.
        result = b64encode(PlainSerializer.dumps(3))
        proxy.cut_after = b'\r\ndefault\r\n$3\r\nlow' if step == 'take' else result
        task = 'tests.support.tasks.append' if step == 'take' else 'tests.support.tasks.add'
        arguments = (str(lines), 'ran') if step == 'take' else (1,)
        job = enqueue_background_job(task, *arguments)
        status = wait_for_job(job.id, 20)
    assert proxy.cuts == 1
    assert (status['status'], status['attempts']) == ('finished', [])
    if step == 'take':
        assert lines.read_text() == 'ran\n'


def test_rq_s_own_clean_up_beside_a_running_job_takes_nothing_away(
    connection: Redis, job_worker: Worker, tmp_path: Path
) -> None:
    begun = tmp_path / 'begun'
    with job_worker():
        job = enqueue_background_job('tests.support.tasks.touch_and_sleep', str(begun), 2.0)
        eventually(begun.exists)
        while get_job_status(job.id)['status'] == 'started':
            StartedJobRegistry('default', connection).cleanup(time.time() + 86_400)
            Queue('default', connection=connection).started_job_registry.count  # noqa: B018
        assert get_job_status(job.id)['result'] == 'done'
