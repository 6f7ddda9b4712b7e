"""Read the configuration from `app.config` and, for names missing there, from the environment.

Nothing is read at import. docs/operations.md lists every variable.
"""

import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import lru_cache
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, overload

from flask import Flask, current_app, has_app_context
from redis import ConnectionPool
from redis.exceptions import RedisError
from rq.defaults import RQ_KEY_PREFIX

from qdjobs.errors import short_repr
from qdjobs.sentinel import OPTIONS, add_options, connection_options

QUEUES = ('high', 'default', 'low')  # the default of JOB_QUEUES; the highest priority first
EXTENSION = 'qdjobs'  # the key of an application's JobConfig in `app.extensions`

_DAY = 86_400
MAX_DURATION = 366 * _DAY  # seconds
MIN_INTERVAL, MAX_INTERVAL = 0.01, 20.0  # seconds
MAX_RESULT = 60  # megabytes; no more than 64 are read
MAX_REPLICAS = 10
MAX_ARGUMENTS = 60  # megabytes; a worker reads no more than 64

# The first two in the order in which `rq worker` reads them, so that web and worker agree.
VARIABLES = (
    'RQ_REDIS_URL', 'REDIS_URL', 'JOB_REDIS_OPTIONS', 'JOB_WAIT_REPLICAS',
    'JOB_KEY_PREFIX', 'JOB_QUEUES', 'JOB_TASK_MODULES', 'JOB_APP',
    'JOB_SCHEDULE',
    'JOB_RESULT_TTL', 'JOB_FAILURE_TTL', 'JOB_MAX_ARGUMENTS', 'JOB_MAX_RESULT', 'JOB_LEASE',
    'JOB_MAX_WORKER_DEATHS', 'JOB_UNKNOWN_TASK_GRACE', 'JOB_SHUTDOWN_GRACE', 'JOB_HORSE_MAX_JOBS',
    'JOB_HORSE_MAX_MEMORY', 'JOB_IDLE_WAIT', 'JOB_DUE_INTERVAL', 'JOB_HEARTBEAT_INTERVAL',
    'JOB_TIDY_INTERVAL', 'JOB_HEALTH_FILE', 'JOB_LOG_FORMAT', 'JOBS_API_TOKEN', 'METRICS_TOKEN',
    'DASHBOARD_USERNAME', 'DASHBOARD_PASSWORD',
)  # fmt: skip

# Which a worker need not know.
WEB_SECRETS = ('JOBS_API_TOKEN', 'METRICS_TOKEN', 'DASHBOARD_USERNAME', 'DASHBOARD_PASSWORD')

# Where `qdjobs.server --app` names its server to the worker that it starts; no setting.
ONLY_REDIS = 'QDJOBS_ONLY_REDIS'

_QUEUE_NAME = re.compile(r'[A-Za-z0-9_.-]{1,100}')  # no comma or space, which separate names
_KEY_PREFIX = re.compile(r'[A-Za-z0-9_.:{}-]{1,100}')


@dataclass(frozen=True)
class JobConfig:
    """The configuration of one application, the same in its web and worker processes.

    Two are equal if a worker behaves the same with both.
    """

    redis_url: str = field(repr=False)  # can contain a password
    wait_replicas: int | None  # that must have a job, or its outcome; None: the primary is enough
    key_prefix: str  # of every key in Redis, RQ's included
    queues: tuple[str, ...]  # in the order in which workers serve them
    task_modules: tuple[str, ...]  # packages or modules whose functions can be tasks
    schedule: str | None  # the module that has the table of periodic jobs
    result_ttl: int  # seconds that a result or a cancelled job is kept
    failure_ttl: int  # seconds that a failed job is kept among the dead letters
    max_arguments: int  # megabytes, serialized; a job with larger ones is refused
    max_result: int  # megabytes, serialized; a job with a larger result fails
    lease: int  # seconds without a renewal after which a job is requeued
    max_worker_deaths: int  # workers that can die under a job before it fails
    unknown_task_grace: int  # seconds in which a worker that knows a job's task can still start
    shutdown_grace: int | None  # seconds that a deploy waits for a running job; None: no limit
    horse_max_jobs: int  # jobs after which a work horse is replaced, against leaks
    horse_max_memory: int | None  # megabytes after which a work horse is replaced; None: no limit
    idle_wait: float  # seconds that an idle worker waits for a wake-up before it polls
    due_interval: float  # seconds, at least, between two checks for due jobs
    heartbeat_interval: float  # seconds between two heartbeats of a worker
    tidy_interval: float  # seconds between two rounds of tidying, of all workers together
    log_format: str  # 'text' or 'json': of a worker, unless its application configures logging
    health_file: str | None = field(compare=False)  # by which a probe sees that a worker lives
    # The application that a worker loads, as for `flask --app`; None: jobs run without one.
    app: str | None = field(compare=False)
    api_token: str | None = field(repr=False, compare=False)  # None: there is no HTTP API
    metrics_token: str | None = field(repr=False, compare=False)  # None: there is no /metrics
    # User and password; None: there is no dashboard.
    dashboard_login: tuple[str, str] | None = field(repr=False, compare=False)
    # The variables that this was read from, for the environment of another process.
    variables: Mapping[str, str] = field(repr=False, compare=False)
    # Those that an application has named in its one file, which is a task module for them alone.
    own_tasks: frozenset[str] = field(default=frozenset(), compare=False)

    @property
    def default_queue(self) -> str:
        """The queue of a job that names none: `default`, or the first if that does not exist."""
        return 'default' if 'default' in self.queues else self.queues[0]


def get_config() -> JobConfig:
    """Return the configuration of the current application.

    Outside of an application context, such as in a thread, it is that of the one application in
    this process that has a configuration of its own, or else the environment's. Raises
    RuntimeError if there are several, ValueError, naming the variable, for an invalid value.
    """
    if has_app_context() and (config := current_app.extensions.get(EXTENSION)) is not None:
        return config  # type: ignore[no-any-return]
    environment = environment_config()
    if not _configured:  # as in most processes: no hash of a configuration for each job
        return environment
    others = _configured - {environment}
    if len(others) > 1:
        raise RuntimeError(
            'This process has applications with different configurations of their jobs: write '
            '`with app.app_context():` around the call, with the application that is meant, after '
            'its JobQueue is made.'
        )
    return next(iter(others), environment)


def configure(app: Flask, config: JobConfig) -> None:
    """Give an application its configuration, in place of the one that it may have."""
    if EXTENSION in app.extensions:
        _configured.discard(app.extensions[EXTENSION])
    app.extensions[EXTENSION] = config
    if config.variables != _set_variables(os.environ):
        _configured.add(config)


def allow_own_task(config: JobConfig, path: str) -> JobConfig:
    """Return a configuration in which a task can come from the one file of an application.

    `workers`, the default, remains allowed where there is such a module.
    """
    own = config.own_tasks | {path}
    if config.own_tasks:
        return replace(config, own_tasks=own)
    before = [name for name in config.task_modules if find_spec(name)]
    modules = (*before, path.rpartition('.')[0])
    variables = MappingProxyType({**config.variables, 'JOB_TASK_MODULES': ','.join(modules)})
    return replace(config, task_modules=modules, variables=variables, own_tasks=own)


def has_own_task_modules(used: tuple[str, ...]) -> bool:
    """Return whether an application sets JOB_TASK_MODULES itself, perhaps unlike those in use."""
    if has_app_context() and 'JOB_TASK_MODULES' in current_app.config:
        return True
    return any(config.task_modules != used for config in _configured)


def known_configs() -> Collection[JobConfig]:
    """Return the configuration of the current application; outside of a context, of all."""
    return [get_config()] if has_app_context() else _configured or [environment_config()]


@contextmanager
def without_applications() -> Iterator[None]:
    """Forget the applications of this process in a block, and afterwards those that it has made."""
    before = set(_configured)
    _configured.clear()
    try:
        yield
    finally:
        _configured.clear()
        _configured.update(before)


_configured: set[JobConfig] = set()  # of the applications that do not just have the environment's


@lru_cache(maxsize=1)
def environment_config() -> JobConfig:
    """Return the configuration of the environment, cached until `.cache_clear()`."""
    return _read(os.environ)


def read_app_config(app_config: Mapping[str, Any]) -> JobConfig:
    """Return the configuration of an application: its own `config` first, then the environment.

    A value is text as in the environment, a number, or a list of names; None means unset. Raises
    ValueError, naming the key, for an invalid value or an unknown key.
    """
    for key in app_config:
        if is_like_setting(key):
            near = similar_setting(key)
            hint = f'Did you mean {near}?' if near else 'docs/operations.md lists them all.'
            raise ValueError(
                f'app.config has {key}, which is no setting of qdjobs. {hint} A setting of your '
                'own must not begin with JOB_ or JOBS_.'
            )
    own = {key: _as_text(key, app_config[key]) for key in VARIABLES if key in app_config}
    if 'REDIS_URL' in own:
        own.setdefault('RQ_REDIS_URL', '')  # the environment's would take precedence
    return _read({**os.environ, **own})


def is_like_setting(name: str) -> bool:
    """Return whether a name is none of VARIABLES, but begins as they do."""
    return name.startswith(('JOB_', 'JOBS_')) and name not in VARIABLES


def similar_setting(name: str) -> str | None:
    """Return which of VARIABLES may have been meant by another name."""
    return next(iter(get_close_matches(name, VARIABLES, n=1, cutoff=0.8)), None)


def _as_text(key: str, value: Any) -> str:
    if value is None:
        return ''
    if isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
        return ','.join(value)
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    kind = type(value).__name__  # and not the value, which may be a secret
    raise ValueError(f'app.config[{key!r}] must be text, a number or a list of names, not {kind}.')


def _read(env: Mapping[str, str]) -> JobConfig:
    return JobConfig(
        redis_url=_redis_url(env),
        wait_replicas=_whole(env, 'JOB_WAIT_REPLICAS', None, MAX_REPLICAS),
        key_prefix=_key_prefix(env),
        queues=_queues(env),
        task_modules=_task_modules(env.get('JOB_TASK_MODULES') or 'workers'),
        app=env.get('JOB_APP') or None,
        schedule=_module(env, 'JOB_SCHEDULE'),
        result_ttl=_whole(env, 'JOB_RESULT_TTL', _DAY),
        failure_ttl=_whole(env, 'JOB_FAILURE_TTL', 7 * _DAY),
        max_arguments=_whole(env, 'JOB_MAX_ARGUMENTS', 1, MAX_ARGUMENTS),
        max_result=_whole(env, 'JOB_MAX_RESULT', 10, MAX_RESULT),
        lease=_whole(env, 'JOB_LEASE', 30),
        max_worker_deaths=_whole(env, 'JOB_MAX_WORKER_DEATHS', 3),
        unknown_task_grace=_whole(env, 'JOB_UNKNOWN_TASK_GRACE', 3600),
        shutdown_grace=_whole(env, 'JOB_SHUTDOWN_GRACE', None),
        horse_max_jobs=_whole(env, 'JOB_HORSE_MAX_JOBS', 1000),
        horse_max_memory=_whole(env, 'JOB_HORSE_MAX_MEMORY', None),
        idle_wait=_interval(env, 'JOB_IDLE_WAIT', 1.0),
        due_interval=_interval(env, 'JOB_DUE_INTERVAL', 0.5),
        heartbeat_interval=_interval(env, 'JOB_HEARTBEAT_INTERVAL', 10.0),
        tidy_interval=_interval(env, 'JOB_TIDY_INTERVAL', 5.0),
        log_format=_log_format(env.get('JOB_LOG_FORMAT') or 'text'),
        health_file=env.get('JOB_HEALTH_FILE') or None,
        api_token=_token(env, 'JOBS_API_TOKEN'),
        metrics_token=_token(env, 'METRICS_TOKEN'),
        dashboard_login=_login(env),
        variables=MappingProxyType(_set_variables(env)),
    )


def _set_variables(env: Mapping[str, str]) -> dict[str, str]:
    return {name: env[name] for name in VARIABLES if env.get(name)}


def _redis_url(env: Mapping[str, str]) -> str:
    name = 'RQ_REDIS_URL' if env.get('RQ_REDIS_URL') else 'REDIS_URL'
    url, options = env.get(name) or 'redis://localhost:6379/0', env.get(OPTIONS) or ''
    if not _can_connect(url):
        raise ValueError(  # without a cause, which can contain the password
            f'{name} must be of the form redis://user:password@host:6379/0, begin with rediss:// '
            'or unix://, or name Sentinels: redis+sentinel://user:password@host1,host2:26379/service.'
            ' Its options must be those of redis-py, without decode_responses.'
        )
    whole = add_options(url, options)
    if options and not ('=' in options and _can_connect(whole)):
        raise ValueError(
            f'{OPTIONS} must be options of redis-py that {name} can have, without '
            'decode_responses: ssl_cert_reqs=none&client_name=shop.'
        )
    return whole


def _can_connect(url: str) -> bool:
    try:
        options = connection_options(url)
        ConnectionPool(**options).make_connection()  # opens no socket
    except (ValueError, TypeError, RedisError):
        return False
    return 'decode_responses' not in options  # records are bytes


def _key_prefix(env: Mapping[str, str]) -> str:
    prefix = env.get('JOB_KEY_PREFIX') or RQ_KEY_PREFIX
    if not _KEY_PREFIX.fullmatch(prefix):
        raise ValueError(
            'JOB_KEY_PREFIX must be of letters, digits and the characters _ . : - { }, not '
            f'{short_repr(prefix)}.'
        )
    return prefix


def _queues(env: Mapping[str, str]) -> tuple[str, ...]:
    text = env.get('JOB_QUEUES')
    if not text:
        return QUEUES
    queues = _names(text)
    for name in queues:
        if not _QUEUE_NAME.fullmatch(name):
            raise ValueError(
                'JOB_QUEUES must list names of letters, digits, dots, dashes and underscores, '
                f'comma between them; {short_repr(name)} is none.'
            )
    if not queues or len(set(queues)) < len(queues):
        raise ValueError(f'JOB_QUEUES must list each queue once, not {short_repr(text)}.')
    return queues


def _task_modules(text: str) -> tuple[str, ...]:
    modules = _names(text)
    if not modules or not all(part.isidentifier() for name in modules for part in name.split('.')):
        raise ValueError(f'JOB_TASK_MODULES must list modules, comma between them, not {text!r}.')
    return modules


def _module(env: Mapping[str, str], name: str) -> str | None:
    module = env.get(name) or None
    if module and not all(part.isidentifier() for part in module.split('.')):
        raise ValueError(
            f'{name} must be the dotted name of a module, such as shop.schedule, not '
            f'{short_repr(module)}.'
        )
    return module


def _log_format(text: str) -> str:
    if text not in ('text', 'json'):
        raise ValueError(f'JOB_LOG_FORMAT must be text or json, not {short_repr(text)}.')
    return text


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(',') if name.strip())


def _token(env: Mapping[str, str], name: str) -> str | None:
    token = env.get(name) or None
    # Other characters cannot be sent in a header: no request could have the token.
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
def _whole(env: Mapping[str, str], name: str, default: int, maximum: int = ...) -> int: ...


@overload
def _whole(env: Mapping[str, str], name: str, default: None, maximum: int = ...) -> int | None: ...


def _whole(
    env: Mapping[str, str], name: str, default: int | None, maximum: int = MAX_DURATION
) -> int | None:
    text = env.get(name)
    if not text:
        return default
    if not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= maximum:
        raise ValueError(
            f'{name} must be a whole number from 1 to {maximum}, not {short_repr(text)}.'
        )
    return int(text)


def _interval(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name)
    if not text:
        return default
    if (
        len(text) > 9
        or not re.fullmatch(r'[0-9]+(\.[0-9]+)?', text)
        or not MIN_INTERVAL <= float(text) <= MAX_INTERVAL
    ):
        raise ValueError(
            f'{name} must be a number of seconds from {MIN_INTERVAL:g} to {MAX_INTERVAL:g}, '
            f'not {short_repr(text)}.'
        )
    return float(text)
