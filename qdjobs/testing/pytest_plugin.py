"""Fixtures for pytest, which finds this module once qdjobs is installed."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from qdjobs.testing import RecordedJobs


@pytest.fixture
def recorded_jobs() -> 'Iterator[RecordedJobs]':
    """The jobs that this test enqueues; none runs, and nothing reaches Redis."""
    from qdjobs.testing import recorded_jobs

    with recorded_jobs() as jobs:
        yield jobs


@pytest.fixture
def eager_jobs() -> 'Iterator[RecordedJobs]':
    """The jobs that this test enqueues; each runs at once, and nothing reaches Redis."""
    from qdjobs.testing import eager_jobs

    with eager_jobs() as jobs:
        yield jobs


@pytest.fixture(scope='session')
def embedded_redis_server() -> Iterator[str]:
    """The URL of a Valkey of this session. Needs the extra `server`."""
    from qdjobs.server import embedded_redis

    with embedded_redis() as url:
        yield url


@pytest.fixture
def embedded_redis(embedded_redis_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty Valkey, which REDIS_URL names during this test.

    Jobs reach no other Redis meanwhile: not the one that an application of before may have.
    """
    from redis import Redis

    from qdjobs.client import redis
    from qdjobs.config import environment_config, without_applications

    def connect(url: str) -> Redis:
        if url != embedded_redis_server:
            raise RuntimeError(
                'The application was made before `embedded_redis` has set REDIS_URL: use that '
                'fixture before the one that makes the application. For an application of a '
                'longer scope, set its REDIS_URL to the fixture `embedded_redis_server`.'
            )
        return original(url)

    original = redis.connect
    monkeypatch.setattr(redis, 'connect', connect)

    with Redis.from_url(embedded_redis_server) as connection:
        connection.flushall()
    monkeypatch.delenv('RQ_REDIS_URL', raising=False)
    monkeypatch.setenv('REDIS_URL', embedded_redis_server)
    environment_config.cache_clear()
    with without_applications():  # those of other tests have another URL
        yield embedded_redis_server
    environment_config.cache_clear()
