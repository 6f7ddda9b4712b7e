"""Databases for the tests of the outbox: a PostgreSQL of the session, and SQLite files."""

import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import OperationalError

from qdjobs.outbox import JobOutbox
from qdjobs.server import HOST, free_port
from tests.support.missing import report, require
from tests.support.outages import standing

_INITDB = shutil.which('initdb') or next(
    map(str, sorted(Path('/usr/lib/postgresql').glob('*/bin/initdb'), reverse=True)), None
)
_USER = 'postgres' if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root


class PostgresServer:
    """A PostgreSQL in a folder of its own; without what makes it durable, unless that is wanted."""

    def __init__(self, initdb: str, durable: bool = False) -> None:
        self._durable = durable
        self._folder = Path(tempfile.mkdtemp(prefix='qdjobs-postgresql-'))
        if _USER:
            shutil.chown(self._folder, _USER)
        self._bin = Path(os.path.realpath(initdb)).parent
        self._port = free_port()
        options = ['--username=tests', '--auth=trust', '--encoding=UTF8', '--no-sync']
        subprocess.run(
            [initdb, *options, '--locale=C.UTF-8', f'--pgdata={self._folder / "data"}'],
            check=True,
            capture_output=True,
            user=_USER,
            cwd=self._folder,
        )
        self.start()

    @property
    def url(self) -> str:
        return f'postgresql+psycopg://tests@{HOST}:{self._port}/postgres'

    def start(self) -> None:
        settings = [
            f'port={self._port}',
            f'listen_addresses={HOST}',
            f'unix_socket_directories={self._folder}',
            'max_connections=200',
        ]
        if not self._durable:
            settings += ['fsync=off', 'synchronous_commit=off', 'full_page_writes=off']
        command = [str(self._bin / 'postgres'), '-D', str(self._folder / 'data')]
        with (self._folder / 'log').open('ab') as log:
            self._process = subprocess.Popen(
                [*command, *(word for setting in settings for word in ('-c', setting))],
                user=_USER,
                cwd=self._folder,
                stdout=log,
                stderr=log,
            )
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + 60
        engine = create_engine(self.url)
        while True:
            try:
                engine.connect().close()
            except OperationalError:
                assert time.monotonic() < deadline, (self._folder / 'log').read_text()
                time.sleep(0.05)
            else:
                engine.dispose()
                return

    @contextmanager
    def standing(self) -> Iterator[None]:
        """All of its processes stand still for the time of the block."""
        children = Path(f'/proc/{self._process.pid}/task/{self._process.pid}/children')
        with standing(self._process.pid, *map(int, children.read_text().split())):
            yield

    def stop(self) -> None:
        """Stop it at once, with every transaction that is open."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(60)

    def end(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


def require_initdb(path: str | None) -> str:
    """Where `initdb` is. Without it, tests of PostgreSQL are skipped, and fail in CI."""
    return require(path, 'There is no PostgreSQL: the outbox is tested with SQLite only.')


def report_missing_postgresql(reporter: pytest.TerminalReporter) -> None:
    """Say at the end of the session that PostgreSQL has not been tested with, if so."""
    title = 'NO POSTGRESQL, SO THE OUTBOX IS NOT TESTED WITH IT'
    report(_INITDB, reporter, title, "Install Debian's `postgresql` to do so; CI does.")


@contextmanager
def running_postgresql(durable: bool = False) -> Iterator[PostgresServer]:
    server = PostgresServer(require_initdb(_INITDB), durable)
    try:
        yield server
    finally:
        server.end()


def empty(url: str) -> None:
    """Drop everything in a PostgreSQL, whoever still uses it."""
    engine = create_engine(url, isolation_level='AUTOCOMMIT')
    with engine.connect() as connection:
        connection.execute(
            text(
                'SELECT pg_terminate_backend(pid) FROM pg_stat_activity '
                'WHERE pid <> pg_backend_pid() AND backend_type = :kind'
            ),
            {'kind': 'client backend'},
        )
        connection.execute(text('DROP SCHEMA IF EXISTS app CASCADE'))
        connection.execute(text('DROP SCHEMA public CASCADE'))
        connection.execute(text('CREATE SCHEMA public'))
    engine.dispose()


def new_sqlite(path: Path) -> str:
    """Make a SQLite file in WAL mode, which it keeps; return its URL."""
    connection = sqlite3.connect(path)
    connection.execute('PRAGMA journal_mode=WAL')
    connection.close()
    return f'sqlite:///{path}'


@contextmanager
def engine_for(url: str) -> Iterator[Engine]:
    engine = create_engine(url)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def ending_relays(outbox: JobOutbox) -> Iterator[None]:
    """After the block the thread of an outbox relays no more, and has given its connection back."""
    lock, relay = threading.Lock(), outbox.relay

    def relay_alone() -> object:
        with lock:
            return relay()

    outbox._thread._relay = relay_alone
    try:
        yield
    finally:
        outbox._thread._relay = lambda: None
        with lock:
            pass
