"""Check Redis, workers, jobs and tasks; each finding says what to do about it.

A remedy is a command that works when it is pasted into a shell of the same folder and environment.

Changes nothing, unless a check of the application's own does. Takes five round trips for any number
of jobs, beside those checks, and imports every task module.
"""

import logging
import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from redis import Redis
from redis.exceptions import ResponseError
from rq.defaults import RQ_KEY_PREFIX

from qdjobs.client.catalogue import TaskModule, read_task_modules
from qdjobs.client.hooks import DoctorCheck, current_doctor_checks
from qdjobs.client.keys import find_wrong_keys
from qdjobs.client.names import named_tasks
from qdjobs.client.outboxes import Waiting, current_outbox
from qdjobs.client.redis import NO_CLUSTER, redis_connection
from qdjobs.client.tasks import is_own_task, resolve_task
from qdjobs.config import JobConfig, get_config, is_like_setting, similar_setting
from qdjobs.errors import (
    InvalidJobError,
    JobError,
    QueueUnavailableError,
    UnknownTaskError,
    wrong_key,
)
from qdjobs.monitoring.health import LATE, SILENCE, Health, WorkerHealth, read_health
from qdjobs.schedule.entries import Periodic, Refused, plan, read_schedule
from qdjobs.schedule.state import read_states_of
from qdjobs.sentinel import find_primary, names_sentinels

DEPTH = 1000  # entries of each list that are checked
MAX_WAIT = 300  # seconds; if a job waits for longer, there are too few workers
MAX_OUTBOX_WAIT = 60  # seconds, in which any worker relays
MOST_NAMES = 10  # in one line
PATIENCE = 5  # seconds for the database of an outbox


log = logging.getLogger(__name__)

Level = Literal['ok', 'note', 'warning', 'error']
CommandLine = Callable[..., str]  # of `flask jobs`, with these words


@dataclass(frozen=True)
class Finding:
    """The result of one check. A warning can harm jobs, an error does."""

    level: Level
    text: str  # says what to do, if anything
    remedy: str | None = None  # a command that does it


def examine(command_line: CommandLine) -> Iterator[Finding]:
    """Run all checks, and yield each finding at once. Raises ValueError for a bad setting."""
    config = get_config()
    yield from _examine_environment()
    served = None  # not known
    try:
        yield from _examine_redis(config)
        yield from _examine_keys(config)
        health = read_health(DEPTH)
    except QueueUnavailableError as error:
        yield Finding('error', str(error))
    else:
        served = _served(health)
        yield from _examine_workers(health, served, command_line)
        yield from _examine_jobs(health, command_line)
    yield from _examine_outbox(command_line)
    for module in read_task_modules():
        yield from _examine_tasks(module)
    yield from _examine_names()
    yield from _examine_schedule(command_line)
    yield from _examine_interfaces(config)
    for check in current_doctor_checks():
        yield from _examine_by(check, served)


def _examine_environment() -> Iterator[Finding]:
    """Look for settings that are misspelt. Other programs may have variables that begin so."""
    for name in sorted(os.environ):
        if is_like_setting(name) and (near := similar_setting(name)):
            text = f'{name} is set here, which is no setting of qdjobs. Did you mean {near}?'
            yield Finding('warning', text)


def _examine_redis(config: JobConfig) -> Iterator[Finding]:
    with redis_connection() as connection:
        info: dict[str, Any] = connection.info()
        refusal = _refusal_of_wait(connection) if config.wait_replicas is not None else None
    server = 'Valkey' if 'valkey_version' in info else 'Redis'
    version = info.get('valkey_version') or info.get('redis_version')
    yield Finding('ok', f'{server} {version} answers.')
    if str(info.get('redis_version', '7')).partition('.')[0] in map(str, range(1, 7)):
        yield Finding('error', 'It is too old for a JobWorker: use Redis 7 or Valkey, or newer.')
    if info.get('cluster_enabled'):
        yield Finding('error', f'It is a node of a cluster. {NO_CLUSTER}')
    if info.get('role') == 'slave':
        yield Finding('error', 'It is a replica, which accepts no job: name its primary.')
    if refusal is not None:
        yield Finding('error', f'JOB_WAIT_REPLICAS is set, but it refuses WAIT: {refusal}.')
    yield from _examine_replicas(config, server, info)
    if {info.get('aof_last_write_status'), info.get('rdb_last_bgsave_status')} & {'err'}:
        yield Finding('error', f'{server} cannot write to its disk: see its log, and free space.')
    if info.get('aof_enabled'):
        yield Finding('ok', 'It keeps an append-only file.')
    else:
        yield Finding(
            'warning',
            'It keeps no append-only file: a crash loses every job since its last snapshot, if it '
            'takes any. Put "appendonly yes" into its configuration file; until it restarts:',
            set_in_server(config, server, 'appendonly', 'yes'),
        )
    policy = info.get('maxmemory_policy', 'unknown')
    if policy == 'noeviction':
        yield Finding('ok', 'It evicts nothing.')
    else:
        yield Finding(
            'error',
            f'Its maxmemory-policy is {policy}: when memory is short it throws jobs away. Put '
            '"maxmemory-policy noeviction" into its configuration file; until it restarts:',
            set_in_server(config, server, 'maxmemory-policy', 'noeviction'),
        )


def _examine_keys(config: JobConfig) -> Iterator[Finding]:
    with redis_connection() as connection:
        for key, found in find_wrong_keys(connection, config.key_prefix, config.queues):
            yield Finding('error', wrong_key(key, found))


def _refusal_of_wait(connection: Redis) -> str | None:
    try:
        connection.execute_command('WAIT', 0, 1)
    except ResponseError as error:
        return str(error).rstrip('.')
    return None


def _examine_replicas(config: JobConfig, server: str, info: Mapping[str, Any]) -> Iterator[Finding]:
    wanted, connected = config.wait_replicas, info.get('connected_slaves', 0)
    if wanted is None:
        if names_sentinels(config.redis_url):
            yield Finding(
                'note',
                'JOB_WAIT_REPLICAS is not set: a fail-over loses the jobs that no replica has '
                'received by then.',
            )
    elif connected < wanted:
        yield Finding(
            'error',
            f'It has {_count(connected, "replica")}, but JOB_WAIT_REPLICAS is {wanted}: no job '
            'can be enqueued.',
        )
    elif connected > wanted:
        yield Finding(
            'note',
            f'It has {_count(connected, "replica")}, and JOB_WAIT_REPLICAS is {wanted}: a primary '
            'that is replaced while it is alive can lose jobs. With all of them it cannot.',
        )
    else:
        yield Finding('ok', f'It has {_count(connected, "replica")}, and all must have each job.')
    if wanted is not None and 'min_slaves_good_slaves' not in info:
        yield Finding(
            'warning',
            'A primary that is cut off from its replicas goes on. Put "min-replicas-to-write 1" '
            'into the configuration file of each server; until it restarts:',
            set_in_server(config, server, 'min-replicas-to-write', '1'),
        )


def set_in_server(config: JobConfig, server: str, name: str, value: str) -> str:
    """Return the command that changes a setting of the server. It asks for a password, if any."""
    url = urlsplit(config.redis_url)
    if url.scheme == 'unix':
        where = ['-s', url.path]
    else:
        host, port = _host_and_port(config.redis_url)
        where = ['-h', host, '-p', str(port)]
        where += ['--tls'] if url.scheme.startswith('rediss') else []
    user = ['--user', url.username] if url.username else []
    password = ['--askpass'] if _has_password(config) else []
    return shlex.join(
        [f'{server.lower()}-cli', *where, *user, *password, 'config', 'set', name, value]
    )


def _host_and_port(url: str) -> tuple[str, int]:
    if names_sentinels(url):
        with redis_connection():
            return find_primary(url)
    parts = urlsplit(url)
    return parts.hostname or 'localhost', parts.port or 6379


def clean_up(config: JobConfig) -> str:
    """Return the command of RQ that runs its clean-up."""
    prefix = config.key_prefix
    setting = f'RQ_KEY_PREFIX={shlex.quote(prefix)} ' if prefix != RQ_KEY_PREFIX else ''
    if names_sentinels(config.redis_url):
        setting += 'RQ_CONNECTION_CLASS=qdjobs.JobRedis '
    # `rq` reads the environment too: a password is not shown.
    where = [] if _has_password(config) else ['--url', config.redis_url]
    return setting + shlex.join(['rq', 'info', *where])


def _has_password(config: JobConfig) -> bool:
    url = urlsplit(config.redis_url)
    return url.password is not None or 'password=' in url.query


def _examine_workers(
    health: Health, served: frozenset[str], command_line: CommandLine
) -> Iterator[Finding]:
    if health.suspended:
        text = 'The workers are suspended and take no job. To resume them:'
        yield Finding('warning', text, command_line('resume'))
    if unserved := [queue for queue in get_config().queues if queue not in served]:
        text = f'No worker is alive on {", ".join(unserved)}. Start one:'
        yield Finding('error', text, command_line('worker'))
    else:
        alive = sum(worker.state != 'lost' for worker in health.workers)
        yield Finding('ok', f'Every queue has a worker; {_count(alive, "worker")} in all.')
    for worker in health.workers:
        yield from _examine_worker(worker, command_line)


def _served(health: Health) -> frozenset[str]:
    """The queues on which a worker is alive."""
    alive = (worker.queues for worker in health.workers if worker.state != 'lost')
    return frozenset[str]().union(*alive)


def _examine_worker(worker: WorkerHealth, command_line: CommandLine) -> Iterator[Finding]:
    name = f'Worker {worker.name} on {worker.host or "an unknown host"}'
    if worker.is_stock:
        yield Finding(
            'warning',
            f'{name} is a stock worker, and loses jobs if it dies. Start a JobWorker instead:',
            command_line('worker'),
        )
    if worker.state == 'lost':
        yield Finding(
            'warning',
            f'{name} has been silent for {show_duration(worker.silence)}. If it is gone, this line '
            'goes within eight minutes. If nothing restarts it, start another:',
            command_line('worker'),
        )


def _examine_jobs(health: Health, command_line: CommandLine) -> Iterator[Finding]:
    yield from _examine_orphans(health, command_line)
    if late := sum(queue.late for queue in health.queues):
        yield Finding(
            'error',
            f'{_count(late, "delayed job")} should have been enqueued more than {LATE} s ago, '
            'which a JobWorker does. Start one:',
            command_line('worker'),
        )
    else:
        yield Finding('ok', 'No delayed job is late.')
    yield from _examine_unknown(health, command_line)
    slow = [queue for queue in health.queues if queue.oldest > MAX_WAIT]
    for queue in slow:
        yield Finding(
            'warning',
            f'The oldest job of {queue.name} has waited for {show_duration(queue.oldest)}, with '
            f'{queue.jobs["queued"]:,} in the queue. Start more workers:',
            command_line('worker', queue.name),
        )
    if not slow:
        waiting = sum(queue.jobs['queued'] for queue in health.queues)
        yield Finding('ok', f'{_count(waiting, "job")} waiting, none for long.')
    if dead := sum(queue.jobs['failed'] for queue in health.queues):
        yield Finding(
            'note',
            f'{_count(dead, "job")} among the dead letters. To see them:',
            command_line('list', '--status', 'failed'),
        )


def _examine_unknown(health: Health, command_line: CommandLine) -> Iterator[Finding]:
    queues = [queue for queue in health.queues if queue.unknown]
    if not queues:
        return
    number = sum(queue.unknown for queue in queues)
    yield Finding(
        'warning',
        f'{_count(number, "job")} waiting for a worker of another version, such as '
        f'{queues[0].unknown_job}: {_sentence(queues[0].unknown_why)} Restart the workers with the '
        'new code; what that cannot run either, cancel. To see them:',
        command_line('list', '--status', 'scheduled'),
    )


def _examine_orphans(health: Health, command_line: CommandLine) -> Iterator[Finding]:
    if health.lost:
        # A living JobWorker recovers them at its next round of maintenance.
        recovers = any(not worker.is_stock and worker.state != 'lost' for worker in health.workers)
        yield Finding(
            'warning' if recovers else 'error',
            f'{_count(health.lost, "running job")} lost by a dead worker. A JobWorker requeues '
            f'{"them within seconds: look again:" if recovers else "them. Start one:"}',
            command_line('doctor' if recovers else 'worker'),
        )
    abandoned = sum(queue.abandoned for queue in health.queues)
    if abandoned:
        yield Finding(
            'error',
            f'{_count(abandoned, "job")} left as started by a stock worker that is gone. '
            "RQ's clean-up fails them, and then they can be retried:",
            clean_up(get_config()),
        )
    missing = sum(queue.missing for queue in health.queues)
    if missing:
        yield Finding(
            'warning',
            f'{_count(missing, "queued id")} without a record: deleted or evicted. Workers skip '
            'them; enqueue what is missing again.',
        )
    if not health.lost and not abandoned and not missing:
        yield Finding('ok', 'No job is orphaned.')


def _examine_outbox(command_line: CommandLine) -> Iterator[Finding]:
    outbox = current_outbox()
    if outbox is None:
        return
    try:
        if not outbox.has_table(PATIENCE):
            yield Finding(
                'error',
                'The outbox has no table: nothing can be enqueued by it. Migrate its database, or:',
                command_line('outbox', '--create'),
            )
            return
        waiting = outbox.read_waiting(PATIENCE)
    except QueueUnavailableError as error:
        yield Finding('error', str(error))
    else:
        yield from _examine_waiting(waiting, command_line)


def _examine_waiting(waiting: Waiting, command_line: CommandLine) -> Iterator[Finding]:
    oldest = max((queue.oldest for queue in waiting.queues), default=0)
    number = sum(queue.waiting for queue in waiting.queues)
    if oldest > MAX_OUTBOX_WAIT:
        yield Finding(
            'error',
            f'{_count(number, "row")} in the outbox, the oldest for {show_duration(oldest)}: a '
            'worker of this application relays them within seconds. To do so now:',
            command_line('outbox', '--relay'),
        )
    else:
        yield Finding('ok', f'{_count(number, "row")} in the outbox, none for long.')
    if refused := sum(queue.refused for queue in waiting.queues):
        yield Finding(
            'error',
            f'No job can be made of {_count(refused, "row")} in the outbox: {waiting.last_error} '
            'To try again, once that is changed:',
            command_line('outbox', '--relay'),
        )


def _examine_tasks(module: TaskModule) -> Iterator[Finding]:
    if module.error:
        yield Finding('error', f'{_sentence(module.error)} Fix it, or change JOB_TASK_MODULES.')
    for error in module.refused:
        yield Finding('warning', f'{_sentence(error)} If it is no task, begin its name with "_".')
    if module.tasks:
        yield Finding('ok', f'{module.name} has {_count(len(module.tasks), "task")}.')


def _examine_names() -> Iterator[Finding]:
    """Check the path behind each name: `JobQueue.add` takes one that it does not import."""
    for named in named_tasks():
        try:
            resolve_task(named.path)
        except JobError as error:
            yield Finding(
                'error',
                f'No call of {named.name!r} can be enqueued: {_sentence(error)} Correct that task, '
                'or its path.',
            )


def _examine_schedule(command_line: CommandLine) -> Iterator[Finding]:
    try:
        schedule = read_schedule()
        plans = plan(schedule)
    except (InvalidJobError, UnknownTaskError) as error:
        yield Finding('error', f'{_sentence(error)} No worker starts with it.')
        return
    for each in plans:
        if isinstance(each, Refused):
            yield Finding('error', each.error)
    if schedule:
        try:
            yield from _examine_periodic(schedule, command_line)
        except QueueUnavailableError:  # which was found before
            return


def _examine_periodic(
    schedule: Mapping[str, Periodic], command_line: CommandLine
) -> Iterator[Finding]:
    now, states = read_states_of(schedule)
    served = dict(zip(schedule, states, strict=True))
    unserved = [name for name, state in served.items() if now - (state.served_at or 0.0) > SILENCE]
    if unserved:
        text = f'No living worker enqueues what is periodic: {list_names(unserved)}. Start one:'
        yield Finding('error', text, command_line('worker'))
    old = [
        name
        for name, state in served.items()
        if name not in unserved and state.rule != str(schedule[name].rule)
    ]
    if old:
        yield Finding(
            'warning',
            f'Workers know another time for what is periodic: {list_names(old)}. Restart them.',
        )
    if not unserved and not old:
        built_in = sum(is_own_task(entry.path) for entry in schedule.values())
        own = _count(len(schedule) - built_in, 'periodic job')
        more = f' and {built_in} of qdjobs itself' if built_in else ''
        yield Finding('ok', f'{own}{more}, which workers enqueue.')


def _examine_interfaces(config: JobConfig) -> Iterator[Finding]:
    for path, secret, variables in (
        ('/rq', config.dashboard_login, 'DASHBOARD_USERNAME and DASHBOARD_PASSWORD'),
        ('/api/jobs', config.api_token, 'JOBS_API_TOKEN'),
        ('/metrics', config.metrics_token, 'METRICS_TOKEN'),
    ):
        if secret is None:
            yield Finding('note', f'There is no {path}: {variables} not set here.')


def _examine_by(check: DoctorCheck, served: frozenset[str] | None) -> Iterator[Finding]:
    if check.queue is not None and served is None:
        return  # Redis is away, which was found before
    if check.queue is not None and served is not None and check.queue not in served:
        text = f'Not checked, since no worker is alive on {check.queue}: {check.title}.'
        yield Finding('note', text)
        return
    has_fault = False
    try:
        for fault in check.faults():
            has_fault = True
            yield Finding('error', fault)
    except QueueUnavailableError as error:
        yield Finding('error', str(error))
    except (Exception, SystemExit) as error:  # of the application: the other checks still count
        log.exception('A check of the doctor has failed')
        yield Finding('error', f'Not checked, since {type(error).__name__}: {check.title}.')
    else:
        if not has_fault:
            yield Finding('ok', f'{check.title}.')


def _sentence(text: object) -> str:
    """Return a text that another sentence can follow."""
    return f'{text}' if str(text).endswith(('.', '?', '!')) else f'{text}.'


def _count(number: int, noun: str) -> str:
    return f'{number:,} {noun}{"" if number == 1 else "s"}'


def list_names(names: Sequence[str]) -> str:
    """Return names in one line, of which there may be a thousand."""
    more = len(names) - MOST_NAMES
    return ', '.join(names[:MOST_NAMES]) + (f' and {more} more' if more > 0 else '')


def show_duration(seconds: float) -> str:
    """Format a duration, such as 45 s, 12 min, 5 h or 3 d."""
    for unit, length in (('d', 86_400), ('h', 3600), ('min', 60)):
        if seconds >= 2 * length:
            return f'{seconds / length:.0f} {unit}'
    return f'{seconds:.0f} s'
