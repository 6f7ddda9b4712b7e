"""Compare workers of one process: RQ's two, ours and Celery's prefork pool, in one run.

Run with `make bench`. The contenders take turns, each with an empty server of its own, and the
figures are medians of some rounds.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import click
from redis import Redis

from libraries.job_manager import enqueue_background_job, enqueue_background_jobs, wait_for_job
from qdjobs.config import environment_config
from qdjobs.server import embedded_redis, free_port, point_here
from tests.support.proxy import proxy_to

HERE = Path(__file__).parent.parent
RQ = str(Path(sys.executable).with_name('rq'))
QUEUES = ['high', 'default', 'low']
TASKS = 'benchmarks.bench_tasks,benchmarks.slow_tasks'
LATENCIES = 100
IDLE_SECONDS = 5


@dataclass
class Contender:
    """How to start a worker, and how many jobs give it a second or more of work."""

    name: str
    command: list[str]
    empty_jobs: int
    slow_jobs: int
    is_celery: bool = False


@dataclass
class Figures:
    name: str
    empty_rate: float = 0.0  # jobs per second
    slow_rate: float = 0.0
    requests: float = 0.0  # round trips of the worker per job
    p50: float = 0.0  # milliseconds from enqueue to start, on an idle worker
    p99: float = 0.0
    idle: float = 0.0  # commands per second
    memory: float = 0.0  # megabytes (PSS): shared memory counts once


def contenders(celery: str | None) -> Iterator[Contender]:
    yield Contender('rq.Worker', [RQ, 'worker', *QUEUES], 150, 40)
    yield Contender('rq.SimpleWorker', [RQ, 'worker', '-w', 'rq.SimpleWorker', *QUEUES], 500, 200)
    ours = ['-w', 'qdjobs.worker.worker.JobWorker']
    yield Contender('JobWorker', [RQ, 'worker', *ours, *QUEUES], 3000, 2000)
    if celery:
        start = [celery, '-A', 'benchmarks.celery_app', 'worker', '--pool', 'prefork', '-c', '1']
        yield Contender('Celery prefork', [*start, '-l', 'ERROR'], 2000, 1000, is_celery=True)


@contextmanager
def running(command: list[str], url: str) -> Iterator[int]:
    process = subprocess.Popen(
        command,
        cwd=HERE,
        env=os.environ | {'REDIS_URL': url, 'JOB_TASK_MODULES': TASKS},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def use(url: str) -> None:
    point_here(url)
    os.environ['JOB_TASK_MODULES'] = TASKS
    environment_config.cache_clear()


def measure(contender: Contender) -> Figures:
    figures = Figures(contender.name)
    with embedded_redis(free_port()) as url, Redis.from_url(url) as redis:
        use(url)
        with running(contender.command, url) as pid:
            figures.empty_rate = contender.empty_jobs / seconds(contender, 'empty')
            figures.slow_rate = contender.slow_jobs / seconds(contender, 'slow')
            taken = latencies(contender)
            figures.p50 = statistics.median(taken) * 1000
            figures.p99 = statistics.quantiles(taken, n=100)[98] * 1000
            time.sleep(1)
            before = redis.info('stats')['total_commands_processed']
            time.sleep(IDLE_SECONDS)
            after = redis.info('stats')['total_commands_processed']
            figures.idle = (after - before - 1) / IDLE_SECONDS
            figures.memory = memory(pid)
        if not contender.is_celery:
            with proxy_to(url) as proxy, running(contender.command, proxy.url):
                enqueue_and_wait('benchmarks.bench_tasks.empty', 1)
                before = proxy.requests
                enqueue_and_wait('benchmarks.bench_tasks.empty', 50)
                figures.requests = (proxy.requests - before) / 50
    return figures


def seconds(contender: Contender, kind: str) -> float:
    count = contender.slow_jobs if kind == 'slow' else contender.empty_jobs
    if contender.is_celery:
        return float(json.loads(ask_celery(contender, kind, count)))
    task = 'benchmarks.slow_tasks.empty' if kind == 'slow' else 'benchmarks.bench_tasks.empty'
    enqueue_and_wait(task, 1)
    start = time.perf_counter()
    enqueue_and_wait(task, count)
    return time.perf_counter() - start


def enqueue_and_wait(task: str, count: int) -> None:
    jobs = enqueue_background_jobs(task, [{}] * count)
    assert wait_for_job(jobs[-1].id, 300)['status'] == 'finished'


def latencies(contender: Contender) -> list[float]:
    if contender.is_celery:
        return [float(taken) for taken in json.loads(ask_celery(contender, 'latency', LATENCIES))]
    taken = []
    for _ in range(LATENCIES):
        start = time.time()
        job = enqueue_background_job('benchmarks.bench_tasks.tell_time')
        taken.append(wait_for_job(job.id, 30)['result'] - start)
        time.sleep(0.01)
    return taken


def ask_celery(contender: Contender, *arguments: object) -> str:
    python = str(Path(contender.command[0]).with_name('python'))
    command = [python, '-m', 'benchmarks.celery_app', *map(str, arguments)]
    return subprocess.run(command, cwd=HERE, check=True, capture_output=True, text=True).stdout


def memory(pid: int) -> float:
    """The memory (PSS) of a process and its descendants, in megabytes."""
    rollup = Path(f'/proc/{pid}/smaps_rollup').read_text().split('\nPss:')[1].split()[0]
    children = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    return int(rollup) / 1024 + sum(memory(int(child)) for child in children)


def median(rounds: list[Figures]) -> Figures:
    result = Figures(rounds[0].name)
    for field in fields(Figures)[1:]:
        setattr(result, field.name, statistics.median(getattr(row, field.name) for row in rounds))
    return result


def ratios(rate: float, bases: list[float]) -> str:
    return f'{rate:>8,.0f}/s' + ''.join(f'{rate / base:>7.1f} ×' for base in bases)


@click.command()
@click.option('--celery', help="The celery command of an environment with Celery's requirements.")
@click.option('--rounds', default=3, show_default=True, type=click.IntRange(min=1))
def main(celery: str | None, rounds: int) -> None:
    measured: dict[str, list[Figures]] = {}
    for _ in range(rounds):
        for contender in contenders(celery):
            measured.setdefault(contender.name, []).append(measure(contender))
    rows = [median(figures) for figures in measured.values()]
    bases = [row for row in rows if row.name in ('rq.Worker', 'Celery prefork')]
    width = 10 + 9 * len(bases)
    click.echo(
        f'\n{"one worker, one process":24}{"empty task":>{width}}{"slow import":>{width}}'
        f'{"trips":>8}{"start p50":>12}{"p99":>10}{"idle":>8}{"memory":>9}'
    )
    for row in rows:
        click.echo(
            f'{row.name:24}{ratios(row.empty_rate, [base.empty_rate for base in bases])}'
            f'{ratios(row.slow_rate, [base.slow_rate for base in bases])}'
            f'{row.requests or "–":>8.4}{row.p50:>9.1f} ms{row.p99:>7.1f} ms{row.idle:>6.1f}/s'
            f'{row.memory:>6.0f} MB'
        )
    click.echo(
        f'×: as many as {", as many as ".join(base.name for base in bases)}. '
        'trips: round trips to Redis per job (of Celery: not counted). '
        'start: from enqueue to start, worker idle.'
    )


if __name__ == '__main__':
    main()
