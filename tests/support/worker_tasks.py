"""More tasks, callbacks, apps and workers, for the tests that try to break a worker."""

import asyncio
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from flask import Flask
from redis import Redis
from rq import Queue, get_current_job
from rq.job import Job

from qdjobs.worker.worker import JobWorker


def say(path: str, line: str) -> None:
    with Path(path).open('a') as file:
        file.write(f'{line}\n')


def begin_and_sleep(path: str, seconds: float) -> int:
    """Tell that it has begun, and in which process."""
    say(path, str(os.getpid()))
    time.sleep(seconds)
    return os.getpid()


def size(data: bytes) -> int:
    return len(data)


async def wait_politely(number: int) -> int:
    await asyncio.sleep(0.01)
    return number + 1


def current_job_id() -> str | None:
    job = get_current_job()
    return job.id if job else None


def save_meta(how: str, ending: str) -> None:
    """Save metadata, through the job at hand or another object, and end in one of many ways."""
    job = get_current_job()
    assert job is not None
    if how == 'elsewhere':
        job = Job.fetch(job.id, job.connection)
    job.meta['note'] = 'kept'
    job.save_meta()
    if ending == 'raise':
        raise ValueError('it failed')
    if ending == 'exit':
        os._exit(3)
    if ending == 'time out':
        signal.raise_signal(signal.SIGALRM)  # by which a job's time-out comes


def leave_unplain_meta() -> None:
    job = get_current_job()
    assert job is not None
    job.meta['lock'] = threading.Lock()
    raise ValueError('the real error')


def raise_surrogate() -> None:
    raise FileNotFoundError('no such file: /tmp/\udcff')


def die_by_signal(signum: int) -> None:
    os.kill(os.getpid(), signum)
    time.sleep(5)


def die_later(seconds: float) -> int:
    threading.Timer(seconds, os._exit, (1,)).start()
    return os.getpid()


def fork_and_return(path: str) -> str:
    """The classic mistake: the child of a fork that does not end itself."""
    if os.fork() == 0:
        time.sleep(0.3)
    say(path, str(os.getpid()))
    return 'returned'


def close_files(path: str, seconds: float) -> str:
    """Close all files but the standard ones, as daemons do, and go on."""
    say(path, str(os.getpid()))
    os.closerange(3, 1024)
    time.sleep(seconds)
    return 'done'


def close_files_and_hang(path: str) -> None:
    say(path, str(os.getpid()))
    os.closerange(3, 1024)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    time.sleep(60)


def change_signals() -> None:
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(signum, signal.SIG_IGN)


def leave_threads() -> None:
    for _ in range(5):
        threading.Thread(target=time.sleep, args=(60,)).start()


def print_much() -> int:
    for _ in range(2000):
        print('x' * 500)  # noqa: T201
        print('y' * 500, file=sys.stderr)  # noqa: T201
    return 1


def on_success_slowly(job: Job, connection: Redis, result: Any) -> None:
    time.sleep(4)
    connection.set(f'callback:{job.id}', 'success')


def on_stopped_slowly(job: Job, connection: Redis) -> None:
    time.sleep(2.5)
    connection.set(f'callback:{job.id}', 'stopped')


def on_stopped_endlessly(job: Job, connection: Redis) -> None:
    connection.set(f'callback:{job.id}', 'begun')
    time.sleep(1000)


def on_stopped_exit(job: Job, connection: Redis) -> None:
    sys.exit('the callback wants to end')


def on_failure_badly(job: Job, connection: Redis, *error: Any) -> None:
    raise LookupError('in the callback')


def handle(job: Job, *error: Any) -> None:
    job.connection.set(f'handle:{job.id}', error[0].__name__)


def handle_badly(job: Job, *error: Any) -> None:
    job.connection.set(f'handle_badly:{job.id}', error[0].__name__)
    raise LookupError('in the handler')


def create_app() -> Flask:
    app = Flask('the-app-of-the-tests')
    if path := os.environ.get('APP_BUILT'):
        say(path, str(os.getpid()))
    return app


def create_app_slowly() -> Flask:
    time.sleep(2.5)
    return create_app()


def create_broken_app() -> Flask:
    raise RuntimeError('no SECRET_KEY')


class TwiceTerminatedJobWorker(JobWorker):
    """As a pool's workers are: each signal comes twice, at once."""

    def handle_warm_shutdown_request(self) -> None:
        if not os.environ.get('TOLD'):
            os.environ['TOLD'] = '1'
            os.kill(os.getpid(), signal.SIGTERM)
        super().handle_warm_shutdown_request()  # type: ignore[no-untyped-call]


class QueueElsewhere(Queue):
    """A queue class whose lists have other keys than RQ's."""

    redis_queue_namespace_prefix = 'elsewhere:'
