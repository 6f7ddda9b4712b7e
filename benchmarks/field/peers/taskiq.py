"""taskiq with the one Redis broker of its that acknowledges, and a result backend."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.field import async_tasks

TITLE = 'taskiq {}, streams'
PACKAGE = 'taskiq'
COMMAND = ['taskiq', 'worker', 'benchmarks.field.peers.taskiq:broker']
COMMAND += ['--workers', '1', '--max-async-tasks', '1']
# A worker claims what another has held for idle_timeout, 10 minutes by default. The lock under
# which it does so must expire: if a worker is killed that has it, all others wait for it.
NOTE = 'back after 10 minutes (`idle_timeout`), and so is what was prefetched, up to 100 jobs'

url = os.environ['REDIS_URL']
broker = RedisStreamBroker(url, unacknowledged_lock_timeout=10).with_result_backend(
    RedisAsyncResultBackend(url)
)
ALL = {
    function.__name__: broker.task(task_name=function.__name__)(function)
    for function in async_tasks.ALL
}


@asynccontextmanager
async def connected() -> AsyncIterator[None]:
    await broker.startup()
    yield
    await broker.shutdown()


async def enqueue(task: str, *arguments: object) -> None:
    await ALL[task].kiq(*arguments)
