"""An outbox in a database of each kind, and the sessions that use it."""

from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from redis import Redis
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session, sessionmaker

from qdjobs import JobQueue
from qdjobs.client.status import read_text
from qdjobs.config import environment_config
from qdjobs.outbox import JobOutbox
from tests.support.databases import ending_relays

TASKS = 'tests.support.tasks,tests.support.outcomes'


@pytest.fixture(autouse=True)
def task_modules(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_TASK_MODULES', TASKS)
    environment_config.cache_clear()


@pytest.fixture
def outbox(engine: Engine) -> Iterator[JobOutbox]:
    outbox = JobOutbox(engine)
    outbox.create_all()
    with ending_relays(outbox):
        yield outbox


@pytest.fixture
def unattended(outbox: JobOutbox, monkeypatch: pytest.MonkeyPatch) -> JobOutbox:
    """The outbox of a process that dies with its commit: nothing is relayed but by the test."""
    monkeypatch.setattr(outbox, '_committed', lambda *_: None)
    return outbox


@pytest.fixture
def sessions(engine: Engine) -> sessionmaker[Session]:
    return sessionmaker(engine)


@pytest.fixture
def host(outbox: JobOutbox) -> Iterator[Flask]:
    """The context of an application that has the outbox."""
    app = Flask('host')
    app.config['METRICS_TOKEN'] = 'secret'
    JobQueue(app, db=outbox)
    with app.app_context():
        yield app


@pytest.fixture
def queued(connection: Redis) -> Callable[..., list[str]]:
    """The ids in a queue, in their order."""

    def read(queue: str = 'default') -> list[str]:
        return [read_text(job_id) for job_id in connection.lrange(f'rq:queue:{queue}', 0, -1)]

    return read


@pytest.fixture
def rows(outbox: JobOutbox) -> Callable[[], int]:
    """How many rows there are."""

    def count() -> int:
        with outbox.engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(outbox.table)) or 0

    return count
