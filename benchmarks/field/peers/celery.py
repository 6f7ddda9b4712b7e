"""Celery with its default pool (prefork), its defaults and a result backend."""

import os

from celery import Celery

from benchmarks.field import slow, tasks

TITLE = 'Celery {}, prefork'
PACKAGE = 'celery'
COMMAND = ['celery', '-A', 'benchmarks.field.peers.celery', 'worker', '--concurrency', '1']
# Acknowledges before it runs a task: what runs when the worker dies is lost. What it has prefetched
# (4 tasks) returns after the visibility_timeout, an hour by default.
NOTE = 'what was prefetched is back after an hour (`visibility_timeout`), what ran never'

url = os.environ['REDIS_URL']
app = Celery('field', broker=url, backend=url)
ALL = {
    function.__name__: app.task(name=function.__name__)(function)
    for function in (tasks.empty, tasks.nap, slow.slow, tasks.clock, tasks.record)
}


def enqueue(task: str, *arguments: object) -> None:
    ALL[task].delay(*arguments)
