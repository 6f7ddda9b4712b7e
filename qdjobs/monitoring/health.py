"""Read the state of queues and workers in one round trip, without changing anything.

The cost does not depend on the number of jobs: of lists and registries it reads the length, and at
most the first entries.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qdjobs.client.redis import Script, redis_connection, redis_key
from qdjobs.client.status import parse_moment, read_text
from qdjobs.config import get_config

LATE = 60  # seconds; a delayed job that is due for longer is late
SILENCE = 60  # seconds without a heartbeat; a JobWorker writes one every ten (40 at most)

# The counts of each queue, in the order of the script. `failed` includes stopped jobs: RQ keeps
# both in one registry. Rate-limited jobs are not counted: RQ does not keep them by queue.
_COUNTED = (
    'queued', 'scheduled', 'deferred', 'ready_to_enqueue', 'started', 'finished', 'failed',
    'canceled',
)  # fmt: skip

_health = Script(Path(__file__).with_name('lua') / 'health.lua')


@dataclass(frozen=True)
class QueueHealth:
    """One queue. Expired entries, which RQ's clean-up will remove, are not counted."""

    name: str
    jobs: Mapping[str, int]  # by status
    oldest: float  # seconds that the oldest waiting job has waited; 0 if none waits
    late: int  # delayed jobs that should have been enqueued more than LATE seconds ago
    abandoned: int  # started jobs that no worker runs and no JobWorker will recover
    missing: int  # ids in the queue that have no record
    unknown: int  # delayed jobs that the code of no worker could run so far
    unknown_job: str  # the id of one of them, and why
    unknown_why: str


@dataclass(frozen=True)
class WorkerHealth:
    """One worker that has a record: alive, or dead without having removed it."""

    name: str
    host: str
    state: str  # RQ's 'started', 'idle', 'busy' or 'suspended'; 'lost' without a heartbeat
    queues: tuple[str, ...]  # in the order in which it serves them
    is_stock: bool  # its record does not name its class, as a JobWorker's does
    silence: float  # seconds since its last heartbeat
    job: str | None  # the id of the job that it runs
    done: int  # jobs that have finished or failed under it


@dataclass(frozen=True)
class Health:
    """The state of all queues and workers at one moment."""

    queues: Sequence[QueueHealth]
    workers: Sequence[WorkerHealth]
    lost: int  # jobs whose lease has expired: the next round of any JobWorker recovers them
    suspended: bool  # by `rq suspend`


def read_health(depth: int = 10) -> Health:
    """Read the state; check `depth` entries of each list. Raises QueueUnavailableError."""
    names = get_config().queues
    with redis_connection() as connection:
        time, suspended, lost, queues, workers = _health(connection, [depth, LATE, *names])
    return Health(
        queues=[_queue(name, time, row) for name, row in zip(names, queues, strict=True)],
        workers=sorted((_worker(time, row) for row in workers), key=lambda worker: worker.name),
        lost=lost,
        suspended=bool(suspended),
    )


def _queue(name: str, time: int, row: Sequence[Any]) -> QueueHealth:
    *counts, late, abandoned, missing, oldest, unknown, unknown_job, unknown_why = row
    return QueueHealth(
        name=name,
        jobs=dict(zip(_COUNTED, counts, strict=True)),
        oldest=_seconds_since(oldest, time) or 0.0,
        late=late,
        abandoned=abandoned,
        missing=missing,
        unknown=unknown,
        unknown_job=read_text(unknown_job),
        unknown_why=read_text(unknown_why),
    )


def _worker(time: int, row: Sequence[bytes | None]) -> WorkerHealth:
    key, job, state, queues, host, worker_class, *counts, _ = map(read_text, row)
    silence = _seconds_since(row[-1], time)
    # An idle stock worker writes no heartbeat for seven minutes. If it is dead, its record expires.
    lost = bool(worker_class) and (silence is None or silence > SILENCE)
    return WorkerHealth(
        name=key.removeprefix(redis_key('worker', '')),
        host=host,
        state='lost' if lost else state,
        queues=tuple(queues.split(',')),
        is_stock=not worker_class,
        silence=silence or 0.0,
        job=job or None,
        done=sum(int(count) for count in counts if re.fullmatch(r'[0-9]{1,18}', count)),
    )


def _seconds_since(moment: bytes | None, time: int) -> float | None:
    parsed = parse_moment(moment)
    return None if parsed is None else max(0.0, time - parsed.timestamp())
