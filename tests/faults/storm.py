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
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError
from rq import Queue
from rq.registry import clean_registries

from libraries.job_manager import enqueue_background_jobs, get_job_statuses
from qdjobs.errors import QueueUnavailableError
from tests.support.processes import ROOT, kill_group, start_worker

QUEUES = ('high', 'default', 'low')


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
        """Kill one worker, its horse, or both as a 'group', or 'terminate' it; replace the dead."""
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


@contextlib.contextmanager
def rq_s_tools_beside(redis_url: str) -> Iterator[None]:
    """Registry counts and a stock worker's maintenance in a loop, and `rq info` now and then."""
    over = threading.Event()

    def tidy() -> None:
        with Redis.from_url(redis_url) as connection:
            while not over.wait(0.02):
                with contextlib.suppress(RedisError):
                    for name in QUEUES:
                        queue = Queue(name, connection=connection)
                        clean_registries(queue)
                        _ = queue.started_job_registry.count, queue.finished_job_registry.count

    def look() -> None:
        command = [str(Path(sys.executable).with_name('rq')), 'info']
        while not over.wait(0.5):
            subprocess.run(command, cwd=ROOT, capture_output=True, check=False)

    threads = [threading.Thread(target=run) for run in (tidy, look)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def count_finished(ids: list[str]) -> int:
    return sum(status['status'] == 'finished' for status in get_job_statuses(ids))


def drain(ids: list[str], storm: Storm) -> dict[str, int]:
    """Wait until every job has finished, or nothing more will come; count the statuses."""
    deadline = time.monotonic() + 120
    while True:
        storm.replace_the_dead()
        with contextlib.suppress(QueueUnavailableError):  # the storm may have slowed Redis too
            counts = Counter(status['status'] for status in get_job_statuses(ids))
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
