"""Workers die while jobs wait for others, and each that may run does once these have ended."""

import os
import time
from pathlib import Path

import pytest

from qdjobs import enqueue_background_job, enqueue_background_jobs, get_job_statuses
from qdjobs.config import environment_config
from tests.faults.storm import SLEEP, Storm, drain
from tests.support.jobs import done
from tests.support.outages import await_runs
from tests.support.processes import JOB_WORKER, QUICK, Worker, kill_group

SECONDS = float(os.environ.get('FAULT_SECONDS', '6'))
WEATHER = QUICK | {
    'JOB_LEASE': '1',
    'JOB_MAX_WORKER_DEATHS': '1000',
    'JOB_TASK_MODULES': 'tests.support.tasks,tests.support.fault_tasks,tests.support.after_tasks',
}

WAIT = 'tests.support.fault_tasks.begin_and_wait'

pytestmark = [pytest.mark.faults, pytest.mark.timeout(SECONDS * 3 + 300)]


class Family:
    """Ten parents, one of which fails; a child for each rule, and one that follows all."""

    def __init__(self) -> None:
        good = enqueue_background_jobs(SLEEP, [{'seconds': 0.002}] * 9)
        bad = enqueue_background_job('tests.support.tasks.fail')
        self.finishing = [job.id for job in good]
        summaries = [
            enqueue_background_job(
                'tests.support.after_tasks.summarise',
                job_after=[*good, bad],
                job_after_failure=rule,
                job_on_success='tests.support.after_tasks.describe_end',
            )
            for rule in ('wait', 'run', 'cancel')
        ]
        last = enqueue_background_job(SLEEP, 0.002, job_after=good)
        self.waiting, self.running, self.canceled = (job.id for job in summaries)
        self.finishing += [self.running, f'{self.running}-on-success', last.id]


def strike_for(storm: Storm, seconds: float, victims: tuple[str, ...]) -> list[Family]:
    families = [Family() for _ in range(5)]
    end = time.monotonic() + seconds
    while time.monotonic() < end or storm.hits < 3:
        families += [Family() for _ in range(5)]
        storm.strike(storm.chance.choice(victims))
    return families


@pytest.mark.slow
@pytest.mark.parametrize('seconds', [0, pytest.param(SECONDS, marks=pytest.mark.slow)])
def test_each_child_runs_waits_or_is_cancelled(tmp_path: Path, seconds: float) -> None:
    with Storm(JOB_WORKER, tmp_path, WEATHER, size=2) as storm:
        families = strike_for(storm, seconds, ('worker', 'group', 'terminate', 'deploy'))
        # What follows a job exists once that has finished.
        drain([family.running for family in families], storm)
        finishing = [job_id for family in families for job_id in family.finishing]
        assert drain(finishing, storm) == {'finished': len(finishing)}
        drain_cancelled = [family.canceled for family in families]
        deadline = time.monotonic() + 60
        while states(drain_cancelled) != {'canceled'} and time.monotonic() < deadline:
            time.sleep(0.3)
    assert states(drain_cancelled) == {'canceled'}
    assert states([family.waiting for family in families]) == {'deferred'}
    for status in get_job_statuses([family.running for family in families]):
        assert sorted(parent[1] for parent in status['result']) == ['failed', *['finished'] * 9]


def states(ids: list[str]) -> set[str]:
    return {status['status'] for status in get_job_statuses(ids)}


@pytest.mark.slow
@pytest.mark.parametrize(
    ('worker_class', 'states_after'),
    [
        (JOB_WORKER, ['finished', 'finished']),
        pytest.param('rq.Worker', ['started', 'deferred'], marks=pytest.mark.upstream),
    ],
)
def test_a_worker_that_is_killed_under_a_parent(
    rq_worker: Worker, tmp_path: Path, worker_class: str, states_after: list[str]
) -> None:
    """The control, a stock worker, leaves the child to wait for a job that nobody runs."""
    begun, gate = tmp_path / 'begun', tmp_path / 'gate'
    parent = enqueue_background_job(WAIT, str(begun), str(gate))
    child = enqueue_background_job(SLEEP, 0.002, job_after=parent)
    with rq_worker('--worker-class', worker_class, **WEATHER) as worker:
        await_runs(begun, 1)
        kill_group(worker.pid)
    gate.touch()
    with rq_worker('--worker-class', worker_class, **WEATHER) as worker:
        if worker_class == JOB_WORKER:
            done(child)
        other = enqueue_background_job(SLEEP, 0.002)
        assert done(other)['status'] == 'finished'
    statuses = get_job_statuses([parent.id, child.id])
    assert [status['status'] for status in statuses] == states_after


@pytest.fixture(autouse=True)
def modules(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_TASK_MODULES', WEATHER['JOB_TASK_MODULES'])
    environment_config.cache_clear()
