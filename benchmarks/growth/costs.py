"""What one job costs Redis: commands, processor time, memory. docs/capacity.md counts with it."""

import click
from redis import Redis

from benchmarks.growth.stage import EMPTY, Work, fill, measured, pool, server, until
from libraries.job_manager import enqueue_background_job, enqueue_background_jobs, get_job_status


def report(is_quick: bool) -> None:
    jobs = 1000 if is_quick else 3000
    with server() as redis:
        enqueue_background_job(EMPTY)  # from now on the server knows the script
        with measured(redis) as read:
            ids = [enqueue_background_job(EMPTY).id for _ in range(jobs)]
            one = read()
        run = run_all(redis, jobs)
        with measured(redis) as read:
            for job_id in ids:
                get_job_status(job_id)
            status = read()
        with measured(redis) as read:
            enqueue_background_jobs(EMPTY, [{}] * 1000)
            batch = read()
    click.echo(f'\n{"one job":36}{"commands":>10}{"Redis":>12}')
    show('enqueue', one, jobs)
    show('enqueue, in a batch of 1,000', batch, 1000)
    show('claim, run and end', run, jobs)
    show('get_job_status', status, jobs)
    whole = (one.processor + run.processor + 2 * status.processor) / jobs
    click.echo(f'{"a job, with two looks at its status":46}{whole * 1e6:>9.0f} µs')
    click.echo(f'One core of Redis is busy with {1 / whole:,.0f} such jobs a second.')
    click.echo('Bytes of a job without arguments and result:')
    for setting in ('4096', '256'):
        waiting, finished = memory_of(jobs, setting)
        click.echo(
            f'  waiting {waiting:,.0f}, finished {finished:,.0f}, stream-node-max-bytes {setting}'
        )


def memory_of(jobs: int, node: str) -> tuple[float, float]:
    """Return the bytes of a job that waits, and of one that has finished."""
    with server() as redis:
        redis.config_set('stream-node-max-bytes', node)
        fill(10)
        run_all(redis, 10)
        before = used(redis)
        fill(jobs)
        waiting = used(redis)
        run_all(redis, jobs + 10)
        return (waiting - before) / jobs, (used(redis) - before) / jobs


def run_all(redis: Redis, jobs: int) -> Work:
    """Return what Redis does until two workers have run all that waits."""
    with measured(redis) as read, pool(redis, 2):
        until(lambda: redis.zcard('rq:finished:default') >= jobs)
        return read()


def used(redis: Redis) -> int:
    return int(redis.info('memory')['used_memory'])


def show(name: str, work: Work, jobs: int) -> None:
    click.echo(f'{name:36}{work.commands / jobs:>10.1f}{work.processor / jobs * 1e6:>9.0f} µs')
