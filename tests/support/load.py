"""A Redis with many jobs in it, and what is asked of it."""

from collections.abc import Callable
from typing import Any

from redis import Redis

REGISTRIES = ('scheduled', 'deferred', 'ready', 'wip', 'finished', 'failed', 'canceled')


def commands(connection: Redis, call: Callable[[], Any]) -> dict[str, int]:
    """What the server has executed meanwhile, also inside scripts."""
    connection.config_resetstat()
    call()
    stats: dict[str, dict[str, int]] = connection.info('commandstats')
    return {name.removeprefix('cmdstat_'): row['calls'] for name, row in stats.items()}


def fill(connection: Redis, jobs: int) -> None:
    """Every list and registry with so many entries."""
    for start in range(0, jobs, 10_000):  # Redis must answer within a second
        ids = [f'job-{number}' for number in range(start, min(start + 10_000, jobs))]
        for queue in ('high', 'default', 'low'):
            connection.rpush(f'rq:queue:{queue}', *ids)
            for registry in REGISTRIES:
                connection.zadd(f'rq:{registry}:{queue}', dict.fromkeys(ids, 1e12))
