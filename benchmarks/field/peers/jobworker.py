"""This project's worker, in this project's environment, with its default settings."""

from qdjobs import enqueue_background_job

TITLE = 'JobWorker, on RQ {}'
PACKAGE = 'rq'
COMMAND = ['rq', 'worker', '--worker-class', 'qdjobs.JobWorker', 'high', 'default', 'low']
NOTE = 'back when its lease of 30 s expires (`JOB_LEASE`)'


def enqueue(task: str, *arguments: object) -> None:
    module = 'slow' if task == 'slow' else 'tasks'
    enqueue_background_job(f'benchmarks.field.{module}.{task}', *arguments)
