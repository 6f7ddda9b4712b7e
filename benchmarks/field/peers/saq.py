"""SAQ, one job at a time."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from saq import Queue

from benchmarks.field import async_tasks

TITLE = 'SAQ {}'
PACKAGE = 'saq'
COMMAND = ['saq', 'benchmarks.field.peers.saq.settings']
# Once a minute it sweeps jobs that have run for longer than their timeout (10 s by default). With
# one attempt, the default, they are aborted; with more they run again.
RETRIES = 3
NOTE = 'back at the next sweep, once a minute'

queue = Queue.from_url(os.environ['REDIS_URL'])


def without_context(function):
    async def task(ctx, *, arguments):
        return await function(*arguments)

    return function.__name__, task


settings = {
    'queue': queue,
    'functions': [without_context(function) for function in async_tasks.ALL],
    'concurrency': 1,
}


@asynccontextmanager
async def connected() -> AsyncIterator[None]:
    await queue.connect()
    yield
    await queue.disconnect()


async def enqueue(task: str, *arguments: object) -> None:
    await queue.enqueue(task, arguments=arguments, retries=RETRIES)
