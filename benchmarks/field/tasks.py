"""What the workers run, the same for every peer. Asyncio peers have those of async_tasks.py."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from redis import Redis

FINISHED = 'field:finished'  # how many jobs have ended
STARTED = 'field:started'  # the numbers of `clock` jobs, and when they have started
NAP_SECONDS = 0.005
RECORD_SECONDS = 0.02


@cache
def connection() -> 'Redis':
    return Redis.from_url(os.environ['REDIS_URL'])


def count() -> int:
    return int(connection().incr(FINISHED))


def empty() -> int:
    return count()


def nap() -> int:
    time.sleep(NAP_SECONDS)
    return count()


def clock(number: int) -> int:
    connection().rpush(STARTED, f'{number} {time.time()}')
    return count()


def record(number: int) -> int:
    with recorded(number):
        time.sleep(RECORD_SECONDS)
    return count()


@contextmanager
def recorded(number: int) -> Iterator[None]:
    """Write a line when a job starts and one when it ends, each at once and whole."""
    write('start', number)
    yield
    write('end', number)


def write(event: str, number: int) -> None:
    with open(os.environ['FIELD_LOG'], 'a') as log:
        log.write(f'{event} {number} {time.time()}\n')
