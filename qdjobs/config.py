"""The environment, read once, as one frozen object. Nothing is read at import."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import overload

from qdjobs.errors import show
from libraries.mail.server import SmtpUrl, read_smtp_url

QUEUES = ('high', 'default', 'low')  # in the order in which workers serve them

_DAY = 86_400
MAX_DURATION = 366 * _DAY  # seconds: nothing is kept or awaited for ever


@dataclass(frozen=True)
class Settings:
    """What an operator can set. Web and worker processes must see the same values."""

    redis_url: str = field(repr=False)  # which can hold a password
    task_modules: tuple[str, ...]  # packages or modules whose functions may be tasks
    upload_dir: Path
    output_dir: Path
    result_ttl: int  # seconds that a result or a cancelled job is kept
    failure_ttl: int  # seconds that a failed job is kept among the dead letters
    app: str | None  # `module:factory` of the Flask application that jobs run in, if any
    lease: int  # seconds without a sign of its worker after which a job runs elsewhere
    max_worker_deaths: int  # workers that may die under a job before it fails
    shutdown_grace: int | None  # seconds that a deploy waits for a running job; None: for ever
    horse_max_jobs: int  # jobs after which a work horse is replaced, against leaks
    webhook_hosts: tuple[str, ...]  # to which a job's webhooks may go
    smtp_url: SmtpUrl | None  # where mail goes; None: it cannot be sent
    mail_from: tuple[str, str]  # the sender of every mail: name, address
    api_token: str | None = field(repr=False)  # of the HTTP API; None: there is no API
    metrics_token: str | None = field(repr=False)  # of /metrics; None: there is no /metrics
    dashboard_login: tuple[str, str] | None = field(repr=False)  # user, password; None: no /rq


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
        result_ttl=_whole(env, 'JOB_RESULT_TTL', _DAY),
        failure_ttl=_whole(env, 'JOB_FAILURE_TTL', 7 * _DAY),
        app=env.get('JOB_APP') or None,
        lease=_whole(env, 'JOB_LEASE', 30),
        max_worker_deaths=_whole(env, 'JOB_MAX_WORKER_DEATHS', 3),
        shutdown_grace=_whole(env, 'JOB_SHUTDOWN_GRACE', None),
        horse_max_jobs=_whole(env, 'JOB_HORSE_MAX_JOBS', 1000),
        webhook_hosts=_names(env.get('JOB_WEBHOOK_HOSTS', '')),
        smtp_url=_smtp_url(env),
        mail_from=_mail_from(env),
        api_token=_token(env, 'JOBS_API_TOKEN'),
        metrics_token=_token(env, 'METRICS_TOKEN'),
        dashboard_login=_login(env),
    )


def _redis_url(env: Mapping[str, str]) -> str:
    # The same order as `rq worker`, so that web and worker never part ways.
    name = 'RQ_REDIS_URL' if env.get('RQ_REDIS_URL') else 'REDIS_URL'
    url = env.get(name) or 'redis://localhost:6379/0'
    from redis import Redis  # which tasks, that need settings too, do without

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
    modules = _names(text)
    if not modules or not all(part.isidentifier() for name in modules for part in name.split('.')):
        raise ValueError(f'JOB_TASK_MODULES must list modules, comma between them, not {text!r}.')
    return modules


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(',') if name.strip())


def _smtp_url(env: Mapping[str, str]) -> SmtpUrl | None:
    text = env.get('SMTP_URL')
    try:
        return read_smtp_url(text) if text else None
    except ValueError as error:
        raise ValueError(f'SMTP_URL {error}') from None


def _mail_from(env: Mapping[str, str]) -> tuple[str, str]:
    text = env.get('MAIL_FROM')
    if not text:
        return '', 'noreply@localhost'
    from libraries.mail.message import read_sender  # whose validator takes a while to import

    try:
        return read_sender(text)
    except ValueError as error:
        raise ValueError(f'MAIL_FROM cannot be the sender of a mail: {error}') from None


def _token(env: Mapping[str, str], name: str) -> str | None:
    token = env.get(name) or None
    # Anything else could not stand in a header: nobody would ever be let in.
    if token and not all('!' <= character <= '~' for character in token):
        raise ValueError(f'{name} must be of visible ASCII characters, without spaces.')
    return token


def _login(env: Mapping[str, str]) -> tuple[str, str] | None:
    user, password = env.get('DASHBOARD_USERNAME'), env.get('DASHBOARD_PASSWORD')
    if not user and not password:
        return None
    if not user or not password or ':' in user:
        raise ValueError(
            'DASHBOARD_USERNAME, without a colon, and DASHBOARD_PASSWORD belong together: '
            'set both, or neither for no dashboard.'
        )
    return user, password


@overload
def _whole(env: Mapping[str, str], name: str, default: int) -> int: ...


@overload
def _whole(env: Mapping[str, str], name: str, default: None) -> int | None: ...


def _whole(env: Mapping[str, str], name: str, default: int | None) -> int | None:
    text = env.get(name)
    if not text:
        return default
    if not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= MAX_DURATION:
        raise ValueError(
            f'{name} must be a whole number from 1 to {MAX_DURATION}, not {show(text)}.'
        )
    return int(text)
