"""Pickles that do something as soon as a reader trusts them, and where they can be planted."""

import os
import pickle
import zlib
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

from redis import Redis
from rq.results import Result

from libraries.job_manager import enqueue_background_job

PLACES = ('data', 'meta', 'result', 'returned')  # where RQ keeps a pickle


class Hostile:
    """Creates a folder wherever it is unpickled by something that trusts Redis."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.canary),)


def plant(connection: Redis, place: str, canary: Path) -> str:
    """The id of a finished job of ours, with a hostile pickle in one of the PLACES."""
    job = enqueue_background_job('tests.support.tasks.add', 1)
    payload = pickle.dumps(Hostile(canary))
    key = f'rq:job:{job.id}'
    connection.hset(key, 'status', 'finished')
    if place == 'returned':
        successful = Result.Type.SUCCESSFUL.value
        connection.xadd(
            f'rq:results:{job.id}', {'type': successful, 'return_value': b64encode(payload)}
        )
    elif place == 'data':
        connection.hdel(key, 'task')  # so that the data must be read
        connection.hset(key, 'data', zlib.compress(payload))
    else:
        connection.hset(key, place, payload)
    connection.zadd('rq:finished:default', {job.id: '+inf'})
    return job.id
