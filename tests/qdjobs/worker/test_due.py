"""How soon jobs that become due at once are run."""

import pytest
from redis import Redis

from libraries.job_manager import enqueue_background_jobs, get_job_statuses
from tests.support.processes import Worker, eventually

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures('light')]

ADD = 'tests.support.tasks.add'
CALM = {'JOB_LEASE': '10'}  # for tests that are not about leases


def test_many_jobs_that_are_due_at_once_do_not_wait_for_each_other(
    connection: Redis, own_worker: Worker
) -> None:
    """A round comes every 20 seconds: with 100 jobs a round, the last would wait for 140."""
    calls = [{'a': number} for number in range(800)]
    jobs = enqueue_background_jobs(ADD, calls, job_delay=1)
    now, _ = connection.time()
    eventually(lambda: connection.time()[0] > now + 2)
    with own_worker(JOB_DUE_INTERVAL='20', JOB_TIDY_INTERVAL='20', **CALM):
        eventually(lambda: connection.zcard('rq:scheduled:default') < 800)
        eventually(lambda: connection.zcard('rq:scheduled:default') == 0)
        ids = [job.id for job in jobs]
        eventually(lambda: {one['status'] for one in get_job_statuses(ids)} == {'finished'})
