"""A job is there if its transaction is committed, and only then."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from redis import Redis
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from qdjobs import (
    Call,
    InvalidJobError,
    JobQueue,
    QueueUnavailableError,
    UnknownTaskError,
    get_job_status,
)
from qdjobs.outbox import JobOutbox
from tests.support.databases import ending_relays, engine_for, new_sqlite
from tests.support.processes import eventually
from tests.support.tasks import add

ADD = 'tests.support.tasks.add'

Sessions = sessionmaker[Session]
Queued = Callable[..., list[str]]
Rows = Callable[[], int]


def test_a_committed_row_becomes_a_job_at_once(
    outbox: JobOutbox, sessions: Sessions, queued: Queued, rows: Rows
) -> None:
    with sessions.begin() as session:
        job = outbox.enqueue(session, ADD, 1, b=2, job_queue='high', job_meta={'order': 7})
        assert (queued('high'), rows()) == ([], 0)  # nobody else sees it yet
    eventually(lambda: queued('high') == [job.id])
    eventually(lambda: rows() == 0)
    status = get_job_status(job.id)
    assert (status['task'], status['meta']) == (ADD, {'order': 7})


def test_a_rolled_back_row_is_no_job(
    outbox: JobOutbox, sessions: Sessions, queued: Queued, rows: Rows
) -> None:
    with sessions() as session:
        outbox.enqueue(session, ADD, 1)
        session.rollback()
        outbox.enqueue(session, ADD, 2)
    assert outbox.relay() == 0
    assert (queued(), rows()) == ([], 0)


@pytest.mark.parametrize('outermost', ['commit', 'rollback'])
def test_what_a_savepoint_adds_counts_if_it_and_all_around_it_are_committed(
    outbox: JobOutbox, sessions: Sessions, queued: Queued, outermost: str
) -> None:
    with sessions() as session:
        with session.begin_nested() as undone:
            outbox.enqueue(session, ADD, 1)
            undone.rollback()
        with session.begin_nested():
            kept = outbox.enqueue(session, ADD, 2)
        assert (outbox.relay(), queued()) == (0, [])  # a savepoint's release commits nothing
        getattr(session, outermost)()
    if outermost == 'commit':
        eventually(lambda: queued() == [kept.id])
    else:
        assert (outbox.relay(), queued()) == (0, [])


@pytest.mark.parametrize('before', [None, 'SELECT 1'])
def test_a_savepoint_that_begins_a_transaction_is_rolled_back_with_it(
    unattended: JobOutbox, sessions: Sessions, rows: Rows, before: str | None
) -> None:
    with sessions() as session:
        if before:
            session.execute(text(before))
        with session.begin_nested():
            unattended.enqueue(session, ADD, 1)
        session.rollback()
    assert rows() == 0


def test_a_session_can_be_used_again(outbox: JobOutbox, sessions: Sessions, queued: Queued) -> None:
    with sessions() as session:
        for a in range(3):
            job = outbox.enqueue(session, ADD, a)
            session.commit()
            eventually(lambda job=job: job.id in queued())  # type: ignore[misc]
    assert len(queued()) == 3


def test_a_scoped_session_and_its_maker_are_sessions_too(
    outbox: JobOutbox, sessions: Sessions, queued: Queued
) -> None:
    scoped = scoped_session(sessions)
    assert JobOutbox(scoped).engine is JobOutbox(sessions).engine is outbox.engine
    job = outbox.enqueue(scoped, ADD, 1)
    scoped.commit()
    scoped.remove()
    eventually(lambda: queued() == [job.id])


def test_a_job_of_the_same_id_is_added_once(
    unattended: JobOutbox, sessions: Sessions, queued: Queued, rows: Rows
) -> None:
    with sessions.begin() as session:
        for a in range(3):
            assert unattended.enqueue(session, ADD, a, job_id='receipt-7').id == 'receipt-7'
    assert rows() == 1
    assert unattended.relay() == 1
    assert queued() == ['receipt-7']


def test_a_session_can_use_two_outboxes(outbox: JobOutbox, queued: Queued, tmp_path: Path) -> None:
    with engine_for(new_sqlite(tmp_path / 'second')) as engine:
        second = JobOutbox(engine)
        second.create_all()
        binds: dict[Any, Any] = {outbox.table: outbox.engine, second.table: engine}
        with ending_relays(second), Session(binds=binds) as session:
            ids = {each.enqueue(session, ADD, 1).id for each in (outbox, second)}
            session.commit()
            eventually(lambda: set(queued()) == ids)


def test_a_child_process_relays_by_itself(
    outbox: JobOutbox, sessions: Sessions, queued: Queued
) -> None:
    woken = threading.Event()
    outbox._thread._relay = woken.set  # no connection is open and no lock is held when it forks
    with sessions.begin() as session:
        outbox.enqueue(session, ADD, 1)
    assert woken.wait(60)
    outbox.engine.dispose()
    if (child := os.fork()) == 0:
        try:
            outbox._thread._relay = outbox.relay
            with sessions.begin() as session:
                outbox.enqueue(session, ADD, 2)
            eventually(lambda: len(queued()) == 2)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert len(queued()) == 2


def test_a_commit_whose_thread_cannot_start_succeeds_and_the_next_one_starts_it(
    outbox: JobOutbox,
    sessions: Sessions,
    queued: Queued,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, 'start', fail)
        with sessions.begin() as session:
            outbox.enqueue(session, ADD, 1)
    assert "can't start new thread" in caplog.text
    with sessions.begin() as session:
        outbox.enqueue(session, ADD, 2)
    eventually(lambda: len(queued()) == 2)


# What is checked


@pytest.mark.parametrize(
    ('task', 'arguments', 'error', 'says'),
    [
        ('tests.support.tasks.nothing', {}, UnknownTaskError, 'names no public function'),
        ('os.remove', {'path': '/'}, UnknownTaskError, 'outside the allowed task modules'),
        (ADD, {'a': 'one'}, InvalidJobError, "argument 'a': Expected int, got str"),
        (ADD, {'a': 1, 'c': 1}, InvalidJobError, "unexpected keyword argument 'c'"),
        (ADD, {'a': 1, 'job_queue': 'none'}, InvalidJobError, 'job_queue must be one of'),
        (ADD, {'a': 1, 'job_delays': '5m'}, InvalidJobError, 'job_delays is no option of a job'),
    ],
)
def test_a_wrong_call_is_refused_where_it_is_written(
    outbox: JobOutbox,
    sessions: Sessions,
    task: str,
    arguments: dict[str, Any],
    error: type[Exception],
    says: str,
) -> None:
    with sessions() as session:
        with pytest.raises(error) as raised:
            outbox.enqueue(session, task, **arguments)
        assert says in str(raised.value)
        session.commit()
    assert outbox.relay() == 0


def test_a_function_and_a_name_are_tasks_too(
    host: Flask, outbox: JobOutbox, sessions: Sessions, queued: Queued
) -> None:
    queue: JobQueue = host.extensions['job_queue']
    queue.add('sum', ADD, job_queue='low')
    with sessions.begin() as session:
        outbox.enqueue(session, add, 1)
        outbox.enqueue(session, 'sum', a=1)
        outbox.enqueue(session, 'sum', a=1, job_queue='high')
        with pytest.raises(UnknownTaskError, match="No task is named 'some'"):
            outbox.enqueue(session, 'some', a=1)
    eventually(lambda: [len(queued(each)) for each in ('high', 'default', 'low')] == [1, 1, 1])


def test_the_hooks_of_the_application_are_called(
    host: Flask, unattended: JobOutbox, sessions: Sessions
) -> None:
    queue: JobQueue = host.extensions['job_queue']

    @queue.before_enqueue
    def sign(call: Call) -> None:
        if call.kwargs.get('a') == 0:
            raise InvalidJobError('not this one')
        call.meta['by'] = 'me'

    with sessions.begin() as session:
        job = unattended.enqueue(session, ADD, a=1)
        with pytest.raises(InvalidJobError, match='not this one'):
            unattended.enqueue(session, ADD, a=0)
    assert get_job_status(job.id)['meta'] == {'by': 'me'}
    assert unattended.relay() == 1
    assert get_job_status(job.id)['meta'] == {'by': 'me'}


# Sessions that are refused


def test_an_asynchronous_session_is_refused(outbox: JobOutbox) -> None:
    with pytest.raises(InvalidJobError, match='takes no asynchronous session'):
        outbox.enqueue(AsyncSession(), ADD, 1)  # type: ignore[arg-type]


def test_what_is_no_session_is_refused(outbox: JobOutbox) -> None:
    with pytest.raises(InvalidJobError, match='takes the Session whose transaction'):
        outbox.enqueue(ADD, 1)  # type: ignore[arg-type]


def test_a_session_of_another_database_is_refused(outbox: JobOutbox) -> None:
    other = create_engine('sqlite://')
    with Session(other) as session, pytest.raises(InvalidJobError, match='is bound to sqlite:'):
        outbox.enqueue(session, ADD, 1)
    twin = create_engine(outbox.engine.url)
    with Session(twin) as session, pytest.raises(InvalidJobError, match='to another Engine for'):
        outbox.enqueue(session, ADD, 1)
    twin.dispose()
    with (
        Session() as session,
        pytest.raises(InvalidJobError, match='has no database for'),
    ):
        outbox.enqueue(session, ADD, 1)
    other.dispose()


def test_a_session_that_commits_each_statement_is_refused(outbox: JobOutbox, rows: Rows) -> None:
    autocommit = outbox.engine.execution_options(isolation_level='AUTOCOMMIT')
    with Session(autocommit) as session, pytest.raises(InvalidJobError, match='AUTOCOMMIT'):
        outbox.enqueue(session, ADD, 1)
    assert rows() == 0


def test_a_session_that_has_not_begun_is_refused(outbox: JobOutbox) -> None:
    with Session(outbox.engine, autobegin=False) as session:
        with pytest.raises(InvalidJobError, match='The session has no transaction'):
            outbox.enqueue(session, ADD, 1)
        with session.begin():
            outbox.enqueue(session, ADD, 1)


def test_an_outbox_needs_an_engine_of_a_database_that_it_is_tested_with() -> None:
    with pytest.raises(TypeError, match='takes a synchronous Engine'):
        JobOutbox('sqlite://')  # type: ignore[arg-type]
    mysql = create_engine('sqlite://')
    mysql.dialect.name = 'mysql'
    with pytest.raises(ValueError, match='needs PostgreSQL or SQLite, not mysql'):
        JobOutbox(mysql)
    with pytest.raises(ValueError, match='The sessions have no database for the table'):
        JobOutbox(sessionmaker())
    asynchronous = create_async_engine('postgresql+psycopg://nowhere/none')
    with pytest.raises(TypeError, match='not the sync_engine of an asynchronous one'):
        JobOutbox(asynchronous.sync_engine)


def test_an_outbox_without_its_table_says_how_to_make_it(
    outbox: JobOutbox, sessions: Sessions
) -> None:
    outbox.table.drop(outbox.engine)
    with sessions() as session:
        session.execute(text('SELECT 1'))
        with pytest.raises(QueueUnavailableError, match='flask jobs outbox --create'):
            outbox.enqueue(session, ADD, 1)
    with pytest.raises(QueueUnavailableError, match='flask jobs outbox --create'):
        outbox.relay()


def test_the_marker_of_a_row_expires(
    outbox: JobOutbox, sessions: Sessions, connection: Redis, rows: Rows
) -> None:
    with sessions.begin() as session:
        job = outbox.enqueue(session, ADD, 1)
    eventually(lambda: rows() == 0)
    eventually(lambda: 0 < connection.ttl(f'rq:added:{job.id}') <= 3600)
