"""The tasks that wait, for asyncio peers: they let the event loop run meanwhile."""

import asyncio

from benchmarks.field.slow import slow as slow_import
from benchmarks.field.tasks import NAP_SECONDS, RECORD_SECONDS, count, recorded
from benchmarks.field.tasks import clock as tell_time


async def empty() -> int:
    return count()


async def nap() -> int:
    await asyncio.sleep(NAP_SECONDS)
    return count()


async def slow() -> int:
    return slow_import()


async def clock(number: int) -> int:
    return tell_time(number)


async def record(number: int) -> int:
    with recorded(number):
        await asyncio.sleep(RECORD_SECONDS)
    return count()


ALL = (empty, nap, slow, clock, record)
