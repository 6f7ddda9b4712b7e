"""A storm of SIGKILLs over a peer's worker, and what has become of the jobs when it is over."""

import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.field.stage import Stage, kill, stage

BACKLOG = 400
PER_SECOND = 25  # with the backlog more than a worker can do that dies all the time
PATIENCE = 15  # seconds that a new worker has to start its first job
QUIET = 2  # seconds without a start: nothing more comes


@dataclass
class Storm:
    """A storm, and what became of the jobs."""

    jobs: int
    kills: int
    interrupted: int = 0  # runs that a kill ended
    lost: int = 0  # jobs that have not finished when the calm is over
    twice: int = 0  # jobs that started more than once
    repeated: int = 0  # jobs that finished more than once
    # Seconds from a kill until a job that it interrupted started again.
    again: list[float] = field(default_factory=list)


def weather(peer: str, kills: int, calm: float) -> Storm:
    """Kill a worker as often, each time 1 to 2 s after it has started its first job; then wait."""
    chance = random.Random(1)
    killed = []
    with stage(peer) as it:
        with enqueueing(it) as sent:
            for _ in range(kills):
                with it.worker() as worker:
                    wait_for_a_start(it.log)
                    time.sleep(chance.uniform(1, 2))
                    kill(worker)
                    killed.append(time.time())
        with it.worker():
            wait_for_the_end(it.log, sent[0], calm)
        return judge(it.log, sent[0], killed)


@contextmanager
def enqueueing(it: Stage) -> Iterator[list[int]]:
    """Enqueue jobs steadily meanwhile; how many there have been is in the list."""
    it.ask('record', BACKLOG)
    sent = [BACKLOG]
    over = threading.Event()

    def send() -> None:
        while not over.wait(1 / PER_SECOND):
            it.ask('record', 1, first=sent[0])
            sent[0] += 1

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield sent
    finally:
        over.set()
        thread.join()


def wait_for_a_start(log: Path) -> None:
    size, deadline = log.stat().st_size, time.monotonic() + PATIENCE
    while log.stat().st_size == size and time.monotonic() < deadline:
        time.sleep(0.02)


def wait_for_the_end(log: Path, jobs: int, seconds: float) -> None:
    """Until all jobs have finished and none runs once more, or the calm is over.

    It begins when the backlog is done: when no job starts any longer that has not started before.
    """
    deadline = time.monotonic() + seconds
    known = 0
    while time.monotonic() < deadline:
        size = log.stat().st_size
        time.sleep(QUIET)
        if log.stat().st_size == size and len(seen(log, 'end')) == jobs:
            return
        started = len(seen(log, 'start'))
        if started > known:
            known, deadline = started, time.monotonic() + seconds


def events(log: Path) -> Iterator[tuple[str, int, float]]:
    for line in log.read_text().splitlines():
        event, number, when = line.split()
        yield event, int(number), float(when)


def seen(log: Path, wanted: str) -> set[int]:
    """The jobs of which there is such an event."""
    return {number for event, number, _ in events(log) if event == wanted}


def judge(log: Path, jobs: int, killed: list[float]) -> Storm:
    starts: dict[int, list[float]] = defaultdict(list)
    finishes: dict[int, list[float]] = defaultdict(list)
    for event, number, when in events(log):
        (starts if event == 'start' else finishes)[number].append(when)
    storm = Storm(jobs, len(killed))
    storm.lost = jobs - len(finishes)
    storm.twice = sum(len(times) > 1 for times in starts.values())
    storm.repeated = sum(len(times) > 1 for times in finishes.values())
    for before, now in zip([0.0, *killed], killed, strict=False):
        for number, times in starts.items():
            run = max((when for when in times if before < when < now), default=None)
            if run is None or any(run < end < now for end in finishes[number]):
                continue
            storm.interrupted += 1
            later = [when for when in times if when > now]
            if later:
                storm.again.append(min(later) - now)
    return storm
