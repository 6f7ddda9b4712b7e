"""Enqueue a peer's jobs, in its own environment: `python -m benchmarks.field.client PEER`.

Tells what the peer is in one line of JSON, then answers each line of JSON with another: `{"task":
…, "count": …, "first": …}` enqueues single jobs and answers with the seconds that this took; for
the task `clock` with the seconds from each enqueue to the start of the job.
"""

import asyncio
import importlib
import inspect
import json
import random
import sys
import time
from contextlib import nullcontext
from importlib.metadata import version
from typing import Any

from benchmarks.field.tasks import STARTED, connection


async def main(name: str) -> None:
    peer = importlib.import_module(f'benchmarks.field.peers.{name}')
    async with getattr(peer, 'connected', nullcontext)():
        title = peer.TITLE.format(version(peer.PACKAGE))
        answer({'title': title, 'command': peer.COMMAND, 'note': peer.NOTE})
        while line := await asyncio.to_thread(sys.stdin.readline):
            request = json.loads(line)
            work = latencies if request['task'] == 'clock' else enqueue
            answer({'seconds': await work(peer, **request)})


def answer(content: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(content) + '\n')
    sys.stdout.flush()


async def call(peer: Any, task: str, *arguments: object) -> None:
    enqueued = peer.enqueue(task, *arguments)
    if inspect.isawaitable(enqueued):
        await enqueued


async def enqueue(peer: Any, task: str, count: int, first: int) -> float:
    start = time.perf_counter()
    for number in range(first, first + count):
        await call(peer, task, *([number] if task == 'record' else []))
    return time.perf_counter() - start


async def latencies(peer: Any, task: str, count: int, first: int) -> list[float]:
    taken = []
    for number in range(first, first + count):
        await asyncio.sleep(random.uniform(0.05, 0.55))  # at no particular moment of a poll
        start = time.time()
        await call(peer, task, number)
        taken.append(await asyncio.to_thread(start_of, number) - start)
    return taken


def start_of(number: int) -> float:
    while popped := connection().blpop([STARTED], 60):
        started, when = popped[1].split()
        if int(started) == number:  # not the second run of one before
            return float(when)
    raise TimeoutError('The job has not started in a minute.')


if __name__ == '__main__':
    asyncio.run(main(sys.argv[1]))
