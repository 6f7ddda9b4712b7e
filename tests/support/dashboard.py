"""rq-dashboard as it comes, and what a dashboard finds in Redis."""

import base64
import re
from html import unescape
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


def ids_in(page: str) -> list[str]:
    """The ids of the jobs in the list on a page."""
    return rows_of(page, 'job')


def rows_of(page: str, kind: str) -> list[str]:
    """What the rows of a table are of: their `data-job` or `data-worker`."""
    return [unescape(name) for name in re.findall(rf'<tr data-{kind}="([^"]*)"', page)]


def facts_in(page: str) -> dict[str, str]:
    """What the page of a job says of it, by the names of the rows."""
    found = re.findall(r'<dt>(.*?)</dt><dd>(.*?)</dd>', page, re.DOTALL)
    return {name: plain(value) for name, value in found}


def text_of(page: str, kind: str) -> str:
    """The text of the first element of a class; of tracebacks, the last."""
    found = re.findall(rf'<(p|pre) class="{kind}">(.*?)</\1>', page, re.DOTALL)
    return unescape(found[-1 if kind == 'traceback' else 0][1])


def plain(html: str) -> str:
    return ' '.join(unescape(re.sub('<[^>]*>', '', html)).split())
