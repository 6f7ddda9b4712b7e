"""Measure what counting jobs adds to an empty one: with it and without, in one run.

Run with `make bench`. What a whole job takes varies by more than counting adds, so Redis itself
measures the two scripts of a job. Beside that, JobWorkers with and without counting take turns,
each with an empty server of its own. The figures are medians, of the difference too.
"""

import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import patch
from uuid import uuid4

import click
import msgspec
from redis import Redis
from rq.job import Job
from rq.suspension import resume, suspend
from rq.utils import utcformat

from benchmarks.worker import QUEUES, RQ, running, use
from libraries.job_manager import enqueue_background_job, enqueue_background_jobs
from qdjobs.client.redis import LUA, Script
from qdjobs.server import embedded_redis, free_port
from qdjobs.worker import lease
from qdjobs.worker.ending import Ending

TASK = 'benchmarks.bench_tasks.empty'
SCRIPTED = 50  # jobs of one round of scripts
BACKLOG = 5000  # jobs of one round of a worker
SIDES = {
    'counted': (LUA / 'count.lua', 'qdjobs.worker.JobWorker'),
    'not counted': (Path(__file__).with_name('uncounted.lua'), 'benchmarks.uncounted.JobWorker'),
}


def measure_scripts(redis: Redis, count: Path) -> tuple[float, float]:
    """Return the microseconds that Redis takes to enqueue a job, and to end it and claim the next.

    The jobs go through Redis as they do with a worker, but each script runs for all of them in a
    row, so that little else of this machine is measured.
    """
    with patch('qdjobs.client.enqueue._script', return_value=[0]) as script:
        ids = [enqueue_background_job(TASK).id for _ in range(SCRIPTED)]
    calls = [call.args[1] for call in script.call_args_list]
    with patch('qdjobs.worker.lease.COUNT', count):
        end = lease._script('end', 'run', 'claim_next')
    enqueueing = script_time(redis, Script(LUA / 'enqueue.lua', count), calls)
    requests = [request() for _ in ids]
    lease.claim_job(redis, requests[0])
    now = time.time()
    moment = utcformat(datetime.now(UTC))
    ending = Ending(
        status='finished',
        moment=moment,
        ended_at=moment,
        kind=1,
        enqueued_at=now - 1,
        execution_started_at=now - 0.0001,
        execution_ended_at=now,
        counter='successful_job_count',
        ttl=86_400,
    ).encode()
    calls = [
        [job_id, by.execution, by.worker, 'default', *ending, '', msgspec.msgpack.encode(following)]
        for job_id, by, following in zip(ids, requests, [*requests[1:], request()], strict=True)
    ]
    return enqueueing, script_time(redis, end, calls)


def request() -> lease.ClaimRequest:
    return lease.claim_request('benchmark', uuid4().hex, 30, QUEUES, is_due_check=False)


def script_time(redis: Redis, script: Script, calls: list[list[Any]]) -> float:
    """Return the microseconds that one call takes."""
    redis.script_load(script._source)
    redis.config_resetstat()
    with redis.pipeline(transaction=False) as pipe:
        for call in calls:
            script(pipe, call)
        pipe.execute()
    return float(redis.info('commandstats')['cmdstat_evalsha']['usec_per_call'])


def measure_worker(worker: str) -> float:
    """Return the microseconds that a worker takes for each job of a backlog."""
    with embedded_redis(free_port()) as url, Redis.from_url(url) as redis:
        use(url)
        command = [RQ, 'worker', '--quiet', '--worker-class', worker, *QUEUES]
        with running(command, url):
            wait_for(redis, enqueue_background_job(TASK))
            suspend(redis)
            jobs = enqueue_background_jobs(TASK, [{}] * BACKLOG)
            start = time.perf_counter()
            resume(redis)
            wait_for(redis, jobs[-1])
            return (time.perf_counter() - start) / BACKLOG * 1e6


def wait_for(redis: Redis, job: Job) -> None:
    while redis.hget(job.key, 'status') != b'finished':
        time.sleep(0.01)


@click.command()
@click.option('--rounds', default=5, show_default=True, type=click.IntRange(min=1))
def main(rounds: int) -> None:
    whole: list[list[float]] = []  # of each round, what each side takes
    enqueueing: list[list[float]] = []
    ending: list[list[float]] = []
    for _ in range(rounds):
        whole.append([measure_worker(worker) for _, worker in SIDES.values()])
    with embedded_redis(free_port()) as url, Redis.from_url(url) as redis:
        use(url)
        for _ in range(rounds * 40):
            scripts = [measure_scripts(redis, count) for count, _ in SIDES.values()]
            enqueueing.append([script[0] for script in scripts])
            ending.append([script[1] for script in scripts])
    columns = [summary(rows) for rows in (whole, enqueueing, ending)]
    click.echo(f'\n{"An empty job":20}{"whole":>12}{"enqueue script":>18}{"end script":>14}')
    for name, *row in zip((*SIDES, 'difference'), *columns, strict=True):
        click.echo(f'  {name:18}{row[0]:>9,.0f} µs{row[1]:>15,.1f} µs{row[2]:>11,.1f} µs')
    share = (columns[1][2] + columns[2][2]) / columns[0][1]
    click.echo(f'  Both scripts take longer by {share:.1%} of the whole (goal: < 3 %).')


def summary(rounds: list[list[float]]) -> list[float]:
    """Return the median of each side, and that of the difference within a round."""
    sides = [statistics.median(side) for side in zip(*rounds, strict=True)]
    return [*sides, statistics.median(counted - base for counted, base in rounds)]


if __name__ == '__main__':
    main()
