"""Check Redis, workers, jobs and tasks; each finding says what to do about it.

Changes nothing. Takes two round trips for any number of jobs, and imports every task module.
"""

import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from qdjobs.client.redis import redis_connection
from qdjobs.client.tasks import import_module, public_functions, resolve_task
from qdjobs.config import JobConfig, get_config
from qdjobs.errors import JobError, QueueUnavailableError
from qdjobs.monitoring.health import LATE, Health, WorkerHealth, read_health

DEPTH = 1000  # entries of each list that are checked
MAX_WAIT = 300  # seconds; if a job waits for longer, there are too few workers


_START = 'Start one: flask jobs worker.'

Level = Literal['ok', 'note', 'warning', 'error']


@dataclass(frozen=True)
class Finding:
    """The result of one check. A warning can harm jobs, an error does."""

    level: Level
    text: str  # says what to do, if anything


def examine() -> Iterator[Finding]:
    """Run all checks, and yield each finding at once. Raises ValueError for a bad setting."""
    config = get_config()
    try:
        yield from _examine_redis()
        health = read_health(DEPTH)
    except QueueUnavailableError as error:
        yield Finding('error', str(error))
    else:
        yield from _examine_workers(health)
        yield from _examine_jobs(health)
    for module in config.task_modules:
        yield from _examine_tasks(module)
    yield from _examine_interfaces(config)


def _examine_redis() -> Iterator[Finding]:
    with redis_connection() as connection:
        info: dict[str, Any] = connection.info()
    server = 'Valkey' if 'valkey_version' in info else 'Redis'
    version = info.get('valkey_version') or info.get('redis_version')
    yield Finding('ok', f'{server} {version} answers.')
    if str(info.get('redis_version', '7')).partition('.')[0] in map(str, range(1, 7)):
        yield Finding('error', 'It is too old for a JobWorker: use Redis 7 or Valkey, or newer.')
    if {info.get('aof_last_write_status'), info.get('rdb_last_bgsave_status')} & {'err'}:
        yield Finding('error', f'{server} cannot write to its disk: see its log, and free space.')
    if info.get('aof_enabled'):
        yield Finding('ok', 'It keeps an append-only file.')
    else:
        yield Finding(
            'warning',
            'It keeps no append-only file: a crash loses every job since its last snapshot, if it '
            'takes any. Set "appendonly yes".',
        )
    policy = info.get('maxmemory_policy', 'unknown')
    if policy == 'noeviction':
        yield Finding('ok', 'It evicts nothing.')
    else:
        yield Finding(
            'error',
            f'Its maxmemory-policy is {policy}: when memory is short it throws jobs away. '
            'Set "maxmemory-policy noeviction".',
        )


def _examine_workers(health: Health) -> Iterator[Finding]:
    if health.suspended:
        yield Finding('warning', 'The workers are suspended and take no job. Run: rq resume.')
    alive = [worker for worker in health.workers if worker.state != 'lost']
    served = frozenset[str]().union(*(worker.queues for worker in alive))
    if unserved := [queue for queue in get_config().queues if queue not in served]:
        yield Finding('error', f'No worker is alive on {", ".join(unserved)}. {_START}')
    else:
        yield Finding('ok', f'Every queue has a worker; {_count(len(alive), "worker")} in all.')
    for worker in health.workers:
        yield from _examine_worker(worker)


def _examine_worker(worker: WorkerHealth) -> Iterator[Finding]:
    name = f'Worker {worker.name} on {worker.host or "an unknown host"}'
    if worker.is_stock:
        yield Finding(
            'warning',
            f'{name} is a stock worker, and loses jobs if it dies. Start '
            '`flask jobs worker` instead.',
        )
    if worker.state == 'lost':
        yield Finding(
            'warning',
            f'{name} has been silent for {show_duration(worker.silence)}. See that something '
            'restarts it; if it is gone, this line goes within eight minutes.',
        )


def _examine_jobs(health: Health) -> Iterator[Finding]:
    yield from _examine_orphans(health)
    if late := sum(queue.late for queue in health.queues):
        yield Finding(
            'error',
            f'{_count(late, "delayed job")} should have been enqueued more than {LATE} s ago, '
            f'which a JobWorker does. {_START}',
        )
    else:
        yield Finding('ok', 'No delayed job is late.')
    slow = [queue for queue in health.queues if queue.oldest > MAX_WAIT]
    for queue in slow:
        yield Finding(
            'warning',
            f'The oldest job of {queue.name} has waited for {show_duration(queue.oldest)}, with '
            f'{queue.jobs["queued"]:,} in the queue. Start more workers.',
        )
    if not slow:
        waiting = sum(queue.jobs['queued'] for queue in health.queues)
        yield Finding('ok', f'{_count(waiting, "job")} waiting, none for long.')
    if dead := sum(queue.jobs['failed'] for queue in health.queues):
        yield Finding(
            'note',
            f'{_count(dead, "job")} among the dead letters: flask jobs list --status failed.',
        )


def _examine_orphans(health: Health) -> Iterator[Finding]:
    if health.lost:
        # A living JobWorker recovers them at its next round of maintenance.
        recovers = any(not worker.is_stock and worker.state != 'lost' for worker in health.workers)
        yield Finding(
            'warning' if recovers else 'error',
            f'{_count(health.lost, "running job")} lost by a dead worker. '
            + ('A JobWorker puts them back within seconds: look again.' if recovers else _START),
        )
    abandoned = sum(queue.abandoned for queue in health.queues)
    if abandoned:
        yield Finding(
            'error',
            f'{_count(abandoned, "job")} left as started by a stock worker that is gone. '
            "RQ's clean-up fails them: then run flask jobs retry.",
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


def _examine_tasks(module_name: str) -> Iterator[Finding]:
    """Check a module and, if it is a package, every module in it."""
    try:
        module = import_module(module_name, module_name)
    except JobError as error:
        yield Finding('error', f'{error} Fix it, or change JOB_TASK_MODULES.')
        return
    tasks = 0
    for name in public_functions(module):
        try:
            resolve_task(f'{module_name}.{name}')
            tasks += 1
        except JobError as error:
            yield Finding('warning', f'{error} If it is no task, begin its name with "_".')
    if tasks:
        yield Finding('ok', f'{module_name} has {_count(tasks, "task")}.')
    for inner in pkgutil.iter_modules(getattr(module, '__path__', []), f'{module_name}.'):
        if not inner.name.endswith('.__main__'):  # importing it would run it
            yield from _examine_tasks(inner.name)


def _examine_interfaces(config: JobConfig) -> Iterator[Finding]:
    for path, secret, variables in (
        ('/rq', config.dashboard_login, 'DASHBOARD_USERNAME and DASHBOARD_PASSWORD'),
        ('/api/jobs', config.api_token, 'JOBS_API_TOKEN'),
        ('/metrics', config.metrics_token, 'METRICS_TOKEN'),
    ):
        if secret is None:
            yield Finding('note', f'There is no {path}: {variables} not set here.')


def _count(number: int, noun: str) -> str:
    return f'{number:,} {noun}{"" if number == 1 else "s"}'


def show_duration(seconds: float) -> str:
    """Format a duration, such as 45 s, 12 min, 5 h or 3 d."""
    for unit, length in (('d', 86_400), ('h', 3600), ('min', 60)):
        if seconds >= 2 * length:
            return f'{seconds / length:.0f} {unit}'
    return f'{seconds:.0f} s'
