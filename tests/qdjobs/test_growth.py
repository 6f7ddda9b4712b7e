"""What an operation costs does not depend on how many jobs wait.

The tests of the doctor and of the metrics show that for these.
"""

from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from redis import Redis

from libraries.job_manager import (
    cancel_job,
    delete_job,
    enqueue_background_job,
    enqueue_background_jobs,
    get_job_status,
    list_jobs,
    retry_job,
)
from qdjobs.client.listing import list_jobs_page
from qdjobs.config import get_config
from qdjobs.worker import ending
from qdjobs.worker.lease import Claim, Claimed, claim_job, claim_request, end_run
from tests.support.load import commands

ADD = 'tests.support.tasks.add'
QUEUES = ('high', 'default', 'low')
FEW, MANY = 20, 5_000
PAGE = 5


def claim(connection: Redis, lease: float = 60) -> Claimed:
    return claim_job(connection, claim_request('worker', uuid4().hex, lease, get_config().queues))


def canceled() -> str:
    job_id = enqueue_background_job(ADD, 1, job_queue='high').id
    cancel_job(job_id)
    return job_id


def end_one(connection: Redis, _: str) -> None:
    found = claim(connection).claim
    assert isinstance(found, Claim)
    end_run(connection, found.lease, ending.released().encode())


OPERATIONS: dict[str, Callable[[Redis, str], Any]] = {
    'enqueue': lambda _, __: enqueue_background_job(ADD, 1),
    'claim': lambda connection, _: claim(connection),
    'end': end_one,
    'status': lambda _, waiting: get_job_status(waiting),
    'list': lambda _, __: list_jobs(limit=PAGE),
    'list queued': lambda _, __: list_jobs('queued', limit=PAGE),
    'list a queue': lambda _, __: list_jobs(queue='default', limit=PAGE),
    'list a page': lambda _, __: list_jobs_page('queued', None, PAGE, 'queued.1.5'),
    'list scheduled': lambda _, __: list_jobs('scheduled', 'low', limit=PAGE),
    'list canceled': lambda _, __: list_jobs('canceled', limit=PAGE),
    'cancel': lambda _, waiting: cancel_job(waiting),
    'delete': lambda _, __: delete_job(canceled()),
    'retry': lambda _, __: retry_job(canceled()),
}


def fill(jobs: int) -> str:
    """Let so many jobs wait, and others be scheduled; return the id of one in the middle."""
    waiting = enqueue_background_jobs(ADD, [{'a': 1}] * jobs)
    enqueue_background_jobs(ADD, [{'a': 1}] * (jobs // 4), job_queue='low', job_delay=3600)
    return waiting[jobs // 2].id


def costs(connection: Redis, jobs: int) -> dict[str, int]:
    """The commands that Redis executes for each operation, inside scripts too."""
    connection.flushall()
    waiting = fill(jobs)
    for operation in OPERATIONS.values():
        operation(connection, waiting)  # from now on the server knows the script
    waiting = fill(PAGE + 1)
    return {
        name: sum(commands(connection, partial(operation, connection, waiting)).values())
        for name, operation in OPERATIONS.items()
    }


@pytest.mark.slow
def test_an_operation_costs_the_same_among_few_jobs_and_many(connection: Redis) -> None:
    few, many = costs(connection, FEW), costs(connection, MANY)
    # The list of wake-ups is cut once nobody waits for so many.
    assert {name: cost for name, cost in many.items() if cost > few[name] + 1} == {}
