"""Read what has been counted about jobs, in one round trip.

The cost does not depend on the number of jobs: `count.lua` bounds the number of fields.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from qdjobs.client.counts import BUCKETS, OUTCOMES, TIMES
from qdjobs.client.redis import redis_connection
from qdjobs.client.status import read_text
from qdjobs.config import get_config

_BOUNDS = (*BUCKETS, 'inf')

# Anyone may have written other fields.
_RUNS = re.compile(rf'({"|".join(OUTCOMES)})\|([\w.-]+)\|([\w.-]+)\|([\w.]*)', re.ASCII)
_TIME = re.compile(rf'({"|".join(TIMES)})\|([\w.-]+)\|([\w.]+)', re.ASCII)


@dataclass(frozen=True)
class Histogram:
    """How long the runs of a task have waited, or run."""

    cumulative: list[int]  # runs that took at most each of BUCKETS, and in the end all
    seconds: float  # of all


@dataclass(frozen=True)
class Counts:
    """What has been counted since the keys were written first."""

    jobs: Mapping[str, Mapping[tuple[str, str], int]]  # by outcome, then by queue and task
    times: Mapping[str, Mapping[str, Histogram]]  # by a key of TIMES, then by task


def read_counts() -> Counts:
    """Read the counts. What is malformed counts nothing. Raises QueueUnavailableError.

    Each pair of a queue and a task that is known has all outcomes, if only as 0: a counter that
    begins at 1 has not increased for Prometheus.
    """
    config = get_config()
    with redis_connection() as connection, connection.pipeline(transaction=False) as pipe:
        pipe.hgetall(f'{config.key_prefix}:metrics')
        # Written by earlier versions, which counted by queue only.
        pipe.hmget(f'{config.key_prefix}:failures', config.queues)
        found, failures = pipe.execute(raise_on_error=False)
    jobs, times = _sort(found if isinstance(found, dict) else {}, config.queues)
    if isinstance(failures, list):
        for queue, text in zip(config.queues, failures, strict=True):
            jobs['failed'][queue, 'other'] += _whole(text)
    histograms = {
        time: {task: _histogram(numbers) for task, numbers in sorted(tasks.items())}
        for time, tasks in times.items()
    }
    return Counts(jobs, histograms)


def _sort(
    fields: Mapping[bytes, bytes], queues: Sequence[str]
) -> tuple[dict[str, Counter[tuple[str, str]]], dict[str, dict[str, Counter[str]]]]:
    """Return the jobs as Counts has them, and by time and task what each bound has counted."""
    jobs = {outcome: Counter({(queue, 'other'): 0 for queue in queues}) for outcome in OUTCOMES}
    times: dict[str, dict[str, Counter[str]]] = {time: {} for time in TIMES}
    for name, text in fields.items():
        field, number = read_text(name), _whole(text)
        if match := _RUNS.fullmatch(field):
            outcome, queue, task, bound = match.groups()
            jobs[outcome][queue, task] += number
            if bound:
                times['running'].setdefault(task, Counter())[bound] += number
        elif match := _TIME.fullmatch(field):
            time, task, bound = match.groups()
            times[time].setdefault(task, Counter())[bound] += number
    pairs = set().union(*jobs.values())
    for counted in jobs.values():
        counted.update(dict.fromkeys(pairs, 0))
    return jobs, times


def _histogram(numbers: Mapping[str, int]) -> Histogram:
    counted = (numbers.get(bound, 0) for bound in _BOUNDS)
    return Histogram(list(accumulate(counted)), numbers.get('sum', 0) / 1e6)


def _whole(text: Any) -> int:
    """Return a number that Redis has counted, or 0."""
    return int(text) if text and text.isdigit() and len(text) < 20 else 0
