"""Tasks that log, print and die, for the tests of a worker's logging."""

import logging
import os
import signal
import subprocess
import threading
import time

from flask import current_app
from rq import Retry, get_current_job

log = logging.getLogger(__name__)
# As a module that tasks share has it: it exists before the application is loaded.
library_log = logging.getLogger('log_library')
library_log.addHandler(logging.NullHandler())


class Colour:
    def __str__(self) -> str:
        return 'red'


def speak() -> None:
    log.info('the task speaks')
    log.debug('the task whispers')
    library_log.info('the library speaks')
    thread = threading.Thread(target=log.info, args=('the thread speaks',))
    thread.start()
    thread.join()


def speak_with_fields() -> None:
    unusual = {'name': '\udcff', ('a', 1): {2**80}}
    own = {'task': 'a task of my own', 'job_id': 'mine', 'colour': Colour(), 'level': 7}
    log.info('the task speaks', extra=own | {'unusual': unusual})


def speak_for_the_application() -> None:
    current_app.logger.info('the application speaks')
    log.info('the task speaks')


def fail(password: str = '') -> None:
    log.info('the task speaks')
    raise ValueError('it failed')


def ask_for_another_attempt() -> Retry | None:
    job = get_current_job()
    return Retry(max=1) if job and not job.number_of_retries else None


def print_and_die() -> None:
    print('printed')  # noqa: T201
    subprocess.run(['echo', 'from a program'], check=True)
    subprocess.run('echo complaint >&2', shell=True, check=True)
    os.kill(os.getpid(), signal.SIGKILL)


def sleep() -> None:
    log.info('the task sleeps')
    time.sleep(60)
