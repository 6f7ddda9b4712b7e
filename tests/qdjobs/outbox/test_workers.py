"""The workers of an application relay its outbox: nobody else need be there."""

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from redis import Redis
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from qdjobs import JobQueue, list_jobs
from qdjobs.client.tasks import RELAY_OUTBOX
from qdjobs.outbox import JobOutbox
from qdjobs.schedule.entries import make_plans, read_schedule
from qdjobs.schedule.state import read_states_of
from tests.support.jobs import done_id
from tests.support.processes import Worker, eventually

ADD = 'tests.support.tasks.add'


def test_a_worker_relays_what_its_process_has_left(
    engine: Engine,
    unattended: JobOutbox,
    sessions: sessionmaker[Session],
    own_worker: Worker,
    connection: Redis,
    rows: Callable[[], int],
    tmp_path: Path,
) -> None:
    with sessions.begin() as session:
        job = unattended.enqueue(session, ADD, 1)
    url = engine.url.render_as_string(hide_password=False)
    with own_worker(JOB_APP='tests.support.outbox_app:create_app', DATABASE_URL=url):
        eventually(lambda: connection.exists(f'rq:job:{job.id}'))
        assert done_id(job.id)['result'] == 3
        # What the relay leaves is gone before the next one: neither records nor lines of a log.
        eventually(lambda: RELAY_OUTBOX not in tasks())
    assert rows() == 0
    log = (tmp_path / 'worker.log').read_text()
    assert f'Job {job.id} finished' in log
    assert 'qdjobs-outbox' not in log


@pytest.mark.slow
def test_workers_of_other_queues_than_the_first_relay_too(
    engine: Engine,
    unattended: JobOutbox,
    sessions: sessionmaker[Session],
    own_worker: Worker,
    host: Flask,
    rows: Callable[[], int],
) -> None:
    with sessions.begin() as session:
        unattended.enqueue(session, ADD, 1)
    url = engine.url.render_as_string(hide_password=False)
    app = 'tests.support.outbox_app:create_app'
    with own_worker('low', 'default', JOB_APP=app, DATABASE_URL=url):
        eventually(lambda: rows() == 0)
        _, [state] = read_states_of(read_schedule())
    assert str(state.job_id).startswith('qdjobs-outbox-low-')


def test_the_relay_has_a_name_for_each_queue_that_a_worker_serves_first(host: Flask) -> None:
    [[high], [low], [other]] = (make_plans(queues) for queues in (['high'], ['low'], ['other']))
    assert (high.name, low.name, other.name) == (
        'qdjobs-outbox-high',
        'qdjobs-outbox-low',
        'qdjobs-outbox-high',
    )


def tasks() -> set[str | None]:
    return {job['task'] for job in list_jobs()}


def test_only_an_application_with_an_outbox_relays(host: Flask, engine: Engine) -> None:
    assert list(read_schedule()) == ['qdjobs-outbox']
    queue, other, plain = JobQueue(), Flask('other'), Flask('plain')
    queue.init_app(other, JobOutbox(engine))
    queue.init_app(plain)
    queue.add('later', ADD)  # after `init_app`, as modules of tasks do
    queue.add('hourly', 'tests.support.outcomes.finish', every='1h')
    with other.app_context():
        assert set(read_schedule()) == {'qdjobs-outbox', 'hourly'}
    with plain.app_context():
        assert set(read_schedule()) == {'hourly'}
