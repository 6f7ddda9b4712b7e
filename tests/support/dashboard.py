"""rq-dashboard as it comes, and what a dashboard finds in Redis."""

import base64
from typing import Any

import rq_dashboard
from flask import Flask
from redis import Redis

from libraries.job_manager import enqueue_background_job
from qdjobs.client.payload import PlainSerializer

WORKER = 'anna.1'


def bare_app(redis_url: str) -> Flask:
    app = Flask('bare')
    app.config['RQ_DASHBOARD_REDIS_URL'] = redis_url
    app.config['RQ_DASHBOARD_POLL_INTERVAL'] = 200
    rq_dashboard.web.setup_rq_connection(app)
    app.register_blueprint(rq_dashboard.blueprint, url_prefix='/rq')
    return app


def finished_with(connection: Redis, value: Any) -> str:
    """The id of a job that has finished, with a result as RQ writes it."""
    job = enqueue_background_job('tests.support.tasks.add', 1)
    connection.delete('rq:queue:default')
    connection.hset(f'rq:job:{job.id}', 'status', 'finished')
    packed = base64.b64encode(PlainSerializer.dumps(value))
    connection.xadd(f'rq:results:{job.id}', {'type': 1, 'return_value': packed})
    connection.zadd('rq:finished:default', {job.id: '+inf'})
    return job.id


def running(connection: Redis, job_id: str) -> None:
    """A worker whose record says that it runs this job."""
    key = f'rq:worker:{WORKER}'
    connection.sadd('rq:workers', key)
    connection.hset(key, mapping={'state': 'busy', 'queues': 'high,default'})
    connection.sadd(f'{key}:executions', f'{job_id}:1')
    connection.hset(
        f'rq:execution:{job_id}:1',
        mapping={'id': '1', 'job_id': job_id, 'created_at': 1, 'last_heartbeat': 1},
    )
