"""What can be asked about, and done to, a job that is still in the outbox."""

from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy import create_engine, delete, update
from sqlalchemy.orm import Session, sessionmaker

from qdjobs import (
    JobNotFoundError,
    QueueUnavailableError,
    cancel_job,
    delete_job,
    enqueue_background_job,
    get_job_status,
    get_job_statuses,
    wait_for_job,
)
from qdjobs.outbox import JobOutbox, connections
from qdjobs.outbox.sending import send_row

ADD = 'tests.support.tasks.add'

Sessions = sessionmaker[Session]
Queued = Callable[..., list[str]]
Rows = Callable[[], int]

pytestmark = pytest.mark.usefixtures('host', 'unattended')


def test_a_job_in_the_outbox_is_queued(outbox: JobOutbox, sessions: Sessions) -> None:
    with sessions() as session:
        job = outbox.enqueue(session, ADD, 1, job_queue='low', job_meta={'order': 7})
        with pytest.raises(JobNotFoundError):  # nobody but the transaction knows it
            get_job_status(job.id)
        session.commit()
    status = get_job_status(job.id)
    assert (status['status'], status['task'], status['queue']) == ('queued', ADD, 'low')
    assert (status['meta'], status['result'], status['attempts']) == ({'order': 7}, None, [])
    created_at = status['created_at']
    assert created_at is not None
    assert timedelta() <= datetime.now(UTC) - created_at < timedelta(minutes=1)


def test_statuses_are_of_jobs_in_redis_and_in_the_outbox(
    outbox: JobOutbox, sessions: Sessions
) -> None:
    one = enqueue_background_job(ADD, 1)
    with sessions.begin() as session:
        two = outbox.enqueue(session, ADD, 2)
    ids = [one.id, two.id, one.id]
    assert [status['id'] for status in get_job_statuses(ids)] == ids
    with pytest.raises(JobNotFoundError, match='nobody'):
        get_job_statuses([*ids, 'nobody'])


def test_a_job_that_leaves_the_outbox_meanwhile_is_found(
    outbox: JobOutbox, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sessions.begin() as session:
        job = outbox.enqueue(session, ADD, 1)
    read = outbox.read_statuses

    def read_late(job_ids: list[str]) -> object:
        outbox.relay()
        return read(job_ids)

    monkeypatch.setattr(outbox, 'read_statuses', read_late)
    assert get_job_status(job.id)['status'] == 'queued'


def test_an_application_without_the_outbox_does_not_find_the_job(
    outbox: JobOutbox, sessions: Sessions
) -> None:
    with sessions.begin() as session:
        job = outbox.enqueue(session, ADD, 1)
    with Flask('other').app_context(), pytest.raises(JobNotFoundError):
        get_job_status(job.id)


def test_a_database_that_does_not_answer_is_no_missing_job(outbox: JobOutbox) -> None:
    outbox.table.drop(outbox.engine)
    with pytest.raises(QueueUnavailableError, match='The database of the outbox'):
        get_job_status('nobody')


@pytest.mark.parametrize('cancel', [cancel_job, delete_job])
def test_a_cancelled_row_never_becomes_a_job(
    outbox: JobOutbox,
    sessions: Sessions,
    queued: Queued,
    rows: Rows,
    cancel: Callable[[str], str],
) -> None:
    with sessions.begin() as session:
        job = outbox.enqueue(session, ADD, 1)
    with outbox.engine.connect() as connection:  # a relay has read it before
        row = connection.execute(outbox.table.select()).one()
    assert cancel(job.id) == 'canceled'
    assert rows() == 0
    send_row(row)
    assert queued() == []
    with pytest.raises(JobNotFoundError):
        cancel_job(job.id)


def test_a_row_that_has_just_become_a_job_is_cancelled_there(
    outbox: JobOutbox, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sessions.begin() as session:
        job = outbox.enqueue(session, ADD, 1)
    cancel = outbox.cancel

    def cancel_late(job_id: str) -> bool:
        with outbox.engine.connect() as connection:
            send_row(connection.execute(outbox.table.select()).one())
        return cancel(job_id)

    monkeypatch.setattr(outbox, 'cancel', cancel_late)
    assert cancel_job(job.id) == 'canceled'
    assert get_job_status(job.id)['status'] == 'canceled'
    outbox.relay()
    assert get_job_status(job.id)['status'] == 'canceled'


def test_nothing_is_cancelled_that_is_nowhere(outbox: JobOutbox) -> None:
    with outbox.engine.begin() as connection:
        connection.execute(delete(outbox.table))
    with pytest.raises(JobNotFoundError):
        cancel_job('nobody')


def test_a_refused_row_has_the_refusal_as_the_error_of_its_status(
    host: Flask, outbox: JobOutbox, sessions: Sessions
) -> None:
    with sessions.begin() as session:
        job = outbox.enqueue(session, ADD, 1, job_after='nobody')
    outbox.relay()
    status = wait_for_job(job.id, timeout=60)
    assert status['status'] == 'queued'
    assert "there is no job 'nobody'" in str(status['error'])
    result = host.test_cli_runner().invoke(args=['jobs', 'wait', job.id])
    assert result.exit_code == 1
    assert "there is no job 'nobody'" in result.output


def test_a_request_that_uses_the_whole_pool_can_read_a_status(
    database_url: str, outbox: JobOutbox, sessions: Sessions
) -> None:
    with sessions.begin() as session:
        job = outbox.enqueue(session, ADD, 1)
    small = create_engine(database_url, pool_size=1, max_overflow=0, pool_timeout=60)
    with small.connect():
        busy = JobOutbox(small)
        assert set(busy.read_statuses([job.id, 'nobody'])) == {job.id}
        assert [queue.waiting for queue in busy.read_waiting().queues] == [1]
        assert busy.cancel(job.id)
    small.dispose()


def test_no_more_than_a_few_connections_are_beside_the_pool(
    outbox: JobOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        for _ in range(connections.MOST):
            stack.enter_context(outbox._own.begin())
        impatient = stack.enter_context(monkeypatch.context())
        impatient.setattr(connections, 'PATIENCE', 0.1)
        with pytest.raises(QueueUnavailableError, match='was free within'):
            get_job_status('nobody')
    with pytest.raises(JobNotFoundError):
        get_job_status('nobody')


def test_a_job_that_cannot_be_cancelled_because_of_a_lock_still_runs(
    database_url: str,
    outbox: JobOutbox,
    sessions: Sessions,
    queued: Queued,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with sessions.begin() as session:
        job = outbox.enqueue(session, ADD, 1)
    arguments = {'timeout': 0.1} if outbox.engine.dialect.name == 'sqlite' else {}
    impatient = create_engine(database_url, connect_args=arguments)
    with sessions() as session, monkeypatch.context() as patch:
        session.execute(update(outbox.table).values(task='other'))
        patch.setattr(connections, 'PATIENCE', 0.1)
        with pytest.raises(QueueUnavailableError):
            JobOutbox(impatient).cancel(job.id)
        session.rollback()
    outbox.relay()
    assert queued() == [job.id]
    impatient.dispose()
