"""Processes that commit rows and relay them, which the tests kill; and a storm of them.

They are forked from a server that has imported everything: a new one is there in milliseconds.
"""

import contextlib
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal
from uuid import uuid4

from sqlalchemy import Column, Engine, MetaData, String, Table, create_engine, func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from qdjobs import QueueUnavailableError, enqueue_background_job
from qdjobs.client.redis import get_connection
from qdjobs.config import environment_config
from qdjobs.outbox import JobOutbox, relay
from tests.support.outages import standing

APPEND = 'tests.support.tasks.append'
ROLLED_BACK = 0.2  # of the transactions

Way = Literal['outbox', 'before', 'after']  # how a job is enqueued: the last two are the controls

metadata = MetaData()
ledger = Table('ledger', metadata, Column('key', String(50), primary_key=True))

_processes = multiprocessing.get_context('forkserver')
_processes.set_forkserver_preload([__name__])


def start(function: Callable[..., None], url: str, *arguments: object) -> BaseProcess:
    """Run a function in a process of its own, with the outbox of a database."""
    names = ('REDIS_URL', 'JOB_TASK_MODULES')
    environment = {name: os.environ[name] for name in names}
    process = _processes.Process(
        target=_run, args=(function, url, environment, arguments), daemon=True
    )
    process.start()
    return process


def _run(
    function: Callable[..., None],
    url: str,
    environment: Mapping[str, str],
    arguments: tuple[object, ...],
) -> None:
    os.environ.update(environment)
    environment_config.cache_clear()
    function(JobOutbox(create_engine(url), metadata), *arguments)


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def commit_and_die(outbox: JobOutbox, count: int, path: str) -> None:
    """Die as soon as a transaction with some jobs is committed."""
    outbox._committed = _die  # type: ignore[method-assign,assignment]
    with Session(outbox.engine) as session:
        for number in range(count):
            outbox.enqueue(session, APPEND, path, str(number))
        session.commit()


def relay_and_die(outbox: JobOutbox) -> None:
    """Die once Redis has said yes to all rows, before they are deleted."""
    relay._write = _die  # type: ignore[assignment]
    outbox.relay()


def commit_for_ever(outbox: JobOutbox, way: Way, path: str, pause: float) -> None:
    """Commit a key in the ledger and a job that writes it to the file; or roll both back."""
    chance = random.Random(os.getpid())
    while True:
        key = uuid4().hex
        with contextlib.suppress(OperationalError, QueueUnavailableError):
            _commit_one(outbox, way, path, key, is_undone=chance.random() < ROLLED_BACK)
        time.sleep(pause)


def _commit_one(outbox: JobOutbox, way: Way, path: str, key: str, is_undone: bool) -> None:
    with Session(outbox.engine) as session:
        if way == 'before':
            enqueue_background_job(APPEND, path, key)
        session.execute(ledger.insert().values(key=key))
        if way == 'outbox':
            outbox.enqueue(session, APPEND, path, key)
        if is_undone:
            session.rollback()
        else:
            session.commit()
            if way == 'after':
                enqueue_background_job(APPEND, path, key)


def relay_for_ever(outbox: JobOutbox) -> None:
    while True:
        with contextlib.suppress(QueueUnavailableError):
            outbox.relay()
        time.sleep(0.05)


@dataclass
class Storm:
    """Processes that commit and relay; one after the other is killed, and Redis hangs at times."""

    engine: Engine
    way: Way
    path: Path
    committing: int
    relaying: int
    pause: float = 0.0  # seconds between two transactions of a process
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    kills: int = 0

    def rage(self, rows: int) -> None:
        """Go on until so many transactions are committed, and then until all is relayed."""
        url = self.engine.url.render_as_string(hide_password=False)
        roles = [(commit_for_ever, url, self.way, str(self.path), self.pause)] * self.committing
        roles += [(relay_for_ever, url)] * self.relaying  # type: ignore[list-item]
        processes = [start(*role) for role in roles]
        try:
            while (count := self._count(ledger)) < rows or self.kills < len(roles):
                number = self.chance.randrange(len(roles))
                time.sleep(self.chance.uniform(0, 0.6))
                processes[number].kill()
                processes[number].join()
                processes[number] = start(*roles[number])
                self.kills += 1
                if self.kills % 10 == 0:
                    self._hang_redis()
                assert self.kills < 1000, count
        finally:
            for process in processes:
                process.kill()
                process.join()

    def _hang_redis(self) -> None:
        pid = int(get_connection().info('server')['process_id'])
        with standing(pid):
            time.sleep(1.2)  # longer than an enqueue waits

    def _count(self, table: Table) -> int:
        with self.engine.connect() as connection:
            return connection.scalar(select(func.count()).select_from(table)) or 0

    def balance(self) -> tuple[set[str], Counter[str]]:
        """Return the committed keys, and how often the job of each key has run."""
        with self.engine.connect() as connection:
            keys = set(connection.scalars(select(ledger.c.key)))
        lines = self.path.read_text().split() if self.path.exists() else []
        return keys, Counter(lines)
