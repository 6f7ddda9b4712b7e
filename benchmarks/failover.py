"""Fail-overs of a primary with two replicas and three Sentinels, with each JOB_WAIT_REPLICAS.

`python -m benchmarks.failover` takes about eighteen minutes, `--rounds 1` five. 4 workers run the
jobs that 2 processes enqueue. Each round has one fail-over of each kind in
tests/faults/failovers.py.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from qdjobs import enqueue_background_job
from qdjobs.config import environment_config
from tests.faults.failovers import (
    ENVIRONMENT,
    FAULTS,
    PROTECTED_SERVER,
    Losses,
    run_failovers,
)
from tests.support.sentinels import Service, running_service

ENQUEUES = 500  # that are timed, in each of REPEATS turns
REPEATS = 5


SETTINGS: tuple[dict[str, str], ...] = (
    {},
    {'JOB_WAIT_REPLICAS': '1'},
    {'JOB_WAIT_REPLICAS': '2'},
)


@click.command()
@click.option('--rounds', default=4, show_default=True, help='Of five fail-overs each.')
def main(rounds: int) -> None:
    """Print what is lost, how long nothing is accepted, and what an enqueue costs."""
    storms = [
        _storm(rounds, PROTECTED_SERVER if environment else {}, environment)
        for environment in SETTINGS
    ]
    click.echo('| fail-over | lost without | with `JOB_WAIT_REPLICAS=1` | with 2, all |')
    click.echo('| --- | ---: | ---: | ---: |')
    for fault in FAULTS:
        _show_row(fault.__name__.replace('_', ' '), [s.lost[fault.__name__] for s in storms])
    _show_row('of accepted jobs', [storm.accepted for storm in storms])
    _show_row('refused, but there', [storm.doubled for storm in storms])
    for name, storm in zip(('Without', 'With 1', 'With 2'), storms, strict=True):
        click.echo(
            f'{name}: a job is accepted again after {statistics.median(storm.seconds):.1f} s, at '
            f'most {max(storm.seconds):.1f} s, in {len(storm.seconds)} fail-overs.'
        )
    click.echo(_cost())


def _show_row(name: str, numbers: Sequence[int]) -> None:
    click.echo(f'| {name} | {" | ".join(f"{number:,}" for number in numbers)} |')


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
            for name, environment in zip(times, SETTINGS, strict=False):
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
