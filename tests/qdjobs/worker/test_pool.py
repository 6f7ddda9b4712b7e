"""RQ's pool of workers with JobWorkers in it, and many of them on one Redis."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from redis import Redis

from libraries.job_manager import enqueue_background_job, enqueue_background_jobs
from tests.support.jobs import done, lines_of
from tests.support.load import commands
from tests.support.processes import (
    JOB_WORKER,
    QUICK,
    ROOT,
    alive,
    eventually,
    kill_group,
    session_of,
)

pytestmark = pytest.mark.usefixtures('light')

ADD = 'tests.support.tasks.add'
APPEND = 'tests.support.tasks.append'
MANY = 32

Pool = Callable[..., AbstractContextManager[subprocess.Popen[bytes]]]


@pytest.fixture
def pool(tmp_path: Path, connection: Redis) -> Pool:
    """`rq worker-pool` with so many JobWorkers, once all of them are idle."""

    @contextmanager
    def run(
        workers: int, before: tuple[str, ...] = (), **environment: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        rq = str(Path(sys.executable).with_name('rq'))
        command = [*before, rq, 'worker-pool', '-n', str(workers)]
        with (tmp_path / 'pool.log').open('wb') as output:
            process = subprocess.Popen(
                [*command, '--worker-class', JOB_WORKER, 'high', 'default', 'low'],
                cwd=ROOT,
                env=os.environ | environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            eventually(lambda: count_waiting(connection) == workers, timeout=240)
            yield process
        finally:
            kill_group(process.pid)
            process.wait()

    return run


def count_waiting(connection: Redis) -> int:
    """The workers that wait for a wake-up."""
    return int(connection.info('clients')['blocked_clients'])


def workers_of(pool: subprocess.Popen[bytes]) -> set[int]:
    children = Path(f'/proc/{pool.pid}/task/{pool.pid}/children').read_text()
    return {pid for pid in map(int, children.split()) if alive(pid)}


@pytest.mark.slow
def test_a_pool_replaces_a_killed_worker_and_stops_at_a_sigterm(
    connection: Redis, pool: Pool
) -> None:
    with pool(2, **QUICK) as process:
        before = workers_of(process)
        killed = min(before)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: len(workers_of(process)) == 2 and killed not in workers_of(process))
        eventually(lambda: count_waiting(connection) == 2)
        assert done(enqueue_background_job(ADD, 1))['result'] == 3
        process.terminate()
        assert process.wait(60) == 0
        assert session_of(process.pid) == []


@pytest.mark.slow
def test_a_pool_that_a_script_starts_in_the_background_stops_its_workers(pool: Pool) -> None:
    """With SIGINT ignored, as a shell without job control starts what `&` follows."""
    ignoring = ('sh', '-c', 'trap \'\' INT; exec "$@"', 'sh')
    with pool(1, before=ignoring, **QUICK) as process:
        process.terminate()
        assert process.wait(60) == 0
        assert session_of(process.pid) == []


@pytest.mark.slow
def test_many_workers_run_each_job_once_and_one_job_wakes_few_of_them(
    connection: Redis, pool: Pool, tmp_path: Path
) -> None:
    ran = tmp_path / 'ran'
    names = [f'job-{number}' for number in range(20 * MANY)]
    waits = dict.fromkeys(('JOB_IDLE_WAIT', 'JOB_HEARTBEAT_INTERVAL', 'JOB_TIDY_INTERVAL'), '20')
    with pool(MANY, **waits):
        calls = [{'path': str(ran), 'line': name} for name in names]
        enqueue_background_jobs(APPEND, calls)
        eventually(lambda: connection.zcard('rq:finished:default') == len(names))
        eventually(lambda: count_waiting(connection) == MANY)
        assert sorted(lines_of(ran)) == sorted(names)
        woken = [count_woken(connection) for _ in range(3)]
    assert min(woken) <= 2, woken  # nothing else was due meanwhile


def count_woken(connection: Redis) -> int:
    """How many workers wait anew once a job has finished."""

    def run_one() -> None:
        done(enqueue_background_job(ADD, 1))
        eventually(lambda: count_waiting(connection) == MANY)

    return commands(connection, run_one)['blpop']  # counted with its answer
