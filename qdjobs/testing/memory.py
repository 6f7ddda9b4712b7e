"""Keep jobs in this process, in the form in which Redis keeps them."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from redis import Connection, ConnectionPool, Redis
from rq.job import Job
from rq.utils import utcformat

from qdjobs.client.call import Call
from qdjobs.client.enqueue import in_a_cycle, make_job, no_such_parent
from qdjobs.client.payload import PlainSerializer
from qdjobs.client.states import ENDED
from qdjobs.client.status import STATUS_FIELDS, Status, make_status
from qdjobs.client.tasks import Arguments
from qdjobs.errors import InvalidJobError, JobNotFoundError
from qdjobs.testing.attempt import WORKER
from qdjobs.worker.ending import Ending

MAX_OUTCOMES = 10  # as Redis keeps them


class _NoServer(Connection):
    def connect(self) -> None:
        raise RuntimeError(
            'qdjobs.testing keeps the jobs of this block in memory, where RQ does not find them: '
            'use the functions of qdjobs, or `run_jobs` with a real Redis.'
        )


class MemoryConnection(Redis):
    """The connection of a job in memory: it has the job's metadata, and reaches no server."""

    def __init__(self, fields: dict[bytes, bytes]) -> None:
        super().__init__(connection_pool=ConnectionPool(connection_class=_NoServer))
        self._fields = fields

    def hget(self, name: Any, key: Any) -> Any:
        return self._fields.get(key.encode())

    def eval(self, script: str, numkeys: int, *keys_and_args: Any) -> Any:
        self._fields[b'meta'] = keys_and_args[-1]  # what `qdjobs.progress` sends


@dataclass
class Record:
    """One job: its call, its hash, and its outcomes, the latest first."""

    call: Call
    arguments: Arguments  # as they were when it was enqueued
    made_at: datetime
    fields: dict[bytes, bytes] = field(default_factory=dict)
    outcomes: list[Any] = field(default_factory=list)

    @property
    def state(self) -> str:
        return self.fields[b'status'].decode()

    def write(self, **values: Any) -> None:
        """Set fields of the hash."""
        for name, value in values.items():
            self.fields[name.encode()] = _encode(value)

    def end(self, ended: Ending) -> None:
        """Write how an attempt has ended, as `end_run` of lua/run.lua does."""
        fields = dict(zip(ended.fields[::2], ended.fields[1::2], strict=True))
        self.write(status=ended.status, ended_at=ended.ended_at, **fields)
        if ended.meta:
            self.write(meta=ended.meta)
        if ended.kind is None:
            return
        outcome = {'type': ended.kind, 'worker_name': WORKER}
        if ended.field is not None:
            outcome[ended.field] = ended.value
        entry = [_encode(item) for pair in outcome.items() for item in pair]
        self.outcomes.insert(0, (f'{time.time_ns() // 1_000_000}-0'.encode(), entry))
        del self.outcomes[MAX_OUTCOMES:]

    def status(self, waits_for: Sequence[bytes] = ()) -> Status:
        """Return the status, as it is read from Redis."""
        values = [self.fields.get(name.encode()) for name in STATUS_FIELDS]
        return make_status(self.call.id, (values, None, self.outcomes, waits_for))


class Memory:
    """A stand-in for Redis: jobs wait in it until a test ends."""

    def __init__(self) -> None:
        self.history: list[Record] = []  # all that were enqueued, in their order
        self.records: dict[str, Record] = {}

    def enqueue(
        self, calls: Sequence[Call], payloads: Sequence[bytes], metas: Sequence[bytes]
    ) -> list[Job]:
        ids = {call.id for call in calls}
        if any(job_id not in self.records or self._has_ended(job_id) for job_id in ids):
            self._check_parents(calls[0].options.after, ids)
        jobs = []
        for number, (call, payload) in enumerate(zip(calls, payloads, strict=True)):
            known = self.records.get(call.id)
            if known is None or known.state in ENDED:
                known = self._add(call, payload, metas[number] if metas else b'')
            jobs.append(self._job_of(known))
        return jobs

    def _check_parents(self, parents: Sequence[str], ids: set[str]) -> None:
        """Raise InvalidJobError for a parent that is missing, or waits for one of these jobs."""
        for parent in parents:
            if parent not in self.records:
                raise no_such_parent(parent)
        seen, found = set[str](), list(parents)
        while found:
            job_id = found.pop()
            if job_id in ids:
                raise in_a_cycle(job_id)
            if job_id not in seen and job_id in self.records:
                found += self._unmet(self.records[job_id])
            seen.add(job_id)

    def _has_ended(self, job_id: str) -> bool:
        return self.records[job_id].state in ENDED

    def _add(self, call: Call, payload: bytes, meta: bytes) -> Record:
        job = make_job(Job(call.id, MemoryConnection({})), call)
        job.data = payload
        _, _, *arguments = PlainSerializer.loads(payload)
        record = Record(call, (arguments[0], arguments[1]), job.created_at)
        record.write(**{name: value for name, value in job.to_dict().items() if value != ''})
        record.write(task=call.task.path, dependency_ids=json.dumps(call.options.after))
        if meta:
            record.write(meta=meta)
        self.history.append(record)
        self.records[call.id] = record
        if self._unmet(record):
            record.write(status='deferred')
            self.settle()
        else:
            self.added(record)
        return record

    def added(self, record: Record) -> None:
        """Called for each job that could run."""

    def settle(self) -> None:
        """Queue or cancel the jobs that wait for ended ones, as lua/after.lua does."""
        while any(self._settle(record) for record in list(self.records.values())):
            pass  # what was cancelled is a parent itself

    def _settle(self, record: Record) -> bool:
        """Queue or cancel a job if it waits and is to; return whether it was."""
        if record.state != 'deferred':
            return False
        unmet = self._unmet(record)
        if not unmet:
            record.write(status='queued')
            self.added(record)
            return True
        ended = [parent for parent in unmet if self._has_ended(parent)]
        if not ended or record.call.options.after_failure != 'cancel':
            return False
        _cancel(record, blocked_by=ended[0])
        return True

    def _unmet(self, record: Record) -> list[str]:
        """Return the ids of the jobs that a job still has to wait for."""
        met = ENDED if record.call.options.after_failure == 'run' else ('finished',)
        return [
            job_id
            for job_id in record.call.options.after
            if job_id in self.records and self.records[job_id].state not in met
        ]

    def _status_of(self, record: Record) -> Status:
        awaited = self._unmet(record) if record.state == 'deferred' else []
        return record.status([job_id.encode() for job_id in awaited])

    def read_statuses(self, job_ids: Sequence[str]) -> list[Status | None]:
        found = [self.records.get(job_id) for job_id in job_ids]
        return [None if record is None else self._status_of(record) for record in found]

    def read_page(self, statuses: Sequence[str], queues: Sequence[str], limit: int) -> list[Status]:
        all_jobs = [self._status_of(record) for record in list(self.records.values())]
        wanted = [job for job in all_jobs if job['status'] in statuses and job['queue'] in queues]
        return sorted(wanted, key=lambda job: statuses.index(job['status']))[:limit]

    def cancel(self, job_id: str) -> str:
        record = self._find(job_id)
        # In eager_jobs a job can be `started`, for itself and for other threads; it runs on.
        if record.state != 'started' and record.state not in ENDED:
            _cancel(record)
            self.settle()
        return record.state

    def delete(self, job_id: str) -> str:
        if (state := self._find(job_id).state) not in ENDED:
            return state
        for record in list(self.records.values()) if state != 'finished' else []:
            waits = record.state == 'deferred' and record.call.options.after_failure == 'wait'
            if waits and job_id in record.call.options.after:
                _cancel(record, blocked_by=job_id)
        self.settle()
        del self.records[job_id]
        return 'deleted'

    def retry(self, job_id: str) -> Job:
        record = self._find(job_id)
        if record.state not in ENDED or record.state == 'finished':
            raise InvalidJobError(f'Job {job_id!r} is {record.state}, and cannot be tried again.')
        record.outcomes.clear()
        waits = bool(self._unmet(record))
        record.write(
            status='deferred' if waits else 'queued',
            ended_at='',
            retries_left=record.call.options.max_retries,
        )
        if waits:
            self.settle()
        else:
            self.added(record)
        return self._job_of(record)

    def _find(self, job_id: str) -> Record:
        try:
            return self.records[job_id]
        except KeyError:
            raise JobNotFoundError([job_id]) from None

    def _job_of(self, record: Record) -> Job:
        job = Job(record.call.id, MemoryConnection(record.fields))
        job.restore(record.fields)
        return job


def _cancel(record: Record, **fields: str) -> None:
    record.write(status='canceled', ended_at=utcformat(datetime.now(UTC)), **fields)


def _encode(value: Any) -> bytes:
    """Encode a value as Redis returns it."""
    if isinstance(value, bytes):
        return value
    # An Enum of texts is a str whose `str` differs.
    return (value if isinstance(value, str) else str(value)).encode()
