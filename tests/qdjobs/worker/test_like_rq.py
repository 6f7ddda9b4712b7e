"""What users of RQ's worker rely on, where tests of RQ found that JobWorker differed."""

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job

from qdjobs import JobWorker

pytestmark = pytest.mark.usefixtures('light')


def test_a_queue_that_a_worker_serves_remains_the_caller_s(connection: Redis) -> None:
    queue = Queue('default', connection=connection)
    job = queue.enqueue('tests.support.tasks.add', 1)
    JobWorker([queue])
    assert job not in queue.failed_job_registry
    assert queue.job_class is Job
