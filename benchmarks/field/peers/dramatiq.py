"""Dramatiq with its defaults and a result backend, one process with one thread."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.field import slow, tasks

TITLE = 'Dramatiq {}'
PACKAGE = 'dramatiq'
COMMAND = ['dramatiq', 'benchmarks.field.peers.dramatiq', '--processes', '1', '--threads', '1']
# One command in a thousand looks for workers that have been silent for 60 s, and requeues what
# they held: heartbeat_timeout and maintenance_chance are as they come.
NOTE = 'back when one command in 1,000 finds a worker that has been silent for 60 s'

url = os.environ['REDIS_URL']
broker = RedisBroker(url=url)
broker.add_middleware(Results(backend=RedisBackend(url=url)))
dramatiq.set_broker(broker)
ALL = {
    function.__name__: dramatiq.actor(function, store_results=True)
    for function in (tasks.empty, tasks.nap, slow.slow, tasks.clock, tasks.record)
}


def enqueue(task: str, *arguments: object) -> None:
    ALL[task].send(*arguments)
