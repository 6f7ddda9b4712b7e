"""Add the commands that record the outcome of an attempt to a pipeline.

Runs in the horse; for crashed and stopped jobs in the parent. `lease.record` runs the commands in
one step.
"""

import math
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

from redis.client import Pipeline
from redis.exceptions import RedisError
from rq.defaults import DEFAULT_FAILURE_TTL, RQ_KEY_PREFIX
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.results import Result
from rq.utils import utcformat

from qdjobs.client.payload import dump_checked
from qdjobs.client.status import last_line
from qdjobs.errors import InvalidJobError
from qdjobs.worker.lease import pack_error

MAX_TTL = 10 * DEFAULT_FAILURE_TTL  # seconds; a record can contain any number
MAX_ATTEMPTS = 10  # failed attempts whose errors are kept


def write_finished(pipe: Pipeline, job: Job, execution: Execution, result_ttl: int) -> None:
    """Record that the task has returned. Its result must have been checked to be plain data."""
    _write_end(pipe, job, 'finished')
    result = pack_result(job._result)
    returned = {'return_value': result} if result else {}
    _write_result(pipe, job, execution, Result.Type.SUCCESSFUL, returned, result_ttl)
    _register(pipe, 'finished', job, result_ttl)


def write_failed(
    pipe: Pipeline,
    job: Job,
    execution: Execution,
    error: str,
    status: str = 'failed',
    kind: Result.Type = Result.Type.FAILED,
) -> None:
    """Record that the last attempt has failed or was stopped: the job becomes a dead letter."""
    job._status = JobStatus(status)
    ttl = min(DEFAULT_FAILURE_TTL if job.failure_ttl is None else job.failure_ttl, MAX_TTL)
    _write_end(pipe, job, status)
    _remember_attempt(pipe, job, execution, error)
    packed = {'exc_string': pack_error(error)}
    _write_result(pipe, job, execution, kind, packed, ttl)
    _register(pipe, 'failed', job, ttl)
    if ttl >= 0:
        pipe.expire(job.key, ttl)
        pipe.expire(job.dependents_key, ttl)


def write_retry(
    pipe: Pipeline, job: Job, execution: Execution, error: str, delay: float, at_front: bool
) -> None:
    """Record that the attempt has failed, and schedule a retry in `delay` seconds."""
    _remember_attempt(pipe, job, execution, error)
    packed = {'exc_string': pack_error(error)}
    _write_result(pipe, job, execution, Result.Type.RETRIED, packed, None)
    queue = f'{RQ_KEY_PREFIX}:queue:{job.origin}'
    changed: dict[Any, Any] = {'ended_at': utcformat(job.ended_at or datetime.now(UTC))}
    for field in ('retries_left', 'number_of_retries'):
        if (value := getattr(job, field)) is not None:
            changed[field] = value
    if delay:
        start = math.ceil((datetime.now(UTC) + timedelta(seconds=delay)).timestamp())
        pipe.zadd(f'{RQ_KEY_PREFIX}:scheduled:{job.origin}', {job.id: start})
        job._status = JobStatus.SCHEDULED  # RQ reads it to decide whether to free a slot
    else:
        (pipe.lpush if at_front else pipe.rpush)(queue, job.id)
        job._status = JobStatus.QUEUED
        changed['enqueued_at'] = utcformat(datetime.now(UTC))
    changed |= {'status': job._status.value, 'enqueue_at_front_on_retry': int(at_front)}
    pipe.sadd(f'{RQ_KEY_PREFIX}:queues', queue)
    pipe.hset(job.key, mapping=changed)


def pack_result(result: Any) -> str:
    """Encode a result that has been checked to be plain data, as RQ does; None becomes ''."""
    return '' if result is None else b64encode(dump_checked(result)).decode()


def _write_end(pipe: Pipeline, job: Job, status: str) -> None:
    ended = utcformat(job.ended_at or datetime.now(UTC))
    pipe.hset(job.key, mapping={'status': status, 'ended_at': ended})


def _write_result(
    pipe: Pipeline,
    job: Job,
    execution: Execution,
    kind: Result.Type,
    payload: dict[str, str],
    ttl: int | None,
) -> None:
    fields: dict[Any, Any] = {
        'type': kind.value,
        'worker_name': execution.worker_name,
        'execution_id': execution.id,
        'execution_started_at': execution.created_at.timestamp(),
        'execution_ended_at': (job.ended_at or datetime.now(UTC)).timestamp(),
    }
    key = f'{RQ_KEY_PREFIX}:results:{job.id}'
    pipe.xadd(key, fields | payload, maxlen=MAX_ATTEMPTS)
    if ttl is not None and ttl >= 0:
        pipe.expire(key, ttl)
    else:
        pipe.persist(key)


def _register(pipe: Pipeline, registry: str, job: Job, ttl: int) -> None:
    score = datetime.now(UTC).timestamp() + ttl if ttl >= 0 else math.inf
    pipe.zadd(f'{RQ_KEY_PREFIX}:{registry}:{job.origin}', {job.id: score})


def _remember_attempt(pipe: Pipeline, job: Job, execution: Execution, error: str) -> None:
    """Add the attempt to the job's metadata, which the dashboard shows."""
    try:
        meta = job.get_meta()  # from Redis: the task may have saved its own metadata
    except (InvalidJobError, RedisError):
        return
    attempts = meta.get('attempts') if isinstance(meta, dict) else None
    attempt = {
        'at': utcformat(job.ended_at or datetime.now(UTC)),
        'worker': execution.worker_name,
        'error': last_line(error),
    }
    known = attempts if isinstance(attempts, list) else []
    meta['attempts'] = [*known, attempt][-MAX_ATTEMPTS:]
    pipe.hset(job.key, 'meta', dump_checked(meta))
