"""For tests of the worker: the tasks without `workers`, and files for tasks and tests to meet."""

from pathlib import Path

import pytest
from redis import Redis
from rq import Queue

from qdjobs.client.payload import PlainSerializer
from qdjobs.config import environment_config

TASK_MODULES = ('tests.support.tasks', 'tests.support.worker_tasks', 'tests.support.fault_tasks')


@pytest.fixture
def light(settings: pytest.MonkeyPatch) -> None:
    """Without `workers`, which a worker takes long to import."""
    settings.setenv('JOB_TASK_MODULES', ','.join(TASK_MODULES))
    environment_config.cache_clear()


@pytest.fixture
def plain_queue(connection: Redis) -> Queue:
    """A queue as RQ code uses it that enqueues plain data."""
    return Queue('default', connection=connection, serializer=PlainSerializer)


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """Where a task says that it has begun."""
    return tmp_path / 'begun'


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """The file that a task waits for."""
    return tmp_path / 'gate'
