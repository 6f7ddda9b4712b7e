"""Fail-overs of a primary with two replicas and three Sentinels.

With JOB_WAIT_REPLICAS and without.

`python -m benchmarks.failover` takes about twelve minutes; `--rounds 1` two. 4 workers run the jobs
that 2 processes enqueue. Each round kills the primary, stops it, and cuts it off from its replicas
for half a second before it kills it.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import click

from qdjobs import enqueue_background_job
from qdjobs.config import environment_config
from tests.faults.failovers import (
    ENVIRONMENT,
    FAULTS,
    PROTECTED,
    PROTECTED_SERVER,
    Losses,
    run_failovers,
)
from tests.support.sentinels import Service, running_service

ENQUEUES = 500  # that are timed, in each of REPEATS turns
REPEATS = 5


@click.command()
@click.option('--rounds', default=7, show_default=True, help='Of three fail-overs each.')
def main(rounds: int) -> None:
    """Print what is lost, how long nothing is accepted, and what an enqueue costs."""
    plain = _storm(rounds, {}, {})
    protected = _storm(rounds, PROTECTED_SERVER, PROTECTED)
    click.echo('| fail-over | lost without | lost with JOB_WAIT_REPLICAS=1 |')
    click.echo('| --- | ---: | ---: |')
    for fault in FAULTS:
        name = fault.__name__.replace('_', ' ')
        click.echo(f'| {name} | {plain.lost[fault.__name__]} | {protected.lost[fault.__name__]} |')
    click.echo(f'| of accepted jobs | {plain.accepted:,} | {protected.accepted:,} |')
    seconds = [*plain.seconds, *protected.seconds]
    click.echo(
        f'\nUntil a job is accepted again: {statistics.median(seconds):.1f} s, at most '
        f'{max(seconds):.1f} s, in {len(seconds)} fail-overs.'
    )
    click.echo(_cost())


def _storm(rounds: int, server: Mapping[str, str], environment: Mapping[str, str]) -> Losses:
    with (
        tempfile.TemporaryDirectory() as folder,
        running_service(Path(folder), dict(server)) as service,
    ):
        _use(service, environment)
        return run_failovers(service, Path(folder), FAULTS * rounds, dict(environment))


def _use(service: Service, environment: Mapping[str, str]) -> None:
    os.environ.update(ENVIRONMENT | {'REDIS_URL': service.url})
    os.environ.pop('JOB_WAIT_REPLICAS', None)
    os.environ.update(environment)
    environment_config.cache_clear()


def _cost() -> str:
    """Return what one enqueue costs with and without, in turn on the same servers."""
    times: dict[str, list[float]] = {'without': [], 'with': []}
    with tempfile.TemporaryDirectory() as folder, running_service(Path(folder)) as service:
        for _ in range(REPEATS):
            for name, environment in (('without', {}), ('with', PROTECTED)):
                _use(service, environment)
                times[name].append(_seconds_per_enqueue())
    without, protected = (statistics.median(each) for each in times.values())
    return (
        f'An enqueue takes {protected / without:.2f} times as long with it: '
        f'{protected * 1e6:,.0f} µs beside {without * 1e6:,.0f} µs.'
    )


def _seconds_per_enqueue() -> float:
    begin = time.perf_counter()
    for _ in range(ENQUEUES):
        enqueue_background_job('tests.support.tasks.sleep', 0.001)
    return (time.perf_counter() - begin) / ENQUEUES


if __name__ == '__main__':
    main()
