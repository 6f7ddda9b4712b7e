"""Read and write what Redis knows of periodic jobs: the last tick, its job, who serves them.

One hash for each, `schedule:<name>`: `tick`, `job` (of the last tick that was not skipped),
`skipped` (how many ticks were), `served_at` and `rule` (when a worker last served it, and by which
rule), and `rule:<rule>`: since when that rule is known, and when it was last served.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from redis import Redis
from rq.utils import utcformat

from qdjobs.client.enqueue import pack_again
from qdjobs.client.redis import ADD, AFTER, COUNT, Script, redis_connection, redis_key
from qdjobs.client.status import read_text
from qdjobs.schedule.entries import Periodic, Plan

_FIELDS = ('tick', 'job', 'skipped', 'served_at', 'rule')
_tick = Script(Path(__file__).with_name('lua') / 'tick.lua', COUNT, AFTER, ADD)


class Tick(msgspec.Struct, frozen=True):
    """An entry as tick.lua takes it, with its due tick if there is one. Times are in seconds."""

    name: str
    rule: str
    tick: int = 0  # 0: none is due
    following: int = 0  # the tick after it
    job: str = ''  # the id of its job
    overlap: str = ''
    sent: int = 0  # arguments of the script that are of this tick


@dataclass(frozen=True)
class Served:
    """The reply to `send_ticks`: the time by the clock of Redis, and an outcome for each entry."""

    now: float
    outcomes: Sequence[str]


def job_id_of(name: str, tick: int) -> str:
    """Return the id of the job of a tick, such as report-20261125T030000Z."""
    return f'{name}-{datetime.fromtimestamp(tick, UTC):%Y%m%dT%H%M%SZ}'


def send_ticks(connection: Redis, due: Sequence[tuple[Plan, int, int]]) -> Served:
    """Say that these are served, and enqueue the job of each due tick unless that was done.

    Each plan goes with its tick, or 0, and the tick after it. Raises RedisError.
    """
    ticks, packed = [], list[bytes]()
    for plan, tick, following in due:
        name, rule = plan.name, str(plan.rule)
        if not tick:
            ticks.append(Tick(name, rule))
            continue
        job_id = job_id_of(name, tick)
        job = pack_again(plan.packed, job_id)
        sent = 1 + len(job.values)
        ticks.append(Tick(name, rule, tick, following, job_id, plan.overlap, sent))
        packed += [job.request, *job.values]
    moment = utcformat(datetime.now(UTC))
    now, outcomes = _tick(connection, [moment, msgspec.msgpack.encode(ticks), *packed])
    return Served(now / 1e6, [read_text(outcome) for outcome in outcomes])


@dataclass(frozen=True)
class State:
    """What is known of one periodic job. Times are in seconds since the epoch; None: never."""

    tick: float | None
    job_id: str | None  # of the last tick that was not skipped
    skipped: int
    served_at: float | None
    rule: str | None  # by which it is served


def read_states(names: Sequence[str]) -> tuple[float, list[State]]:
    """Return the time by the clock of Redis, and the state of each periodic job.

    In one round trip. Raises QueueUnavailableError.
    """
    with redis_connection() as connection, connection.pipeline(transaction=False) as pipe:
        pipe.time()
        for name in names:
            pipe.hmget(redis_key('schedule', name), _FIELDS)
        (seconds, micros), *found = pipe.execute(raise_on_error=False)
    return seconds + micros / 1e6, [_read_state(row) for row in found]


def read_states_of(schedule: Mapping[str, Periodic]) -> tuple[float, list[State]]:
    """Return what `read_states` does: of an entry with several names, that which was served last.

    Raises QueueUnavailableError.
    """
    groups = [entry.names(name) for name, entry in schedule.items()]
    now, found = read_states([name for group in groups for name in group])
    states = iter(found)
    return now, [_latest(list(islice(states, len(group)))) for group in groups]


def _latest(states: Sequence[State]) -> State:
    return max(states, key=lambda state: state.served_at or 0.0)


def _read_state(row: Any) -> State:
    values = row if isinstance(row, list) else [None] * len(_FIELDS)  # a key of another type
    tick, job, skipped, served_at, rule = (read_text(value) or None for value in values)
    return State(_number(tick), job, int(_number(skipped) or 0), _number(served_at), rule)


def _number(text: str | None) -> float | None:
    """Return a number that tick.lua has written; anyone may have written something else."""
    try:
        number = float(text) if text else None
    except ValueError:
        return None
    return number if number is not None and 0 <= number < 1e11 else None
