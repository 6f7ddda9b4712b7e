"""/metrics for Prometheus, behind a token.

All of it is read from Redis, so it does not matter which of gunicorn's processes answers: none
keeps numbers of its own. A scrape costs the same however many jobs there are.
"""

from collections import Counter
from collections.abc import Iterator

from flask import Blueprint, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from qdjobs.errors import QueueUnavailableError
from qdjobs.monitoring.health import Health, read_health
from qdjobs.web.access import require_token

WORKER_STATES = ('started', 'idle', 'busy', 'suspended', 'lost')


def make_metrics(token: str) -> Blueprint:
    """The metrics at the root of the blueprint, for those who have the token."""
    registry = CollectorRegistry()
    registry.register(_Collector())
    blueprint = Blueprint('qdjobs_metrics', __name__)

    @blueprint.get('', strict_slashes=False)
    def metrics() -> Response:
        require_token(token)
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    return blueprint


class _Collector:
    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily('jobs_redis_up', '1 if Redis answers; else nothing else is known.')
        try:
            health = read_health()
        except QueueUnavailableError:
            # An answer all the same: the web process is there, and says who is not.
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from _measure_queues(health)
        yield _count_workers(health)


def _measure_queues(health: Health) -> tuple[Metric, ...]:
    jobs = GaugeMetricFamily(
        'jobs',
        'Jobs that are known now. The failed, among them the stopped, are the dead letters.',
        labels=['queue', 'status'],
    )
    oldest = GaugeMetricFamily(
        'jobs_oldest_waiting_seconds',
        'How long the oldest job of the queue has waited; 0 if none waits.',
        labels=['queue'],
    )
    failed = CounterMetricFamily(
        'jobs_failed',
        'Jobs that have failed for good under a JobWorker; stock workers count none.',
        labels=['queue'],
    )
    for queue in health.queues:
        for status, number in queue.jobs.items():
            jobs.add_metric([queue.name, status], number)
        oldest.add_metric([queue.name], queue.oldest)
        failed.add_metric([queue.name], queue.failures)
    return jobs, oldest, failed


def _count_workers(health: Health) -> Metric:
    workers = GaugeMetricFamily(
        'jobs_workers',
        'Workers by state; a lost one has not said goodbye and gives no sign of life.',
        labels=['state'],
    )
    numbers = Counter(worker.state for worker in health.workers)
    for state in WORKER_STATES:  # each, so that an alert can compare with 0
        workers.add_metric([state], numbers[state])
    return workers
