"""RQ as it comes: `rq worker`, which forks for each job."""

import os

from redis import Redis
from rq import Queue, Retry

TITLE = 'RQ {}'
PACKAGE = 'rq'
COMMAND = ['rq', 'worker', 'default']
# Its registries are cleaned when a worker starts and every 10 minutes. A job without a heartbeat
# for 90 s then runs again if it may be retried, and has failed if not.
RETRY = Retry(max=3)
NOTE = 'back when registries are cleaned, every 10 minutes or as a worker starts'

queue = Queue(connection=Redis.from_url(os.environ['REDIS_URL']))


def enqueue(task: str, *arguments: object) -> None:
    module = 'slow' if task == 'slow' else 'tasks'
    queue.enqueue(f'benchmarks.field.{module}.{task}', *arguments, retry=RETRY)
