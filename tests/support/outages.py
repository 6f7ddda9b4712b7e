"""What goes wrong around a worker: its Redis is full, stands still, or the worker does."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from redis import Redis

from qdjobs.client.redis import get_connection
from tests.support.jobs import lines_of
from tests.support.processes import eventually

LEASE = 1  # second, which `own_worker` has


@contextlib.contextmanager
def full(connection: Redis) -> Iterator[None]:
    """Redis refuses every command that needs memory, as it does once it has no more."""
    connection.config_set('maxmemory-policy', 'noeviction')
    connection.config_set('maxmemory', connection.info('memory')['used_memory'] // 2)
    try:
        yield
    finally:
        connection.config_set('maxmemory', 0)


@contextlib.contextmanager
def standing(*pids: int) -> Iterator[None]:
    """Some processes stand still for the time of the block."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def outlast(leases: float) -> None:
    """Let so many leases pass."""
    time.sleep(LEASE * leases)


def is_leased(connection: Redis) -> bool:
    """Whether a lease is valid by Redis' own clock."""
    seconds, micros = connection.time()
    return bool(connection.zcount('rq:leases', seconds + micros / 1e6, '+inf'))


def deaths_of(job_id: str) -> int:
    """How many workers are said to have died under the job."""
    return int(get_connection().hget(f'rq:job:{job_id}', 'worker_deaths') or 0)


def has_said_that_it_stops(connection: Redis) -> bool:
    """Whether the worker of the running job has noted that it stops: its death counts no more."""
    members: Any = connection.zrange('rq:leases', 0, -1)
    notes = [connection.hget(f'rq:execution:{each.decode()}', 'stopping') for each in members]
    return notes == [b'1']


def await_runs(path: Path, count: int) -> None:
    """Wait until a task has begun so many times."""
    eventually(lambda: len(lines_of(path)) >= count)
