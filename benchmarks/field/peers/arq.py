"""arq with its defaults, up to 10 jobs at a time.

With max_jobs = 1 each poll starts one job, which is 2 jobs per second: a poll stops as soon as
max_jobs run, and the next one is half a second later (poll_delay).
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from arq import create_pool, func
from arq.connections import RedisSettings

from benchmarks.field import async_tasks

TITLE = 'arq {}, 10 jobs at a time'
PACKAGE = 'arq'
COMMAND = ['arq', 'benchmarks.field.peers.arq.WorkerSettings']
# A job's claim outlives its worker until job_timeout (300 s by default) and 10 s have passed.
NOTE = 'back after 310 s (`job_timeout`)'


def without_context(function):
    async def task(ctx, *arguments):
        return await function(*arguments)

    return func(task, name=function.__name__)


class WorkerSettings:
    functions = [without_context(function) for function in async_tasks.ALL]  # noqa: RUF012
    redis_settings = RedisSettings.from_dsn(os.environ['REDIS_URL'])


@asynccontextmanager
async def connected() -> AsyncIterator[None]:
    global pool
    pool = await create_pool(WorkerSettings.redis_settings)
    yield
    await pool.aclose()


async def enqueue(task: str, *arguments: object) -> None:
    await pool.enqueue_job(task, *arguments)
