"""A peer on a server of its own: its client, which enqueues, and its worker."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis

from benchmarks.field.tasks import FINISHED
from qdjobs.server import embedded_redis, free_port
from tests.support.processes import ROOT, kill_group, session_of

ENVIRONMENTS = Path(sys.prefix) / 'field'
PEERS = {  # in the order of the table: the module of a peer, and its environment
    'rq': 'rq',
    'celery': 'celery',
    'celery_late': 'celery',
    'dramatiq': 'dramatiq',
    'huey': 'huey',
    'arq': 'arq',
    'saq': 'saq',
    'streaq': 'streaq',
    'taskiq': 'taskiq',
    'jobworker': '',  # this one
}


@dataclass
class Stage:
    """What one measurement needs. Ends all that it has started."""

    peer: str
    url: str
    redis: 'Redis'
    folder: Path
    about: dict[str, Any] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.log = self.folder / 'jobs.log'
        self.log.touch()
        self.bin = ENVIRONMENTS / PEERS[self.peer] / 'bin' if PEERS[self.peer] else None
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(('RQ_', 'JOB_', 'JOBS_'))
        } | {
            'REDIS_URL': self.url,
            'FIELD_LOG': str(self.log),
            'PYTHONPATH': str(ROOT),
            'JOB_TASK_MODULES': 'benchmarks.field.tasks,benchmarks.field.slow',
        }
        command = ['python', '-m', 'benchmarks.field.client', self.peer]
        self.client = self.start(command, piped=True)
        self.about = self._answer()

    def start(self, command: list[str], piped: bool = False) -> 'subprocess.Popen[bytes]':
        """A process of the peer, in a session of its own, its output in `output.log`."""
        program = (self.bin or Path(sys.executable).parent) / command[0]
        with (self.folder / 'output.log').open('ab') as output:
            return subprocess.Popen(
                [str(program), *command[1:]],
                cwd=ROOT,
                env=self.environment,
                start_new_session=True,
                stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else output,
                stderr=output,
            )

    def ask(self, task: str, count: int, first: int = 0) -> Any:
        """Have the client enqueue jobs; the seconds that it measured."""
        with self.lock:
            assert self.client.stdin
            request = {'task': task, 'count': count, 'first': first}
            self.client.stdin.write(json.dumps(request).encode() + b'\n')
            self.client.stdin.flush()
            return self._answer()['seconds']

    def _answer(self) -> dict[str, Any]:
        assert self.client.stdout
        line = self.client.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.peer}'s client has ended:\n{self.output()}")
        return dict(json.loads(line))

    def output(self) -> str:
        return (self.folder / 'output.log').read_text(errors='replace')[-3000:]

    @contextmanager
    def worker(self) -> Iterator['subprocess.Popen[bytes]']:
        process = self.start(self.about['command'])
        try:
            yield process
        finally:
            kill(process)

    def finished(self) -> int:
        return int(self.redis.get(FINISHED) or 0)


def kill(process: 'subprocess.Popen[bytes]') -> None:
    """Kill a process and all that it has started, in one go: none may end its job meanwhile."""
    for pid in session_of(process.pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    kill_group(process.pid)  # and what has been started meanwhile
    process.wait()


def memory(process: 'subprocess.Popen[bytes]') -> float:
    """The memory (PSS: what is shared counts once) of a process's session, in megabytes."""
    kilobytes = 0
    for pid in session_of(process.pid):
        rollup = Path(f'/proc/{pid}/smaps_rollup').read_text()
        kilobytes += int(rollup.split('\nPss:')[1].split()[0])
    return kilobytes / 1024


@contextmanager
def stage(peer: str) -> Iterator[Stage]:
    with (
        tempfile.TemporaryDirectory(prefix='field-') as folder,
        embedded_redis(free_port()) as url,
        Redis.from_url(url) as redis,
    ):
        it = Stage(peer, url, redis, Path(folder))
        try:
            yield it
        finally:
            kill(it.client)
