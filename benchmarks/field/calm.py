"""What a peer does in calm weather: rates, the cost of enqueueing, latency, memory."""

import time
from dataclasses import dataclass, field

from benchmarks.field.stage import Stage, kill, memory, stage
from benchmarks.field.tasks import NAP_SECONDS

WARM = 20  # jobs before the clock starts
WARM_LATENCIES = 3
IDLE_SECONDS = 1


@dataclass
class Calm:
    """The figures of one round."""

    rates: dict[str, float] = field(default_factory=dict)  # jobs per second of each task
    enqueue: float = 0.0  # microseconds
    memory: float = 0.0  # megabytes
    latencies: list[float] = field(default_factory=list)  # seconds


def measure(peer: str, jobs: int, seconds: float, latencies: int) -> Calm:
    calm = Calm()
    for task in ('empty', 'nap', 'slow'):
        with stage(peer) as it:
            it.ask('empty', WARM)
            count = min(jobs, int(seconds / NAP_SECONDS)) if task == 'nap' else jobs
            taken = it.ask(task, count)
            if task == 'empty':
                calm.enqueue = taken / count * 1e6
            with it.worker():
                calm.rates[task] = rate(it, WARM + count, seconds)
    with stage(peer) as it, it.worker() as worker:
        it.ask('clock', WARM_LATENCIES)
        time.sleep(IDLE_SECONDS)
        calm.latencies = it.ask('clock', latencies, first=WARM_LATENCIES)
        kill(it.client)  # so that it shares no memory with the worker
        calm.memory = memory(worker)
    return calm


def rate(it: Stage, jobs: int, seconds: float) -> float:
    """Jobs per second of a worker that has just started, until all have ended or time is up."""
    deadline = time.monotonic() + 60
    while (first := it.finished()) < WARM + 1:
        if time.monotonic() > deadline:
            raise RuntimeError(f'{it.peer} runs no job:\n{it.output()}')
        time.sleep(0.005)
    start = time.perf_counter()
    while (done := it.finished()) < jobs and time.perf_counter() - start < seconds:
        time.sleep(0.005)
    return (done - first) / (time.perf_counter() - start)
