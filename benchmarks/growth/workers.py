"""1, 8 and 32 workers on one Redis."""

import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import click
from redis import Redis

from benchmarks.growth.stage import (
    EMPTY,
    NOTE,
    enqueue_patiently,
    fill,
    forget_runs,
    measured,
    pool,
    runs,
    server,
    until,
    waiting,
)
from libraries.job_manager import enqueue_background_job, wait_for_job
from qdjobs.client.control import pause_workers, resume_workers

IO_BOUND = 0.05  # seconds that a task waits
FOR_EACH = 30  # such jobs for each worker
CALM = 20.0  # seconds that idle workers wait


@dataclass
class Row:
    name: str
    slow: float = 0.0  # jobs per second
    empty: float = 0.0
    start: float = 0.0  # milliseconds from enqueue to start, workers idle
    idle: float = 0.0  # commands per second and worker
    requests: float = 0.0  # of these, those that the worker has sent
    redis: float = 0.0  # microseconds of Redis' processor per second and idle worker
    connections: float = 0.0  # of one worker
    memory: float = 0.0  # megabytes of one worker
    wrong: int = 0  # jobs that have not run exactly once


def measure(name: str, count: int, jobs: int, is_single: bool) -> Row:
    row = Row(name)
    with server() as redis:
        clients = len(redis.client_list())
        with pool(redis, count, single=is_single) as memory:
            row.memory = memory / count
            row.connections = (len(redis.client_list()) - clients) / count
            row.slow, row.wrong = run_numbered(redis, count * FOR_EACH, IO_BOUND)
            row.empty = run_empty(redis, jobs)
            row.start = starts(redis, count, 50)
            row.idle, row.requests, row.redis = idle(redis, count, 5)
    return row


def run_numbered(redis: Redis, jobs: int, seconds: float) -> tuple[float, int]:
    """Return the jobs per second, and how many of them did not run exactly once."""
    forget_runs()
    words = [f'job-{number}' for number in range(jobs)]
    start = time.perf_counter()
    enqueue_patiently(NOTE, [{'seconds': seconds, 'word': word} for word in words])
    until(lambda: redis.zcard('rq:finished:default') >= jobs)
    taken = time.perf_counter() - start
    times = Counter(word for _, word in runs())
    return jobs / taken, sum(times[word] != 1 for word in words)


def run_empty(redis: Redis, jobs: int) -> float:
    before = redis.zcard('rq:finished:default')
    start = time.perf_counter()
    fill(jobs, EMPTY)
    until(lambda: redis.zcard('rq:finished:default') == before + jobs)
    return jobs / (time.perf_counter() - start)


def starts(redis: Redis, count: int, jobs: int) -> float:
    """Return the milliseconds from the call until the task has begun."""
    taken = []
    for _ in range(jobs):
        until(lambda: waiting(redis) == count)
        forget_runs()
        start = time.time()
        enqueue_background_job(NOTE)
        until(runs, pause=0.002)
        taken.append((runs()[0][0] - start) * 1000)
    return statistics.median(taken)


def idle(redis: Redis, count: int, seconds: float) -> tuple[float, float, float]:
    """Return one worker's commands a second, those that it sends, and microseconds of Redis."""
    until(lambda: waiting(redis) == count)
    with measured(redis) as read:
        time.sleep(seconds)
        work = read()
    shares = (work.commands, work.requests, work.processor * 1e6)
    commands, requests, processor = (share / seconds / count for share in shares)
    return commands, requests, processor


def wake_ups(count: int, jobs: int, seconds: float) -> tuple[float, float]:
    """Return how many idle workers wake for one job, and the idle commands with longer waits."""
    with server() as redis, pool(redis, count, idle_wait=CALM):
        woken = []
        for _ in range(jobs):
            until(lambda: waiting(redis) == count)
            with measured(redis) as read:
                job = enqueue_background_job(EMPTY)
                wait_for_job(job.id, 60)
                until(lambda: waiting(redis) == count)
                woken.append(read().calls.get('blpop', 0))  # counted when it has its answer
        return statistics.median(woken), idle(redis, count, seconds)[0]


def early_starts(count: int, jobs: int) -> int:
    """Return how many lower jobs start before the last of a higher queue, which they must not."""
    with server() as redis, pool(redis, count):
        pause_workers()
        forget_runs()
        for queue in ('low', 'default', 'high'):
            enqueue_patiently(NOTE, [{'seconds': 0.005, 'word': queue}] * jobs, job_queue=queue)
        resume_workers()
        until(lambda: len(runs()) == 3 * jobs)
        order = [word for _, word in runs()]
    lower = {'high': ('default', 'low'), 'default': ('low',)}
    ends = {queue: len(order) - order[::-1].index(queue) for queue in lower}
    return sum(word in words for queue, words in lower.items() for word in order[: ends[queue]])


def beside_a_backlog(jobs: int) -> tuple[float, float]:
    """Return the start on a queue with its own worker, alone and beside a long backlog."""
    with server() as redis, pool(redis, 1, 'high'), pool(redis, 1, 'low'):
        alone = median_start(redis, jobs)
        enqueue_patiently(NOTE, [{'seconds': 0.02}] * 1000, job_queue='high')
        beside = median_start(redis, jobs)
        assert redis.llen('rq:queue:high') > 0, 'the backlog was too short'
    return alone, beside


def median_start(redis: Redis, jobs: int) -> float:
    taken = []
    for number in range(jobs):
        start = time.time()
        word = f'low-{number}-{start}'
        enqueue_background_job(NOTE, word=word, job_queue='low')
        until(partial(start_of, word), pause=0.005)
        taken.append((start_of(word) - start) * 1000)
        time.sleep(0.01)
    return statistics.median(taken)


def start_of(word: str) -> float:
    """Return when the run with this word has started, or 0."""
    return {each: moment for moment, each in runs()}.get(word, 0.0)


def report(is_quick: bool) -> None:
    jobs = 500 if is_quick else 2000
    rows = list(_measure_all(jobs, is_quick))
    first = rows[0]
    click.echo(
        f'\n{"workers":18}{"task of 50 ms":>22}{"empty task":>20}{"start":>10}{"idle":>24}'
        f'{"connections":>13}{"memory":>9}{"not once":>10}'
    )
    for row in rows:
        click.echo(
            f'{row.name:18}{row.slow:>12,.0f}/s{row.slow / first.slow:>6.1f} ×'
            f'{row.empty:>10,.0f}/s{row.empty / first.empty:>6.1f} ×{row.start:>7.1f} ms'
            f'{row.idle:>8.1f}/s ({row.requests:.1f}){row.redis:>5.0f} µs{row.connections:>11.1f}'
            f'{row.memory:>7.0f} MB{row.wrong:>10}'
        )
    most = 8 if is_quick else 32
    woken, calm = wake_ups(most, 10, seconds=5 if is_quick else 10)
    click.echo(f'One job wakes {woken:.0f} of {most} idle workers (median).')
    click.echo(f'With JOB_IDLE_WAIT=20 an idle worker costs {calm:.1f} commands a second.')
    early = early_starts(8, 200)
    click.echo(f'Of 600 jobs on three queues {early} started before their turn, with 8 workers.')
    alone, beside = beside_a_backlog(20)
    click.echo(
        f'A worker of its own for a queue: {alone:.1f} ms to start, {beside:.1f} ms beside 1,000 '
        'jobs of another queue.'
    )


def _measure_all(jobs: int, is_quick: bool) -> Iterator[Row]:
    counts: Sequence[int] = (1, 8) if is_quick else (1, 8, 32)
    for count in counts:
        name = '1' if count == 1 else f'{count}, one pool'
        yield measure(name, count, jobs, is_single=count == 1)
    if not is_quick:
        yield measure('32, single', 32, jobs, is_single=True)
