"""streaQ, one job at a time."""

import os

from streaq import Worker

from benchmarks.field import async_tasks

TITLE = 'streaQ {}'
PACKAGE = 'streaq'
COMMAND = ['streaq', 'run', 'benchmarks.field.peers.streaq:worker']
# A worker claims what another has held for idle_timeout, 60 s by default.
NOTE = 'back after 60 s (`idle_timeout`)'

worker = Worker(redis_url=os.environ['REDIS_URL'], concurrency=1)
ALL = {function.__name__: worker.task(function) for function in async_tasks.ALL}


def connected() -> Worker:
    return worker


async def enqueue(task: str, *arguments: object) -> None:
    await ALL[task].enqueue(*arguments)
