"""What can be asked about, and done to, a job that is still in the outbox."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy import delete
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
from qdjobs.outbox import JobOutbox
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
