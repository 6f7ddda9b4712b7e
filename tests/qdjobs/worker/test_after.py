"""Jobs after jobs with real workers, which die between the end of one and the start of another."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from qdjobs import cancel_job, enqueue_background_job, enqueue_background_jobs, get_job_status
from qdjobs.client.redis import get_connection
from qdjobs.config import environment_config
from qdjobs.worker.ending import Ending
from qdjobs.worker.lease import claim_job, claim_request, end_run
from tests.support.jobs import done, done_id, lines_of
from tests.support.outages import await_runs, full
from tests.support.processes import Worker, eventually, horse_of
from tests.support.proxy import Proxy

MODULES = 'tests.support.tasks,tests.support.fault_tasks,tests.support.after_tasks'
ADD = 'tests.support.tasks.add'
FAIL = 'tests.support.tasks.fail'
WAIT = 'tests.support.fault_tasks.begin_and_wait'
DESCRIBE = 'tests.support.after_tasks.describe_end'
WRITE = 'tests.support.after_tasks.write_parents'


@pytest.fixture(autouse=True)
def modules(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_TASK_MODULES', MODULES)
    environment_config.cache_clear()


def end_as_a_worker_that_dies(connection: Redis, status: str) -> None:
    """Claim the next job and record its end, and do nothing more."""
    claimed = claim_job(connection, claim_request('dead', 'execution', 30.0, ['default']))
    assert claimed.claim is not None
    moment = '2026-11-25T08:00:00.000000Z'
    ending = Ending(status=status, moment=moment, ended_at=moment, ttl=500)
    ended = end_run(connection, claimed.claim.lease, ending.encode())
    assert (ended.state, ended.has_dependents) == (status, True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('end', 'rule', 'expected'),
    [
        ('finished', 'wait', 'finished'),
        ('failed', 'wait', 'deferred'),
        ('failed', 'run', 'finished'),
        ('failed', 'cancel', 'canceled'),
        ('stopped', 'cancel', 'canceled'),
    ],
)
def test_another_worker_goes_on_where_one_has_died(
    connection: Redis, own_worker: Worker, end: str, rule: Any, expected: str
) -> None:
    enqueue_background_job(ADD, 1, job_id='parent')
    child = enqueue_background_job(ADD, 1, job_after='parent', job_after_failure=rule)
    end_as_a_worker_that_dies(connection, end)
    assert get_job_status(child.id)['status'] == 'deferred'
    with own_worker():
        eventually(lambda: not connection.zcount('rq:pending-dependents', 0, time.time()))
        eventually(lambda: get_job_status(child.id)['status'] == expected)


@pytest.mark.slow
def test_a_parent_that_has_failed_expires_with_what_waits_for_it(
    connection: Redis, own_worker: Worker
) -> None:
    parent = enqueue_background_job(FAIL, job_result_ttl=1)
    connection.hset(parent.key, 'failure_ttl', 1)  # the client's setting is a week
    child = enqueue_background_job(ADD, 1, job_after=parent)
    last = enqueue_background_job(ADD, 1, job_after=child, job_after_failure='cancel')
    with own_worker(JOB_FAILURE_TTL='1'):
        status = done(child)
        assert (status['status'], parent.id in str(status['error'])) == ('canceled', True)
        assert done(last)['status'] == 'canceled'
        eventually(lambda: not connection.exists(parent.key))


def test_what_follows_a_job_survives_the_deaths_of_its_workers(
    own_worker: Worker, begun: Path, gate: Path
) -> None:
    job = enqueue_background_job(WAIT, str(begun), str(gate), job_on_failure=DESCRIBE)
    with own_worker() as worker:
        await_runs(begun, 1)
        os.kill(horse_of(worker.pid), signal.SIGKILL)
        assert done(job)['status'] == 'failed'
        eventually(lambda: get_connection().exists(f'rq:job:{job.id}-on-failure'))
        eventually(lambda: get_job_status(f'{job.id}-on-failure')['status'] == 'finished')
    result = get_job_status(f'{job.id}-on-failure')['result']
    assert result[:2] == [job.id, 'failed']
    assert 'killed by SIGKILL' in result[3]


@pytest.mark.slow
def test_a_job_that_is_stopped_is_followed_by_none(
    connection: Redis, own_worker: Worker, begun: Path, gate: Path
) -> None:
    job = enqueue_background_job(WAIT, str(begun), str(gate), job_on_failure=DESCRIBE)
    child = enqueue_background_job(ADD, 1, job_after=job, job_after_failure='cancel')
    with own_worker():
        await_runs(begun, 1)
        assert cancel_job(job.id) == 'stopping'
        assert done(job)['status'] == 'stopped'
        assert done(child)['status'] == 'canceled'
    assert not connection.exists(f'rq:job:{job.id}-on-failure')


def test_an_end_whose_answer_is_lost_is_followed_once(
    connection: Redis, own_worker: Worker, proxy: Proxy
) -> None:
    job = enqueue_background_job(ADD, 1, job_on_success=DESCRIBE, job_id='the-parent')
    child = enqueue_background_job(ADD, 1, job_after=job)
    proxy.cut_after, proxy.max_cuts = b'successful_job_count', 1
    with own_worker(REDIS_URL=proxy.url, JOB_LEASE='10'):
        assert done(child)['status'] == 'finished'
        eventually(lambda: get_job_status('the-parent-on-success')['status'] == 'finished')
    assert proxy.cuts == 1
    assert connection.zcard('rq:finished:default') == 3
    assert connection.xlen('rq:results:the-parent-on-success') == 1


@pytest.mark.slow
def test_a_full_redis_loses_neither_what_waits_nor_what_follows(
    connection: Redis, own_worker: Worker, begun: Path, gate: Path
) -> None:
    with own_worker():
        job = enqueue_background_job(WAIT, str(begun), str(gate), job_on_success=DESCRIBE)
        child = enqueue_background_job(ADD, 1, job_after=job)
        await_runs(begun, 1)
        with full(connection):
            gate.touch()
            assert done(job)['status'] == 'finished'
        assert done(child)['status'] == 'finished'
        eventually(lambda: get_job_status(f'{job.id}-on-success')['status'] == 'finished')


@pytest.mark.slow
def test_an_end_while_what_follows_the_last_one_runs_is_followed_too(own_worker: Worker) -> None:
    tell = 'tests.support.after_tasks.tell_late'
    with own_worker(JOB_LEASE='10'), own_worker(JOB_LEASE='10'):
        job = enqueue_background_job(ADD, 1, job_on_success=tell)
        eventually(lambda: get_connection().exists(f'rq:job:{job.id}-on-success-2'))
        assert done_id(f'{job.id}-on-success-2')['result'] == 4
        assert done_id(f'{job.id}-on-success')['result'] == 3


@pytest.mark.slow
def test_a_fan_out_has_one_summary(own_worker: Worker, tmp_path: Path) -> None:
    lines = tmp_path / 'lines'
    with own_worker(JOB_LEASE='10'), own_worker(JOB_LEASE='10'):
        files = enqueue_background_jobs(ADD, [{'a': number} for number in range(1000)])
        summary = enqueue_background_job(WRITE, str(lines), 'ran', job_after=files)
        assert done(summary)['status'] == 'finished'
    assert lines_of(lines) == ['ran', '1000']
