"""The workers of an application relay its outbox: nobody else need be there."""

from collections.abc import Callable
from typing import Any

from flask import Flask
from redis import Redis
from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from qdjobs import JobQueue, list_jobs
from qdjobs.outbox import JobOutbox
from qdjobs.schedule.entries import read_schedule
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
) -> None:
    with sessions() as session:
        job = unattended.enqueue(session, ADD, 1)
        session.commit()
    url = engine.url.render_as_string(hide_password=False)
    with own_worker(JOB_APP='tests.support.outbox_app:create_app', DATABASE_URL=url):
        eventually(lambda: connection.exists(f'rq:job:{job.id}'))
        assert done_id(job.id)['result'] == 3
        eventually(lambda: 'qdjobs.outbox.tasks.relay' in tasks('finished'))
    assert tasks('failed') == set()
    assert rows() == 0


def tasks(status: Any) -> set[str | None]:
    return {job['task'] for job in list_jobs(status)}


def test_only_an_application_with_an_outbox_relays(host: Flask, outbox: JobOutbox) -> None:
    assert list(read_schedule()) == ['qdjobs-outbox']
    queue, other, plain = JobQueue(), Flask('other'), Flask('plain')
    queue.init_app(other, outbox)
    queue.init_app(plain)
    queue.add('later', ADD)  # after `init_app`, as modules of tasks do
    queue.add('hourly', 'tests.support.outcomes.finish', every='1h')
    with other.app_context():
        assert set(read_schedule()) == {'qdjobs-outbox', 'hourly'}
    with plain.app_context():
        assert set(read_schedule()) == {'hourly'}
