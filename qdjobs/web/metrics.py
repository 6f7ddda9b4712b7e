"""The endpoint /metrics for Prometheus, protected by a token.

All values are read from Redis, so any of gunicorn's processes can answer. The cost of a scrape does
not depend on the number of jobs.
"""

from collections import Counter
from collections.abc import Iterator

from flask import Blueprint, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from qdjobs.client.counts import BUCKETS, OUTCOMES, TIMES
from qdjobs.client.outboxes import Outbox, current_outbox
from qdjobs.config import get_config
from qdjobs.errors import QueueUnavailableError
from qdjobs.monitoring.counts import Counts, read_counts
from qdjobs.monitoring.health import Health, read_health
from qdjobs.web.access import require_token
from qdjobs.web.problems import register_problems

WORKER_STATES = ('started', 'idle', 'busy', 'suspended', 'lost')

PATIENCE = 2.0  # seconds for the database of an outbox

_BOUNDS = (*(str(float(bound)) for bound in BUCKETS), '+Inf')


def make_metrics(token: str) -> Blueprint:
    """Return a blueprint with the metrics at its root, for requests with this token."""
    registry = CollectorRegistry()
    registry.register(_Collector())
    blueprint = Blueprint('qdjobs_metrics', __name__)
    register_problems(blueprint)

    @blueprint.get('', strict_slashes=False)
    def metrics() -> Response:
        require_token(token, 'METRICS_TOKEN')
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)

    return blueprint


class _Collector:
    def collect(self) -> Iterator[Metric]:
        if (outbox := current_outbox()) is not None:
            yield from _measure_outbox(outbox)
        up = GaugeMetricFamily('jobs_redis_up', '1 if Redis answers; else nothing else is known.')
        try:
            health, counts = read_health(), read_counts()
        except QueueUnavailableError:
            # Not an error: the web process is up, and reports that Redis is not.
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from _measure_queues(health)
        yield _count_workers(health)
        yield from _count_jobs(counts)
        yield from _measure_times(counts)


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
    for queue in health.queues:
        for status, number in queue.jobs.items():
            jobs.add_metric([queue.name, status], number)
        oldest.add_metric([queue.name], queue.oldest)
    return jobs, oldest


def _measure_outbox(outbox: Outbox) -> Iterator[Metric]:
    up = GaugeMetricFamily(
        'jobs_outbox_up', '1 if the database of the outbox answers; else it has no other metrics.'
    )
    waiting = GaugeMetricFamily(
        'jobs_outbox_waiting', 'Committed rows that are no jobs yet.', labels=['queue']
    )
    oldest = GaugeMetricFamily(
        'jobs_outbox_oldest_seconds', 'How long the oldest of these has waited.', labels=['queue']
    )
    refused = GaugeMetricFamily(
        'jobs_outbox_refused', 'Rows of which no job can be made.', labels=['queue']
    )
    try:
        found = outbox.read_waiting(PATIENCE)
    except QueueUnavailableError:
        up.add_metric([], 0)
        yield up
        return
    up.add_metric([], 1)
    queues = {queue.name: queue for queue in found.queues}
    for name in {**dict.fromkeys(get_config().queues), **queues}:  # also the empty, for alerts
        queue = queues.get(name)
        waiting.add_metric([name], queue.waiting if queue else 0)
        oldest.add_metric([name], queue.oldest if queue else 0)
        refused.add_metric([name], queue.refused if queue else 0)
    yield from (up, waiting, oldest, refused)


def _count_workers(health: Health) -> Metric:
    workers = GaugeMetricFamily(
        'jobs_workers',
        'Workers by state; a lost one has not said goodbye and gives no sign of life.',
        labels=['state'],
    )
    numbers = Counter(worker.state for worker in health.workers)
    for state in WORKER_STATES:  # all of them, so that an alert can compare with 0
        workers.add_metric([state], numbers[state])
    return workers


def _count_jobs(counts: Counts) -> Iterator[Metric]:
    for outcome, meaning in OUTCOMES.items():
        family = CounterMetricFamily(f'jobs_{outcome}', meaning, labels=['queue', 'task'])
        for labels, number in counts.jobs[outcome].items():
            family.add_metric(labels, number)
        yield family


def _measure_times(counts: Counts) -> Iterator[Metric]:
    for time, meaning in TIMES.items():
        family = HistogramMetricFamily(f'jobs_{time}_seconds', meaning, labels=['task'])
        for task, histogram in counts.times[time].items():
            buckets = list(zip(_BOUNDS, histogram.cumulative, strict=True))
            family.add_metric([task], buckets, histogram.seconds)
        yield family
