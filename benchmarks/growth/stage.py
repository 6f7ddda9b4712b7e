"""A server of its own, pools of workers, and what both do meanwhile."""

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from redis import Redis

from benchmarks.growth.tasks import LOG
from benchmarks.worker import HERE, QUEUES, RQ, memory
from libraries.job_manager import enqueue_background_jobs
from qdjobs.config import environment_config
from qdjobs.errors import QueueUnavailableError
from qdjobs.server import embedded_redis, free_port, point_here

NOTE = 'benchmarks.growth.tasks.note'
EMPTY = 'benchmarks.growth.tasks.empty'
JOB_WORKER = 'qdjobs.worker.JobWorker'
BATCH = 1000  # jobs in one step
PATIENCE = 120  # seconds


@contextmanager
def server() -> Iterator[Redis]:
    """Run an empty Valkey with an append-only file, and use it in this process and its workers."""
    with (
        tempfile.NamedTemporaryFile('r', prefix='growth-') as log,
        embedded_redis(free_port()) as url,
        Redis.from_url(url, socket_timeout=60) as redis,
    ):
        point_here(url)
        os.environ |= {'JOB_TASK_MODULES': 'benchmarks.growth.tasks', LOG: log.name}
        environment_config.cache_clear()
        yield redis


def runs() -> list[tuple[float, str]]:
    """Return when each run has started, and its word, in the order of their starts."""
    lines = Path(os.environ[LOG]).read_text().splitlines()
    return sorted((float(moment), word) for moment, word in map(str.split, lines))


def forget_runs() -> None:
    os.truncate(os.environ[LOG], 0)


@contextmanager
def pool(
    redis: Redis, count: int, *queues: str, single: bool = False, idle_wait: float = 1.0
) -> Iterator[float]:
    """Run JobWorkers, in RQ's pool or as single ones, and yield their memory once all are idle."""
    served = queues or tuple(QUEUES)
    one = [RQ, 'worker', '--quiet', '--worker-class', JOB_WORKER, *served]
    many = [RQ, 'worker-pool', '--quiet', '-n', str(count), '--worker-class', JOB_WORKER, *served]
    already = waiting(redis)
    processes = [
        subprocess.Popen(
            command,
            cwd=HERE,
            env=os.environ | {'PYTHONPATH': str(HERE), 'JOB_IDLE_WAIT': str(idle_wait)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for command in ([one] * count if single else [many])
    ]
    try:
        until(lambda: waiting(redis) == already + count)
        yield sum(memory(process.pid) for process in processes)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait()


def waiting(redis: Redis) -> int:
    """Return the number of workers that wait for a wake-up."""
    return int(redis.info('clients')['blocked_clients'])


def until(condition: Callable[[], object], pause: float = 0.01) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError('The workers do not get any further.')
        time.sleep(pause)


def fill(jobs: int, task: str = EMPTY, **options: Any) -> None:
    """Enqueue jobs without arguments, in batches."""
    for start in range(0, jobs, BATCH):
        enqueue_patiently(task, [{}] * min(BATCH, jobs - start), **options)


def enqueue_patiently(task: str, calls: Sequence[dict[str, Any]], **options: Any) -> None:
    """Enqueue a batch; on a busy machine Redis may answer too late, and then it is repeated."""
    job_id = str(uuid4())
    for _ in range(20):
        try:
            enqueue_background_jobs(task, calls, job_id=job_id, **options)
        except QueueUnavailableError:
            continue
        return
    raise TimeoutError('Redis does not accept a batch of jobs.')


@dataclass(frozen=True)
class Work:
    """What Redis has done in some time."""

    seconds: float
    commands: float  # inside scripts too
    requests: float  # commands that clients have sent, with a script as one
    processor: float  # seconds of its main thread
    calls: dict[str, int]  # by command


@contextmanager
def measured(redis: Redis) -> Iterator[Callable[[], Work]]:
    """Yield a function that returns what Redis has done since."""
    redis.config_resetstat()
    before, start = _processor(redis), time.perf_counter()

    def read() -> Work:
        seconds = time.perf_counter() - start
        stats: dict[str, Any] = redis.info('commandstats')
        used = _processor(redis) - before
        calls = {name.removeprefix('cmdstat_'): row['calls'] for name, row in stats.items()}
        for ours in ('info', 'config|resetstat'):
            calls.pop(ours, None)
        scripts = calls.get('evalsha', 0) + calls.get('eval', 0)
        requests = scripts + sum(calls.get(name, 0) for name in ('blpop', 'ping', 'set', 'time'))
        return Work(seconds, sum(calls.values()), requests, used, calls)

    yield read


def _processor(redis: Redis) -> float:
    info = redis.info('cpu')
    return float(info['used_cpu_user_main_thread'] + info['used_cpu_sys_main_thread'])


def median_time(call: Callable[[], Any], repeats: int) -> float:
    """Return the milliseconds that a call takes."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken) * 1000
