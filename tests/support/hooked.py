"""An application that writes down what its hooks get, and tasks for them."""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from flask import Flask, current_app

from qdjobs import Call, CurrentJob, Failure, InvalidJobError, JobQueue
from qdjobs.progress import current_job

queue = JobQueue()


def create_app() -> Flask:
    app = Flask('hooked')
    queue.init_app(app)
    return app


def write(*words: object) -> None:
    with Path(os.environ['HOOK_LOG']).open('a') as file:
        file.write(json.dumps([current_app.name, *words]) + '\n')


@queue.before_enqueue
def mark(call: Call) -> None:
    if call.kwargs.get('what') == 'forbidden':
        raise InvalidJobError('the tenant has no credit')
    call.meta['tenant'] = f'tenant of {call.task.path.rpartition(".")[2]}'


@queue.around_job
def surround(job: CurrentJob) -> Iterator[None]:
    if job.meta.get('break') == 'before':
        raise LookupError('before the job')
    write('begin', job.id, job.attempt, job.meta)
    try:
        yield
    except ValueError:
        write('caught', job.id)
    finally:
        write('end', job.id)
    if job.meta.get('break') == 'after':
        raise LookupError('after the job')


@queue.around_horse
def live() -> Iterator[None]:
    with Path(f'{os.environ["HOOK_LOG"]}.horses').open('a') as file:
        print('born in', current_app.name, file=file, flush=True)
        yield
        print('ended in', current_app.name, file=file, flush=True)


@queue.on_failure
def break_down(failure: Failure) -> None:
    if failure.job.meta.get('break') == 'report':
        raise LookupError('in the report')
    if failure.job.meta.get('break') == 'exit':
        sys.exit(3)


@queue.on_failure
def report(failure: Failure) -> None:
    job, raised = failure.job, failure.exception
    last = failure.error.strip().splitlines()[-1]
    kind = type(raised).__name__ if raised else None
    write('failure', job.id, job.task, job.attempt, kind, last, failure.is_final, failure.is_death)


def act(what: str = '') -> dict[str, object] | None:
    """Do what a task can do: show its metadata, fail, or die."""
    if what == 'fail':
        raise ValueError('it failed')
    if what == 'die':
        os.abort()
    if what == 'hang':
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        time.sleep(300)
    if what in ('sleep', 'time out'):
        time.sleep(300)
    job = current_job()
    return job.meta if job else None
