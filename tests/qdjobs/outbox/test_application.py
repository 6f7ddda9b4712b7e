"""The outbox of a Flask application with Flask-SQLAlchemy, also in the tests of that."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import Column, Integer, Table
from sqlalchemy.orm import Session

from qdjobs import (
    JobNotFoundError,
    JobQueue,
    enqueue_background_job,
    get_job_status,
    init_job_queue,
)
from qdjobs.outbox import JobOutbox
from qdjobs.testing import eager_jobs, recorded_jobs, run_jobs
from tests.support.applications import use_redis
from tests.support.databases import ending_relays
from tests.support.processes import eventually

ADD = 'tests.support.tasks.add'
FAIL = 'tests.support.tasks.fail'

Queued = Callable[..., list[str]]

in_memory = pytest.mark.parametrize('database_url', ['memory'], indirect=True)
of_every_kind = pytest.mark.parametrize(
    'database_url', ['sqlite', 'postgresql', 'memory'], indirect=True
)


class Shop:
    """An application with a table of orders and an outbox."""

    def __init__(self, url: str) -> None:
        self.db = SQLAlchemy()
        self.app = Flask('shop')
        self.app.config['SQLALCHEMY_DATABASE_URI'] = url
        self.db.init_app(self.app)
        self.queue = init_job_queue(self.app, self.db)
        self.orders = Table('orders', self.db.metadata, Column('id', Integer, primary_key=True))

    def order(self, number: int, **options: Any) -> str:
        self.db.session.execute(self.orders.insert().values(id=number))
        return self.queue.outbox.enqueue(self.db.session, ADD, number, **options).id

    def count(self) -> int:
        return len(self.db.session.execute(self.orders.select()).all())


@pytest.fixture
def shop(database_url: str) -> Iterator[Shop]:
    shop = Shop(database_url)
    with shop.app.app_context():
        with ending_relays(shop.queue.outbox):
            shop.db.create_all()
            yield shop
        shop.db.session.remove()
        shop.db.engine.dispose()


def test_an_order_and_its_job_are_committed_together(shop: Shop, queued: Queued) -> None:
    shop.order(1)
    shop.db.session.rollback()
    job_id = shop.order(1)
    shop.db.session.commit()
    eventually(lambda: queued() == [job_id])
    assert get_job_status(job_id)['status'] == 'queued'


def test_the_configuration_of_the_application_counts_in_the_relay(
    settings: pytest.MonkeyPatch, redis_url: str, tmp_path: Any, queued: Queued
) -> None:
    db, app = SQLAlchemy(), Flask('shop')
    app.config |= {
        'SQLALCHEMY_DATABASE_URI': f'sqlite:///{tmp_path}/shop',
        'REDIS_URL': redis_url,
        'JOB_KEY_PREFIX': 'shop',
    }
    use_redis(settings, 'redis://127.0.0.1:1/0')
    db.init_app(app)
    outbox = init_job_queue(app, db).outbox
    with app.app_context(), ending_relays(outbox):
        db.create_all()
        job = outbox.enqueue(db.session, ADD, 1)
        db.session.commit()
        eventually(lambda: outbox.read_waiting().queues == [])
        assert get_job_status(job.id)['status'] == 'queued'
        db.session.remove()
        db.engine.dispose()


def test_a_job_queue_without_a_database_has_no_outbox() -> None:
    with pytest.raises(RuntimeError, match=r'make it by init_job_queue\(app, db\)'):
        _ = JobQueue(Flask('plain')).outbox


@pytest.mark.parametrize('db', ['sqlite://', object()])
def test_another_db_is_refused(db: object) -> None:
    with pytest.raises(TypeError, match='db must be the SQLAlchemy of Flask-SQLAlchemy'):
        init_job_queue(Flask('plain'), db)


def test_a_db_that_does_not_know_the_application_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r'Call db.init_app\(app\) before'):
        init_job_queue(Flask('plain'), SQLAlchemy())


def test_a_db_that_has_only_binds_is_refused(tmp_path: Path) -> None:
    app, db = Flask('plain'), SQLAlchemy()
    app.config['SQLALCHEMY_BINDS'] = {'jobs': f'sqlite:///{tmp_path}/jobs'}
    db.init_app(app)
    with pytest.raises(RuntimeError, match='has only SQLALCHEMY_BINDS'):
        init_job_queue(app, db)


def test_an_outbox_of_its_own_is_taken(outbox: JobOutbox) -> None:
    app = Flask('plain')
    queue = init_job_queue(app, outbox)
    with app.app_context():
        assert queue.outbox is outbox


def test_an_outbox_of_another_application_is_refused(host: Flask, outbox: JobOutbox) -> None:
    with pytest.raises(RuntimeError, match="that of the application 'host'"):
        init_job_queue(Flask('other'), outbox)
    differing = Flask('host')
    differing.config['JOB_KEY_PREFIX'] = 'other'
    with pytest.raises(RuntimeError, match=r"another JobOutbox\(engine\) for 'host'"):
        init_job_queue(differing, outbox)
    again = Flask('host')  # by its factory, in another test
    assert init_job_queue(again, outbox).outbox is outbox


# In the tests of an application


@in_memory
def test_a_database_in_memory_is_relayed_by_the_commit(shop: Shop, queued: Queued) -> None:
    job_id = shop.order(1)
    shop.db.session.commit()
    assert queued() == [job_id]
    assert shop.count() == 1


@in_memory
def test_a_commit_to_a_database_in_memory_does_not_fail_because_of_redis(
    shop: Shop, settings: pytest.MonkeyPatch, redis_url: str, queued: Queued
) -> None:
    use_redis(settings, 'redis://127.0.0.1:1/0', shop.app)
    first = shop.order(1)
    shop.db.session.commit()
    assert shop.count() == 1
    use_redis(settings, redis_url, shop.app)
    second = shop.order(2)
    shop.db.session.commit()
    assert queued() == [first, second]


@of_every_kind
def test_a_job_is_recorded_when_it_is_committed(shop: Shop) -> None:
    with recorded_jobs() as jobs:
        shop.order(1)
        assert len(jobs) == 0
        shop.db.session.rollback()
        job_id = shop.order(2, job_queue='high')
        with shop.db.session.begin_nested() as undone:
            shop.order(3)
            undone.rollback()
        shop.db.session.commit()
        assert [job.id for job in jobs] == [job_id]
        jobs.assert_enqueued(ADD, a=2, job_queue='high')
        assert get_job_status(job_id)['status'] == 'queued'
    assert shop.queue.outbox.read_waiting().queues == []


@of_every_kind
def test_a_job_runs_eagerly_when_it_is_committed(shop: Shop) -> None:
    with eager_jobs():
        job_id = shop.order(1)
        shop.db.session.commit()
        assert get_job_status(job_id)['result'] == 3
        assert shop.count() == 1


@in_memory
def test_an_eager_job_that_fails_can_fail_the_commit(shop: Shop) -> None:
    with eager_jobs(raising=True):
        shop.order(1)
        shop.queue.outbox.enqueue(shop.db.session, FAIL)
        with pytest.raises(ValueError, match='it failed'):
            shop.db.session.commit()
    assert shop.count() == 1


@in_memory
def test_what_is_relayed_can_be_run_in_a_test(shop: Shop) -> None:
    shop.order(1)
    shop.db.session.commit()
    assert [status['result'] for status in run_jobs()] == [3]


def test_jobs_beside_the_outbox_go_on(shop: Shop, queued: Queued) -> None:
    job = enqueue_background_job(ADD, 1)
    assert queued() == [job.id]


@of_every_kind
def test_a_session_can_be_in_a_transaction_that_the_test_rolls_back(shop: Shop) -> None:
    outbox = shop.queue.outbox
    with recorded_jobs() as jobs, shop.db.engine.connect() as connection:
        everything = connection.begin()
        with Session(connection, join_transaction_mode='create_savepoint') as session:
            outbox.enqueue(session, ADD, 1)
            session.rollback()
            job = outbox.enqueue(session, ADD, 2)
            session.commit()
        assert [recorded.id for recorded in jobs] == [job.id]
        everything.rollback()


@of_every_kind
@pytest.mark.parametrize('stand_in', [recorded_jobs, eager_jobs])
def test_a_job_that_is_refused_keeps_no_other_of_its_commit_from_being_recorded(
    shop: Shop, stand_in: Callable[[], AbstractContextManager[object]]
) -> None:
    with stand_in():
        shop.order(1, job_id='bad', job_after='nobody')
        shop.order(2, job_id='good')
        shop.db.session.commit()
        assert get_job_status('good')['task'] == ADD
        with pytest.raises(JobNotFoundError):
            get_job_status('bad')
