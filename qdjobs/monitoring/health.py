"""How queues and workers are, read in one round trip that changes nothing.

It costs the same however many jobs there are: of lists and registries it takes the length, and
looks at no more than their first entries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qdjobs.client.redis import Script, redis_connection, redis_key
from qdjobs.client.status import parse_moment, read_text
from qdjobs.config import get_config

LATE = 60  # seconds after its time at which a delayed job should long have been enqueued
SILENCE = 60  # seconds without a heartbeat; a JobWorker writes one every ten (40 at most)

# What each queue is asked for, in the order of the script. Failed are the stopped ones too: RQ
# keeps both in one registry. Rate-limited jobs are kept by limit, not by queue, and not counted.
_COUNTED = (
    'queued', 'scheduled', 'deferred', 'ready_to_enqueue', 'started', 'finished', 'failed',
    'canceled',
)  # fmt: skip

_health = Script(Path(__file__).with_name('lua') / 'health.lua')


@dataclass(frozen=True)
class QueueHealth:
    """One queue. What has expired, and waits for RQ's clean-up only, is not counted."""

    name: str
    jobs: Mapping[str, int]  # by status
    oldest: float  # seconds that the oldest waiting job has waited; 0 if none waits
    late: int  # jobs whose time came more than LATE seconds ago, and that are not enqueued
    abandoned: int  # started jobs that nobody runs, and that no recovery will find
    missing: int  # ids in the queue that have no record
    failures: int  # jobs that have failed for good, ever, under a JobWorker


@dataclass(frozen=True)
class WorkerHealth:
    """One worker that has not said goodbye."""

    name: str
    host: str
    state: str  # RQ's 'started', 'idle', 'busy' or 'suspended'; 'lost' if it gives no sign of life
    queues: frozenset[str]
    is_stock: bool  # it can be told only if it writes its class: ours does
    silence: float  # seconds since its last sign of life


@dataclass(frozen=True)
class Health:
    """All of it, at one moment."""

    queues: Sequence[QueueHealth]
    workers: Sequence[WorkerHealth]
    lost: int  # jobs whose lease is past: the next JobWorker that looks puts them back
    suspended: bool  # by `rq suspend`


def read_health(depth: int = 10) -> Health:
    """Look at the first `depth` entries of each list. Raises QueueUnavailableError."""
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
    *counts, late, abandoned, missing, oldest, failures = row
    return QueueHealth(
        name=name,
        jobs=dict(zip(_COUNTED, counts, strict=True)),
        oldest=_seconds_since(oldest, time) or 0.0,
        late=late,
        abandoned=abandoned,
        missing=missing,
        failures=failures,
    )


def _worker(time: int, row: Sequence[bytes | None]) -> WorkerHealth:
    key, state, queues, host, worker_class, _ = map(read_text, row)
    silence = _seconds_since(row[-1], time)
    # A stock worker that idles writes none for seven minutes: its record expires, or it lives.
    lost = bool(worker_class) and (silence is None or silence > SILENCE)
    return WorkerHealth(
        name=key.removeprefix(redis_key('worker', '')),
        host=host,
        state='lost' if lost else state,
        queues=frozenset(queues.split(',')),
        is_stock=not worker_class,
        silence=silence or 0.0,
    )


def _seconds_since(moment: bytes | None, time: int) -> float | None:
    parsed = parse_moment(moment)
    return None if parsed is None else max(0.0, time - parsed.timestamp())
