"""Put JobWorker in the place of RQ's Worker. Python imports it in each process of RQ's tests.

RQ's tests use the server at port 6379, by name or by default; here it has another port. pytest
imports this module too, as a plugin.
"""

import multiprocessing
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import rq
import rq.worker
from redis.connection import Connection

from qdjobs import JobWorker

PORT = int(os.environ['UPSTREAM_REDIS_PORT'])

_connect_to: Any = Connection.__init__


def _init(self: Connection, host: str = 'localhost', port: int = 6379, **rest: Any) -> None:
    _connect_to(self, host, PORT if port == 6379 else port, **rest)


Connection.__init__ = _init  # type: ignore[method-assign,assignment]

# Before anything imports rq.worker_pool, which has the class as a default argument.
assert 'rq.worker_pool' not in sys.modules
for _module in (rq, rq.worker):
    for _name in ('Worker', 'SimpleWorker'):
        setattr(_module, _name, JobWorker)

# A test needs only this of psutil.
_psutil: Any = ModuleType('psutil')
_psutil.pid_exists = lambda pid: Path(f'/proc/{pid}').exists()
sys.modules['psutil'] = _psutil


def pytest_runtest_teardown() -> None:
    """Kill the workers that a test has left running: the next has the same database."""
    for child in multiprocessing.active_children():
        child.kill()
        child.join()
