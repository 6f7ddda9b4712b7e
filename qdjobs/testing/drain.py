"""Run the jobs that wait in Redis, in this process and thread."""

from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from flask import current_app, has_app_context
from redis import Redis

from qdjobs.client.redis import redis_connection, redis_key
from qdjobs.client.status import Status, read_statuses
from qdjobs.config import get_config
from qdjobs.errors import InvalidJobError, short_repr
from qdjobs.testing.attempt import WORKER, resolving_anew, run_attempt
from qdjobs.worker.lease import (
    Claim,
    claim_job,
    claim_request,
    end_run,
    pending_dependents,
)
from qdjobs.worker.runner import unreadable
from qdjobs.worker.successors import enqueue_all_dependents, enqueue_pending_dependents
from qdjobs.worker.untrusted import restore_job

MAX_RUNS = 10_000  # of one call: jobs that enqueue one another would never end


def run_jobs(now: datetime | None = None, raising: bool = False) -> list[Status]:
    """Run the jobs that wait in the queues of the current application until there are none.

    They run one after the other in this process and thread, each in an application context of its
    own if there is an application, without a time-out. Jobs that are due at `now`, an aware
    datetime, run too, retries included; the default is the present. With `raising`, the exception
    of an attempt is raised once it is recorded.

    Returns the statuses of the jobs that have run, in their order. Raises InvalidJobError for a
    `now` that is not aware, RuntimeError after 10,000 runs.
    """
    if now is not None and (not isinstance(now, datetime) or now.utcoffset() is None):
        raise InvalidJobError(
            'now must be an aware datetime, such as datetime.now(UTC) + timedelta(hours=1), not '
            f'{short_repr(now)}.'
        )
    ran: dict[str, None] = {}
    with redis_connection() as connection, resolving_anew():
        try:
            for claim in _claims(connection, now or datetime.now(UTC)):
                ran[claim.lease.job_id] = None
                raised = _run(claim, connection)
                if raising and raised is not None:
                    raise raised
        finally:
            connection.delete(redis_key('worker', WORKER))  # what endings have counted
    return [status for status in read_statuses(list(ran)) if status is not None]


def _claims(connection: Redis, now: datetime) -> Iterator[Claim]:
    config = get_config()
    for _ in range(MAX_RUNS):
        for queue in config.queues:
            _make_due(connection, redis_key('scheduled', queue), now)
        request = claim_request(WORKER, uuid4().hex, config.lease, config.queues)
        claimed = claim_job(connection, request)
        if claimed.claim is not None:
            yield claimed.claim
        elif not claimed.has_more and not _settle(connection):
            return
    raise RuntimeError(f'run_jobs has run {MAX_RUNS} jobs, and more wait: do they enqueue others?')


def _settle(connection: Redis) -> bool:
    """Do what workers do every few seconds for jobs that wait; return whether there was any."""
    present: Any = connection.time()
    if not pending_dependents(connection, present[0], 1):
        return False
    enqueue_pending_dependents(connection, present[0], seconds=60)
    return True


def _make_due(connection: Redis, registry: str, now: datetime) -> None:
    """Let those scheduled jobs be due that are at a time which may lie ahead."""
    time: Any = connection.time()  # which a test cannot change
    present = time[0]
    found: list[Any] = connection.zrangebyscore(registry, f'({present}', now.timestamp())
    if found:
        connection.zadd(registry, dict.fromkeys(found, present), xx=True)


def _run(claim: Claim, connection: Redis) -> BaseException | None:
    """Run an attempt, and record it; return what it has raised."""
    lease, raised = claim.lease, None
    try:
        job = restore_job(lease.job_id, claim.fields, connection)
    except Exception as error:  # noqa: BLE001  # anyone may have written the record
        ended = unreadable(claim, error, connection)
    else:
        with current_app.app_context() if has_app_context() else nullcontext():
            ended = run_attempt(job, lease, connection)
        raised = job.raised
    if end_run(connection, lease, ended.encode()).has_dependents:
        enqueue_all_dependents(connection, lease.job_id, seconds=60)
    return raised
