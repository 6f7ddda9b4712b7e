"""Huey with a worker process. It keeps results by default."""

import os

from huey import RedisHuey

from benchmarks.field import slow, tasks

TITLE = 'Huey {}, process'
PACKAGE = 'huey'
COMMAND = ['huey_consumer', 'benchmarks.field.peers.huey.huey', '-k', 'process', '-w', '1']
# Takes a task off the queue before it runs it, and has no setting that would bring it back.
NOTE = 'never back: a task leaves Redis before it runs'

huey = RedisHuey('field', url=os.environ['REDIS_URL'])
ALL = {
    function.__name__: huey.task()(function)
    for function in (tasks.empty, tasks.nap, slow.slow, tasks.clock, tasks.record)
}


def enqueue(task: str, *arguments: object) -> None:
    ALL[task](*arguments)
