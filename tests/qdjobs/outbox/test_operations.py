"""What operators see of an outbox: `flask jobs outbox`, the doctor, /metrics, the periodic task."""

import json
import logging
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis
from sqlalchemy import Engine, MetaData, text, update
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.schema import CreateSchema

from qdjobs import JobQueue, UnknownTaskError, enqueue_background_job
from qdjobs.client.tasks import RELAY_OUTBOX, resolve_task
from qdjobs.outbox import JobOutbox, connections
from qdjobs.testing import run_jobs
from qdjobs.web import metrics
from tests.support.applications import use_redis
from tests.support.databases import PostgresServer, ending_relays
from tests.support.processes import ROOT, eventually

ADD = 'tests.support.tasks.add'

Sessions = sessionmaker[Session]
Queued = Callable[..., list[str]]
Rows = Callable[[], int]


@pytest.fixture
def waiting(host: Flask, unattended: JobOutbox, sessions: Sessions) -> JobOutbox:
    """Two rows that wait, and one that is refused."""
    with sessions.begin() as session:
        unattended.enqueue(session, ADD, 1, job_queue='high', job_after='nobody')
    unattended.relay()
    with sessions.begin() as session:
        unattended.enqueue(session, ADD, 1, job_queue='high')
        unattended.enqueue(session, ADD, 1, job_queue='low')
    return unattended


def age(outbox: JobOutbox, seconds: float) -> None:
    with outbox.engine.begin() as connection:
        moment = datetime.now(UTC) - timedelta(seconds=seconds)
        connection.execute(update(outbox.table).values(created_at=moment))


def jobs(app: Flask, *words: str) -> str:
    return app.test_cli_runner().invoke(args=['jobs', *words]).output


def read_metrics(app: Flask) -> dict[tuple[str, str], float]:
    answer = app.test_client().get('/metrics', headers={'Authorization': 'Bearer secret'})
    assert answer.status_code == 200
    return {
        (sample.name, sample.labels.get('queue', '')): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


# The shell


def test_the_shell_shows_what_waits_and_relays_it(
    host: Flask, waiting: JobOutbox, queued: Queued, rows: Rows
) -> None:
    age(waiting, 90)
    lines = jobs(host, 'outbox').splitlines()
    assert lines[0].split() == ['QUEUE', 'WAITING', 'OLDEST', 'REFUSED']
    shown = [line.split() for line in lines[1:3]]
    assert [(name, count, refused) for name, count, _, _, refused in shown] == [
        ('high', '1', '1'),
        ('low', '1', '0'),
    ]
    assert all(90 <= int(oldest) < 600 for _, _, oldest, _, _ in shown)
    assert lines[3].startswith("last error: job_after: there is no job 'nobody'.")
    enqueue_background_job(ADD, 1, job_id='nobody', job_queue='default')
    assert jobs(host, 'outbox', '--relay') == 'relayed: 3\nThe outbox is empty.\n'
    assert (len(queued('high')), len(queued('low')), rows()) == (1, 1, 0)


def test_the_shell_writes_json(host: Flask, waiting: JobOutbox) -> None:
    age(waiting, 90)
    document = json.loads(jobs(host, 'outbox', '--json'))
    high, low = document['queues']
    assert 90 <= high.pop('oldest') < 150
    assert high == {'name': 'high', 'waiting': 1, 'refused': 1}
    assert low['name'] == 'low'
    assert 'nobody' in document['last_error']
    assert document['relayed'] is None


def test_the_shell_makes_the_table(host: Flask, outbox: JobOutbox) -> None:
    outbox.table.drop(outbox.engine)
    assert 'The database of the outbox' in jobs(host, 'outbox')
    assert jobs(host, 'outbox', '--create') == 'The outbox is empty.\n'
    assert outbox.has_table()


def test_an_application_without_an_outbox_says_so() -> None:
    app = Flask('plain')
    JobQueue(app)
    assert jobs(app, 'outbox') == (
        'Error: This application has no outbox: init_job_queue(app, db) makes one.\n'
    )
    assert 'outbox' not in jobs(app, 'doctor')


def test_the_shell_shows_a_job_in_the_outbox_and_retries_none(
    host: Flask, unattended: JobOutbox, sessions: Sessions
) -> None:
    with sessions.begin() as session:
        unattended.enqueue(session, ADD, 1, job_id='bad', job_after='nobody')
    assert 'it has not run yet' in jobs(host, 'retry', 'bad')
    unattended.relay()
    lines = jobs(host, 'show', 'bad').splitlines()
    assert 'status    queued' in lines
    assert 'arguments unreadable: the job is still in the outbox.' in lines
    assert any(line.startswith('error     job_after: there is no job') for line in lines)
    assert 'which refuses it: job_after: there is no job' in jobs(host, 'retry', 'bad')
    assert "There is no job 'other'" in jobs(host, 'show', 'other')
    assert "There is no job 'other'" in jobs(host, 'retry', 'other')


@pytest.mark.parametrize('database_url', ['postgresql'], indirect=True)
def test_the_table_can_be_in_a_schema(engine: Engine, sessions: Sessions, queued: Queued) -> None:
    with engine.begin() as connection:
        connection.execute(CreateSchema('app'))
    metadata = MetaData(schema='app')
    outbox = JobOutbox(engine, metadata)
    assert not outbox.has_table()
    outbox.create_all()
    assert outbox.has_table()
    assert JobOutbox(engine, metadata).table is outbox.table  # of a second application
    with ending_relays(outbox), sessions.begin() as session:
        job = outbox.enqueue(session, ADD, 1)
    outbox.relay()
    eventually(lambda: queued() == [job.id])


# The doctor


def test_the_doctor_finds_a_row_that_is_old_and_one_that_is_refused(
    host: Flask, waiting: JobOutbox
) -> None:
    assert '✓ 2 rows in the outbox, none for long.' in jobs(host, 'doctor')
    age(waiting, 130)
    report = jobs(host, 'doctor')
    assert '✗ 2 rows in the outbox, the oldest for 2 min' in report
    assert '✗ No job can be made of 1 row in the outbox: job_after: there is no job' in report
    assert 'jobs outbox --relay' in report


def test_the_doctor_finds_a_missing_table(host: Flask, outbox: JobOutbox) -> None:
    outbox.table.drop(outbox.engine)
    report = jobs(host, 'doctor')
    assert '✗ The outbox has no table' in report
    assert 'jobs outbox --create' in report


# Metrics


def test_the_metrics_have_the_number_and_the_age_of_what_waits(
    host: Flask, waiting: JobOutbox
) -> None:
    age(waiting, 90)
    found = read_metrics(host)
    assert found['jobs_outbox_up', ''] == 1
    assert [found['jobs_outbox_waiting', name] for name in ('high', 'default', 'low')] == [1, 0, 1]
    assert [found['jobs_outbox_refused', name] for name in ('high', 'default', 'low')] == [1, 0, 0]
    assert 90 <= found['jobs_outbox_oldest_seconds', 'low'] < 150
    assert found['jobs_outbox_oldest_seconds', 'default'] == 0
    listed = re.findall(r'^\| `(jobs_outbox\w*)', (ROOT / 'docs/metrics.md').read_text(), re.M)
    assert {name for name, _ in found if name.startswith('jobs_outbox')} == set(listed)


def test_the_metrics_show_the_outbox_while_redis_is_away(
    host: Flask, waiting: JobOutbox, settings: pytest.MonkeyPatch
) -> None:
    use_redis(settings, 'redis://127.0.0.1:1/0', host)
    found = read_metrics(host)
    assert (found['jobs_redis_up', ''], found['jobs_outbox_waiting', 'low']) == (0, 1)


@pytest.mark.parametrize('database_url', ['postgresql'], indirect=True)
def test_a_database_that_hangs_does_not_hang_the_metrics(
    host: Flask,
    outbox: JobOutbox,
    postgresql: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, 'PATIENCE', 0.2)
    with postgresql.standing():
        for _ in range(3):  # and begins no thread for each
            start = time.monotonic()
            found = read_metrics(host)
            assert (found['jobs_outbox_up', ''], found['jobs_redis_up', '']) == (0, 1)
            assert time.monotonic() - start < 60
    outbox.read_waiting()


def test_a_missing_table_does_not_break_the_metrics(host: Flask, outbox: JobOutbox) -> None:
    outbox.table.drop(outbox.engine)
    found = read_metrics(host)
    assert (found['jobs_outbox_up', ''], found['jobs_redis_up', '']) == (0, 1)


# The periodic task


def test_a_worker_may_relay_whatever_its_task_modules_are(
    host: Flask, waiting: JobOutbox, queued: Queued
) -> None:
    enqueue_background_job(RELAY_OUTBOX, job_queue='default')
    assert len(run_jobs()) == 3  # the relay, and what it has relayed
    with pytest.raises(UnknownTaskError, match='outside the allowed task modules'):
        resolve_task('qdjobs.outbox.tasks.other')
    with pytest.raises(UnknownTaskError, match='outside the allowed task modules'):
        resolve_task('qdjobs.outbox.relay.relay_queue')


def test_the_relay_of_qdjobs_is_no_periodic_job_of_the_application(
    host: Flask, outbox: JobOutbox, connection: Redis
) -> None:
    for queue in ('high', 'default', 'low'):
        state: Any = {'job': f'qdjobs-outbox-{queue}-20260101T000000Z', 'skipped': 1}
        state |= {'served_at': time.time(), 'rule': 'every 5s'}
        connection.hset(f'rq:schedule:qdjobs-outbox-{queue}', mapping=state)
    _, line = jobs(host, 'schedule').splitlines()
    assert re.search(r'-20260101T000000Z ended +- +qdjobs.outbox.tasks.relay \(built in\)$', line)
    assert '✓ 0 periodic jobs and 1 of qdjobs itself, which workers' in jobs(host, 'doctor')


def test_a_relay_that_cannot_relay_warns_and_does_not_fail(
    host: Flask, outbox: JobOutbox, caplog: pytest.LogCaptureFixture
) -> None:
    outbox.table.drop(outbox.engine)
    enqueue_background_job(RELAY_OUTBOX)
    with caplog.at_level(logging.WARNING, 'qdjobs'):
        assert [status['status'] for status in run_jobs()] == ['finished']
    assert 'The outbox cannot be relayed now: The database of the outbox' in caplog.text


@pytest.mark.parametrize('database_url', ['postgresql'], indirect=True)
def test_a_relay_gives_up_a_table_that_is_locked_for_long(
    host: Flask,
    outbox: JobOutbox,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, 'PATIENCE', 0.2)
    enqueue_background_job(RELAY_OUTBOX)
    with outbox.engine.begin() as connection, caplog.at_level(logging.WARNING, 'qdjobs'):
        connection.execute(text('LOCK TABLE qdjobs_outbox'))
        assert [status['status'] for status in run_jobs()] == ['finished']
    assert 'canceling statement due to statement timeout' in caplog.text


def test_a_worker_without_the_outbox_warns(caplog: pytest.LogCaptureFixture) -> None:
    enqueue_background_job(RELAY_OUTBOX)
    with caplog.at_level(logging.WARNING, 'qdjobs'):
        assert [status['result'] for status in run_jobs()] == [0]
    assert 'JOB_APP names no application that has one' in caplog.text
