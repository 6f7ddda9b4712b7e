"""The environment, read once, as one frozen object. Nothing is read at import."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from redis import Redis

from libraries.job_errors import show

QUEUES = ('high', 'default', 'low')  # in the order in which workers serve them

_DAY = 86_400
MAX_DURATION = 366 * _DAY  # seconds: nothing is kept or awaited for ever


@dataclass(frozen=True)
class Settings:
    """What an operator can set. Web and worker processes must see the same values."""

    redis_url: str
    task_modules: tuple[str, ...]  # packages or modules whose functions may be tasks
    upload_dir: Path
    output_dir: Path
    result_ttl: int  # seconds that a result or a cancelled job is kept
    failure_ttl: int  # seconds that a failed job is kept among the dead letters


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process; `get_settings.cache_clear()` reads them anew.

    Raises ValueError, naming the variable, for a value that cannot be used.
    """
    return _read(os.environ)


def _read(env: Mapping[str, str]) -> Settings:
    return Settings(
        redis_url=_redis_url(env),
        task_modules=_task_modules(env.get('JOB_TASK_MODULES') or 'workers'),
        upload_dir=Path(env.get('UPLOAD_DIR') or 'uploads').resolve(),
        output_dir=Path(env.get('OUTPUT_DIR') or 'output').resolve(),
        result_ttl=_seconds(env, 'JOB_RESULT_TTL', _DAY),
        failure_ttl=_seconds(env, 'JOB_FAILURE_TTL', 7 * _DAY),
    )


def _redis_url(env: Mapping[str, str]) -> str:
    # The same order as `rq worker`, so that web and worker never part ways.
    name = 'RQ_REDIS_URL' if env.get('RQ_REDIS_URL') else 'REDIS_URL'
    url = env.get(name) or 'redis://localhost:6379/0'
    try:
        Redis.from_url(url).connection_pool.make_connection()  # which opens no socket
    except (ValueError, TypeError):
        # Without the cause, which can hold the password.
        raise ValueError(
            f'{name} must be of the form redis://user:password@host:6379/0, or begin with '
            'rediss:// or unix://, and its options must be those of redis-py.'
        ) from None
    return url


def _task_modules(text: str) -> tuple[str, ...]:
    modules = tuple(name.strip() for name in text.split(',') if name.strip())
    if not modules or not all(part.isidentifier() for name in modules for part in name.split('.')):
        raise ValueError(f'JOB_TASK_MODULES must list modules, comma between them, not {text!r}.')
    return modules


def _seconds(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name) or str(default)
    if not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= MAX_DURATION:
        raise ValueError(
            f'{name} must be a whole number of seconds, from 1 to {MAX_DURATION}, not {show(text)}.'
        )
    return int(text)
