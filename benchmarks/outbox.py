"""Measure what a row of an outbox costs a request, and how many rows a relay makes jobs of.

Run with `make bench`. A request writes an order and commits it; beside that it enqueues nothing, a
job after the commit, or a job by a row of the outbox, which the process relays meanwhile. The
sides take turns, and the figures are medians. The databases are as durable as they come.
"""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from redis import Redis
from sqlalchemy import Column, Engine, Integer, MetaData, Table
from sqlalchemy.orm import Session

from benchmarks.worker import use
from libraries.job_manager import enqueue_background_job
from qdjobs.outbox import JobOutbox
from qdjobs.server import embedded_redis, free_port
from tests.support.databases import ending_relays, engine_for, new_sqlite, running_postgresql

TASK = 'benchmarks.bench_tasks.empty'
REQUESTS = 100  # of each side in one round
PAUSE = 0.01  # seconds between two requests, in which the thread of an outbox relays
ROWS = 5000  # that a relay finds

metadata = MetaData()
orders = Table('orders', metadata, Column('id', Integer, primary_key=True))


@contextlib.contextmanager
def databases() -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory() as folder, running_postgresql(durable=True) as postgresql:
        yield {'PostgreSQL': postgresql.url, 'SQLite, WAL': new_sqlite(Path(folder) / 'database')}


def sides(engine: Engine, outbox: JobOutbox) -> dict[str, Callable[[], None]]:
    """Return what a request does, for each way to enqueue."""

    def commit() -> None:
        with Session(engine) as session:
            session.execute(orders.insert())
            session.commit()

    def enqueue_afterwards() -> None:
        commit()
        enqueue_background_job(TASK)

    def add_a_row() -> None:
        with Session(engine) as session:
            session.execute(orders.insert())
            outbox.enqueue(session, TASK)
            session.commit()

    return {
        'commit': commit,
        'commit, then enqueue': enqueue_afterwards,
        'commit with a row of an outbox': add_a_row,
    }


def measure_requests(engine: Engine, outbox: JobOutbox, rounds: int) -> dict[str, float]:
    """Return the microseconds of a request of each side."""
    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, request in sides(engine, outbox).items():
            for _ in range(REQUESTS):
                time.sleep(PAUSE)
                start = time.perf_counter()
                request()
                times.setdefault(name, []).append((time.perf_counter() - start) * 1e6)
    return {name: statistics.median(taken) for name, taken in times.items()}


def measure_relay(engine: Engine, outbox: JobOutbox) -> float:
    """Return how many rows a relay makes jobs of in a second."""
    while outbox.read_waiting().queues:  # the thread has not ended yet
        time.sleep(0.01)
    outbox._thread.wake = lambda: None  # type: ignore[method-assign]
    with Session(engine) as session:
        for _ in range(ROWS):
            outbox.enqueue(session, TASK)
        session.commit()
    start = time.perf_counter()
    outbox.relay()
    return ROWS / (time.perf_counter() - start)


@click.command()
@click.option('--rounds', default=5, show_default=True, type=click.IntRange(min=1))
def main(rounds: int) -> None:
    with databases() as found, embedded_redis(free_port()) as url, Redis.from_url(url) as redis:
        use(url)
        for name, database in found.items():
            redis.flushall()
            with engine_for(database) as engine:
                outbox = JobOutbox(engine, metadata)
                metadata.create_all(engine)
                with ending_relays(outbox):
                    times = measure_requests(engine, outbox, rounds)
                    rate = measure_relay(engine, outbox)
            click.echo(f'\n{name}')
            for side, taken in times.items():
                click.echo(f'  {side:34}{taken:>9,.0f} µs{taken / times["commit"]:>8.2f} ×')
            click.echo(f'  {"a relay":34}{rate:>9,.0f} rows/s')


if __name__ == '__main__':
    main()
