"""A JobWorker that counts nothing, to compare with."""

from pathlib import Path

from qdjobs.client import redis

redis.COUNT = Path(__file__).with_name('uncounted.lua')  # before the worker makes its scripts

from qdjobs.worker import JobWorker  # noqa: E402

__all__ = ['JobWorker']
