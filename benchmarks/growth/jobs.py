"""10, 10⁴ and 10⁶ waiting jobs; 10⁵ that are due, or have failed, at once."""

import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from uuid import uuid4

import click
import msgspec
from redis import Redis
from rq.utils import utcformat

from benchmarks.growth.stage import (
    BATCH,
    EMPTY,
    NOTE,
    enqueue_patiently,
    fill,
    measured,
    pool,
    server,
    until,
)
from benchmarks.worker import QUEUES, RQ
from libraries.job_manager import (
    cancel_job,
    delete_job,
    enqueue_background_job,
    get_job_status,
    list_jobs,
    retry_job,
)
from qdjobs.client.ages import Wanted, list_by_age
from qdjobs.client.listing import read_ids, registry_key
from qdjobs.client.status import STATUSES
from qdjobs.monitoring.counts import read_counts
from qdjobs.monitoring.doctor import examine
from qdjobs.monitoring.health import read_health
from qdjobs.worker import ending, lease

FLASK = str(Path(RQ).with_name('flask'))
STEPS = 1000  # scripts in one pipeline
Operation = Callable[[], object]


def operations(redis: Redis) -> dict[str, tuple[Operation, int]]:
    """Return what is measured, and how often."""
    everything = Wanted(STATUSES, QUEUES)
    middle = redis.llen('rq:queue:default') // 2
    waiting = cycle(read_ids(registry_key('queued', 'default'), middle, middle + 200))
    ended = iter([fail_one(redis) for _ in range(60)])
    return {
        'get_job_status': (lambda: get_job_status(next(waiting)), 100),
        'list_jobs()': (list_jobs, 20),
        "list_jobs('queued')": (lambda: list_jobs('queued'), 20),
        "list_jobs('queued', 'default')": (lambda: list_jobs('queued', 'default'), 20),
        "list_jobs('failed')": (lambda: list_jobs('failed'), 20),
        'enqueue': (lambda: enqueue_background_job(EMPTY), 50),
        'claim': (lambda: claim(redis), 5),
        'cancel_job': (lambda: cancel_job(next(waiting)), 20),
        'retry_job': (lambda: retry_job(next(ended)), 20),
        'delete_job': (lambda: delete_job(next(ended)), 20),
        '/metrics': (lambda: (read_health(), read_counts()), 20),
        'flask jobs doctor': (lambda: list(examine(command_line)), 10),
        'flask jobs list': (lambda: list_by_age(everything, 50, oldest_first=False), 5),
    }


def command_line(*words: str) -> str:
    return ' '.join(words)


def claim(redis: Redis) -> lease.Claim:
    found = lease.claim_job(redis, request()).claim
    assert found is not None
    return found


def request() -> lease.ClaimRequest:
    return lease.claim_request('benchmark', uuid4().hex, 3600, QUEUES, is_due_check=False)


def failure() -> tuple[bytes, bytes]:
    now, moment = time.time(), utcformat(datetime.now(UTC))
    return ending.Ending(
        status='failed',
        moment=moment,
        ended_at=moment,
        kind=2,
        field='exc_string',
        value=lease.pack_error('ValueError: a benchmark'),
        execution_started_at=now - 0.001,
        execution_ended_at=now,
        counter='failed_job_count',
    ).encode()


def fail_one(redis: Redis) -> str:
    enqueue_background_job(EMPTY, job_queue='high')
    found = claim(redis)
    lease.end_run(redis, found.lease, failure())
    return found.lease.job_id


def fail_all(redis: Redis, jobs: int) -> None:
    """Fail the waiting jobs by the scripts of a worker, many of them in one round trip."""
    redis.script_load(lease._end._source)
    ids = read_ids(registry_key('queued', 'default'), 0, jobs - 1)
    current, failed = claim(redis).lease.execution_id, failure()
    for start in range(0, jobs, STEPS):
        with redis.pipeline(transaction=False) as pipe:
            for job_id in ids[start : start + STEPS]:
                following = request()
                packed = msgspec.msgpack.encode(following)
                arguments = [job_id, current, 'benchmark', 'default', *failed, '', packed]
                lease._end(pipe, arguments)
                current = following.execution
            pipe.execute()


@dataclass
class Costs:
    milliseconds: float
    redis: float  # microseconds of its processor
    commands: float


def measure_operations(redis: Redis) -> dict[str, Costs]:
    found = {}
    for name, (call, repeats) in operations(redis).items():
        call()
        taken = []
        with measured(redis) as read:
            for _ in range(repeats):
                start = time.perf_counter()
                call()
                taken.append((time.perf_counter() - start) * 1000)
            work = read()
        found[name] = Costs(
            statistics.median(taken), work.processor / repeats * 1e6, work.commands / repeats
        )
    return found


def grow(sizes: list[int]) -> None:
    with server() as redis:
        columns = []
        for size in sizes:
            already = redis.llen('rq:queue:default')
            memory, start = redis.info('memory')['used_memory'], time.perf_counter()
            fill(size - already)
            seconds = time.perf_counter() - start
            used = (redis.info('memory')['used_memory'] - memory) / (size - already)
            columns.append(measure_operations(redis))
            redis.ltrim('rq:queue:default', 0, size - 1)
    first, last = columns[0], columns[-1]
    heads = ''.join(f'{size:>13,}' for size in sizes)
    click.echo(f'\n{"waiting jobs":32}{heads}{"":>9}{"Redis, first and last":>25}{"commands":>10}')
    for name in first:
        times = ''.join(f'{column[name].milliseconds:>10.2f} ms' for column in columns)
        ratio = last[name].milliseconds / first[name].milliseconds
        click.echo(
            f'{name:32}{times}{ratio:>7.1f} ×'
            f'{first[name].redis:>12,.0f}{last[name].redis:>10,.0f} µs'
            f'{last[name].commands:>10,.0f}'
        )
    click.echo(f'Filled in batches of {BATCH:,}: {(size - already) / seconds:,.0f} jobs/s.')
    click.echo(f'A waiting job without arguments takes {used:,.0f} bytes.')


@contextmanager
def bystander(redis: Redis) -> Iterator[list[float]]:
    """Yield a list: of how long another client waits for Redis, in milliseconds."""
    waits: list[float] = []
    over = threading.Event()

    def look() -> None:
        with redis.client() as own:
            while not over.wait(0.001):
                start = time.perf_counter()
                own.ping()
                waits.append((time.perf_counter() - start) * 1000)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield waits
    finally:
        over.set()
        thread.join()


def watch(redis: Redis, what: str, call: Operation) -> None:
    """Show how long a call takes, and how long Redis keeps others waiting meanwhile."""
    redis.config_set('slowlog-log-slower-than', 1000)
    redis.slowlog_reset()
    with bystander(redis) as waits:
        start = time.perf_counter()
        call()
        seconds = time.perf_counter() - start
    longest = max((each['duration'] for each in redis.slowlog_get(1000)), default=0) / 1000
    click.echo(
        f'{what:44}{seconds:>8.2f} s{longest:>12.0f} ms{statistics.median(waits):>10.1f} ms'
        f'{max(waits):>9.0f} ms'
    )


def be_due(jobs: int) -> None:
    with server() as redis:
        fill(jobs, job_delay=3600)
        redis.zunionstore('due', {'rq:scheduled:default': 0.5})
        redis.delete('rq:scheduled:default')
        with pool(redis, 2):

            def enqueue_all() -> None:
                redis.rename('due', 'rq:scheduled:default')
                until(lambda: not redis.exists('rq:scheduled:default'))

            # The workers run jobs meanwhile.
            watch(redis, f'{jobs:,} due: all queued', enqueue_all)


def fail(jobs: int) -> None:
    retried = jobs // 10
    others = jobs - retried
    retry_all = [FLASK, 'jobs', 'retry', '--all', '--task', NOTE, '--yes']
    with server() as redis:
        watch(redis, f'{others:,} enqueued, {BATCH:,} at once', lambda: fill(others))
        fill(retried, NOTE)
        watch(redis, '5,000 enqueued at once', lambda: enqueue_patiently(EMPTY, [{}] * 5000))
        watch(redis, f'{jobs:,} failed', lambda: fail_all(redis, jobs))
        known = operations(redis)
        for name in ("list_jobs('failed')", '/metrics', 'flask jobs doctor', 'flask jobs list'):
            watch(redis, f'then {name}', known[name][0])
        watch(redis, f'then {retried:,} retried by flask jobs', lambda: run_command(retry_all))


def run_command(command: list[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def expire(jobs: int) -> None:
    with server() as redis:
        for start in range(1, jobs, BATCH):
            entries = {f'job-{number}': number for number in range(start, start + BATCH)}
            redis.zadd('rq:finished:default', entries)

        def tidy() -> None:
            while not lease.remove_expired(redis, QUEUES, 10_000):
                pass

        watch(redis, f'{jobs:,} expired in a registry: removed', tidy)


def report(is_quick: bool) -> None:
    grow([10, 1000, 10_000] if is_quick else [10, 10_000, 1_000_000])
    jobs = 10_000 if is_quick else 100_000
    click.echo(
        f'\n{"at once":44}{"whole":>10}{"longest step":>15}{"others wait":>13}{"at most":>12}'
    )
    for part in (be_due, fail, expire):
        part(jobs)
