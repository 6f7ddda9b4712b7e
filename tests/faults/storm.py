"""A storm over some workers and three queues, and what must be left when it has passed."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue, Repeat
from rq.registry import clean_registries

from libraries.job_manager import (
    enqueue_background_job,
    enqueue_background_jobs,
    get_job_statuses,
)
from qdjobs.client.payload import PlainSerializer
from qdjobs.errors import QueueUnavailableError
from tests.support.processes import ROOT, kill_group, start_worker
from tests.support.proxy import Proxy

QUEUES = ('high', 'default', 'low')
SLEEP = 'tests.support.tasks.sleep'


@dataclass
class Storm:
    """Some workers, of which it kills one at a time at a random instant, and starts another."""

    worker_class: str
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    size: int = 3
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    hits: int = 0

    def __enter__(self) -> 'Storm':
        self.workers = [self._start() for _ in range(self.size)]
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.terminate()
        for worker in self.workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(15)
            kill_group(worker.pid)
            worker.wait()

    def _start(self) -> 'subprocess.Popen[bytes]':
        log = self.folder / 'storm.log'
        return start_worker(log, '--worker-class', self.worker_class, **self.environment)

    def strike(self, victim: str) -> None:
        """Kill one worker, its horse, or both as a 'group'; replace the dead.

        'terminate' asks it to end. 'deploy' does too, and kills it a moment later.
        """
        number = self.chance.randrange(len(self.workers))
        worker = self.workers[number]
        time.sleep(self.chance.uniform(0, 0.3))
        with contextlib.suppress(ProcessLookupError):
            if victim == 'worker':
                os.kill(worker.pid, signal.SIGKILL)
            elif victim == 'group':
                os.killpg(worker.pid, signal.SIGKILL)
            elif victim == 'horse':
                for child in children(worker.pid):
                    os.kill(child, signal.SIGKILL)
            else:
                worker.terminate()
                if victim == 'deploy':
                    time.sleep(self.chance.uniform(0, 0.2))
                    os.killpg(worker.pid, signal.SIGKILL)
        self.hits += 1
        if victim != 'horse':
            worker.wait(120)
            self.workers[number] = self._start()

    def replace_the_dead(self) -> None:
        """As a supervisor does."""
        self.workers = [self._start() if w.poll() is not None else w for w in self.workers]


def children(pid: int) -> list[int]:
    try:
        return [
            int(child) for child in Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
        ]
    except OSError:
        return []


def enqueue_everywhere(count: int, task: str, **options: Any) -> list[str]:
    """`count` jobs spread over the queues; their ids."""
    jobs = []
    for queue in QUEUES:
        calls = [{'seconds': 0.002} for _ in range(count // len(QUEUES))]
        jobs += enqueue_background_jobs(task, calls, job_queue=queue, **options)
    return [job.id for job in jobs]


def enqueue_mixture(connection: Redis, marker: Path, chance: random.Random) -> list[str]:
    """A few jobs of each kind: plain, delayed, retried, dependent and repeated ones; their ids.

    None of those that Redis refuses, for it may be full.
    """
    queue = Queue('default', connection=connection, serializer=PlainSerializer)
    keep = {'result_ttl': 86_400}
    ids: list[str] = []

    def relatives() -> list[str]:
        parents = [queue.enqueue(SLEEP, 0.002, **keep) for _ in range(2)]
        child = queue.enqueue(SLEEP, 0.002, depends_on=parents, **keep)
        grandchild = queue.enqueue(SLEEP, 0.002, depends_on=child, **keep)
        return [job.id for job in (*parents, child, grandchild)]

    def repeated() -> list[str]:
        return [queue.enqueue(SLEEP, 0.002, repeat=Repeat(2, interval=1), **keep).id]

    def retried() -> list[str]:
        task = 'tests.support.tasks.fail_until'
        job = enqueue_background_job(task, str(marker), 1, job_max_retries=3, job_retry_delay=1)
        return [job.id]

    def delayed() -> list[str]:
        return [enqueue_background_job(SLEEP, 0.002, job_delay=chance.uniform(0, 3)).id]

    for enqueue in (partial(enqueue_everywhere, 9, SLEEP), relatives, repeated, retried, delayed):
        with contextlib.suppress(RedisError, QueueUnavailableError):
            ids += enqueue()
    return ids


@contextlib.contextmanager
def beside(*acts: Callable[[threading.Event], None]) -> Iterator[None]:
    """Let each act in a thread of its own, until the block ends and the event is set."""
    over = threading.Event()
    threads = [threading.Thread(target=act, args=(over,)) for act in acts]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def full_now_and_then(redis_url: str, chance: random.Random) -> Iterator[None]:
    """Redis that is full for a moment, again and again."""

    def fill(over: threading.Event) -> None:
        with Redis.from_url(redis_url) as connection:
            while not over.wait(chance.uniform(1, 3)):
                connection.config_set('maxmemory', 1)
                over.wait(chance.uniform(0.1, 1))
                connection.config_set('maxmemory', 0)

    with beside(fill):
        yield


@contextlib.contextmanager
def cut_now_and_then(proxy: Proxy, chance: random.Random) -> Iterator[None]:
    """A connection that breaks after Redis has executed a script, again and again."""

    def cut(over: threading.Event) -> None:
        while not over.wait(chance.uniform(0.1, 0.4)):
            proxy.max_cuts = proxy.cuts + 1
            proxy.cut_after = b'EVALSHA'

    with beside(cut):
        yield
    proxy.cut_after = None


@contextlib.contextmanager
def rq_s_tools_beside(redis_url: str) -> Iterator[None]:
    """Registry counts and a stock worker's maintenance in a loop, and `rq info` now and then."""

    def tidy(over: threading.Event) -> None:
        with Redis.from_url(redis_url) as connection:
            while not over.wait(0.02):
                with contextlib.suppress(RedisError):
                    for name in QUEUES:
                        queue = Queue(name, connection=connection)
                        clean_registries(queue)
                        _ = queue.started_job_registry.count, queue.finished_job_registry.count

    def look(over: threading.Event) -> None:
        command = [str(Path(sys.executable).with_name('rq')), 'info']
        while not over.wait(0.5):
            subprocess.run(command, cwd=ROOT, capture_output=True, check=False)

    with beside(tidy, look):
        yield


def waiting(connection: Redis) -> int:
    """The number of jobs in the queues."""
    return sum(connection.llen(f'rq:queue:{name}') for name in QUEUES)


def count_finished(ids: list[str]) -> int:
    return sum(status['status'] == 'finished' for status in get_job_statuses(ids))


def drain(ids: list[str], storm: Storm) -> dict[str, int]:
    """Wait until every job has finished, or nothing more will come; count the statuses."""
    deadline = time.monotonic() + 120
    while True:
        storm.replace_the_dead()
        with contextlib.suppress(QueueUnavailableError):  # the storm may have slowed Redis too
            counts = Counter[str](status['status'] for status in get_job_statuses(ids))
            if counts == {'finished': len(ids)} or time.monotonic() > deadline:
                return dict(counts)
        time.sleep(0.3)


def lost(ids: list[str], connection: Redis) -> list[str]:
    """Jobs that have not ended, and are in no queue and no registry."""
    found: set[str] = set()
    for name in QUEUES:
        waiting: list[Any] = [*connection.lrange(f'rq:queue:{name}', 0, -1)]
        for registry in ('wip', 'scheduled'):
            waiting += connection.zrange(f'rq:{registry}:{name}', 0, -1)
        found |= {member.decode().split(':')[0] for member in waiting}
    return [
        status['id']
        for status in get_job_statuses(ids)
        if status['status'] in ('queued', 'scheduled', 'started') and status['id'] not in found
    ]
