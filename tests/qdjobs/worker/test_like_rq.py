"""What users of RQ's worker rely on, where tests of RQ found that JobWorker differed."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job

from libraries.job_manager import enqueue_background_job, get_job_status
from qdjobs import JobWorker
from tests.support.processes import QUICK, Worker, eventually

WAIT = 'tests.support.tasks.touch_and_wait'
BEGIN = 'tests.support.worker_tasks.begin_and_sleep'
CALM = {'JOB_LEASE': '10'}  # for tests that are not about leases

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('light')]


def test_a_queue_that_a_worker_serves_remains_the_caller_s(connection: Redis) -> None:
    queue = Queue('default', connection=connection)
    job = queue.enqueue('tests.support.tasks.add', 1)
    JobWorker([queue])
    assert job not in queue.failed_job_registry
    assert queue.job_class is Job


def test_a_busy_worker_shows_when_it_was_asked_to_stop(
    connection: Redis, own_worker: Worker, begun: Path, gate: Path
) -> None:
    # No heartbeat is due while the test waits.
    with own_worker('--name', 'w', JOB_HEARTBEAT_INTERVAL='20', **CALM) as process:
        enqueue_background_job(WAIT, str(begun), str(gate))
        eventually(begun.exists)
        worker = JobWorker.find_by_key('rq:worker:w', connection)
        assert worker is not None
        assert worker.shutdown_requested_date is None
        process.terminate()
        eventually(lambda: worker.shutdown_requested_date)
        gate.touch()
        assert process.wait(60) == 0


def was_asked_to_stop(connection: Redis, name: str) -> bool:
    return bool(connection.hexists(f'rq:worker:{name}', 'shutdown_requested_date'))


def test_a_second_sigterm_ends_the_program_around_the_worker_too(
    connection: Redis, redis_url: str, begun: Path
) -> None:
    program = (
        'from redis import Redis; from qdjobs import JobWorker; '
        f'JobWorker("default", name="program", connection=Redis.from_url({redis_url!r})).work(); '
        'print("goes on")'
    )
    environment = os.environ | QUICK | CALM
    command = [sys.executable, '-c', program]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            job = enqueue_background_job(BEGIN, str(begun), 600.0)
            eventually(begun.exists)
            process.terminate()
            eventually(partial(was_asked_to_stop, connection, 'program'))
            time.sleep(1.1)  # a signal in the same second counts as the same
            process.terminate()
            assert 'goes on' not in process.communicate(timeout=60)[0]
        finally:
            process.kill()
    assert process.returncode == 0
    assert get_job_status(job.id)['status'] == 'queued'


def test_the_log_says_why_a_worker_ends_after_max_jobs(own_worker: Worker, tmp_path: Path) -> None:
    enqueue_background_job('tests.support.tasks.add', 1)
    with own_worker('--max-jobs', '1', **CALM) as process:
        assert process.wait(60) == 0
    assert 'finished executing 1 jobs, quitting' in (tmp_path / 'worker.log').read_text()


def test_a_queue_class_with_keys_of_its_own_is_refused(own_worker: Worker, tmp_path: Path) -> None:
    elsewhere = 'tests.support.worker_tasks.QueueElsewhere'
    with own_worker('--queue-class', elsewhere, **CALM) as process:
        assert process.wait(60) == 1
    assert 'serves no queue under elsewhere:high' in (tmp_path / 'worker.log').read_text()


def test_a_new_worker_cuts_no_connection_that_a_thread_uses(connection: Redis) -> None:
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(connection.blpop, 'nothing', 50)
        eventually(lambda: any('b' in each['flags'] for each in connection.client_list()))
        JobWorker('default', connection=connection)
        connection.rpush('nothing', 'sent')
        assert waiting.result() == (b'nothing', b'sent')
