"""Celery as its guide has it for tasks that may run twice."""

from benchmarks.field.peers.celery import ALL, app

TITLE = 'Celery {}, prefork, `acks_late`'
PACKAGE = 'celery'
COMMAND = ['celery', '-A', 'benchmarks.field.peers.celery_late', 'worker', '--concurrency', '1']
# An hour is the default of visibility_timeout. The guide warns of a shorter one: a task that takes
# longer than that, or waits longer for its ETA, runs twice.
app.conf.task_acks_late = True
app.conf.worker_prefetch_multiplier = 1  # "reserve one task at a time"
NOTE = 'back after an hour (`visibility_timeout`)'


def enqueue(task: str, *arguments: object) -> None:
    ALL[task].delay(*arguments)
