"""The views of the dashboard, behind a login. Only its own pages can send changes."""

from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, request, url_for
from jinja2 import FunctionLoader
from werkzeug.exceptions import Forbidden, NotFound

from qdjobs.client.control import delete_job, retry_job
from qdjobs.client.listing import MAX_SCANNED
from qdjobs.client.redis import address
from qdjobs.config import get_config
from qdjobs.errors import InvalidJobError, JobNotFoundError
from qdjobs.monitoring.registries import describe_job, list_queues, read_registry
from qdjobs.web.access import require_login
from qdjobs.web.body import json_answer
from qdjobs.web.dashboard.data import (
    find_page,
    job_data,
    jobs_data,
    queues_data,
    require_registry,
    workers_data,
)
from qdjobs.web.dashboard.pages import package, read_template, render
from qdjobs.web.problems import register_problems

POLL_INTERVAL = 2500  # milliseconds

HEADERS = {
    'Content-Security-Policy': "default-src 'none'; frame-ancestors 'none'",
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'same-origin',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Cache-Control': 'no-store',
}

dashboard = Blueprint(
    'qdjobs_dashboard', __name__, url_prefix='/rq', static_folder=str(package() / 'static')
)
dashboard.jinja_loader = FunctionLoader(read_template)


# Ours, or the application's handlers of errors would answer: a browser must see the 401.
register_problems(dashboard)


@dashboard.before_request
def _guard() -> None:
    login = get_config().dashboard_login
    if login is None:
        raise NotFound
    require_login(*login)
    if request.method not in ('GET', 'HEAD', 'OPTIONS') and not _is_same_origin():
        raise Forbidden('Only the pages of the dashboard itself may ask for this.')


def _is_same_origin() -> bool:
    # A browser also sends the login with requests that pages of other sites make.
    site, origin = request.headers.get('Sec-Fetch-Site'), request.headers.get('Origin')
    if site is None and origin is None:
        return False
    same_host = origin is None or origin.partition('://')[2] == request.host
    return site in (None, 'same-origin') and same_host


@dashboard.after_request
def _add_security_headers(answer: Response) -> Response:
    for name, value in HEADERS.items():
        answer.headers.setdefault(name, value)
    return answer


# Pages


@dashboard.get('/', endpoint='home')
@dashboard.get('/0/')
@dashboard.get('/0/view')
@dashboard.get('/0/view/queues')
def queues_overview() -> Response:
    return _page('queues')


@dashboard.get('/0/view/workers')
def workers_overview() -> Response:
    return _page('workers')


@dashboard.get('/0/view/jobs')
@dashboard.get('/0/view/jobs/<path:queue_name>/<registry_name>/<per_page>/<order>/<page>')
def jobs_overview(
    queue_name: str = 'default',
    registry_name: str = 'queued',
    per_page: str = '8',
    order: str = 'asc',
    page: str = '1',
) -> Response:
    size, number, _ = find_page(queue_name, registry_name, per_page, order, page)
    return _page(
        'jobs',
        queue={'name': queue_name},
        queues=[{'name': name} for name in list_queues()],
        registry_name=registry_name,
        per_page=size,
        order=order,
        page=number,
    )


@dashboard.get('/0/view/job/<job_id>')
def job_view(job_id: str) -> Response:
    return _page('job', id=describe_job(job_id)['id'])


@dashboard.get('/favicon.ico')
def favicon() -> Response:
    return dashboard.send_static_file('favicon.ico')


# Data of the pages


@dashboard.get('/0/data/queues.json')
def queues() -> Response:
    return json_answer({'queues': queues_data()})


@dashboard.get('/0/data/workers.json')
def workers() -> Response:
    return json_answer({'workers': workers_data()})


@dashboard.get('/0/data/jobs/<path:queue_name>/<registry_name>/<per_page>/<order>/<page>.json')
def jobs(queue_name: str, registry_name: str, per_page: str, order: str, page: str) -> Response:
    return json_answer(jobs_data(queue_name, registry_name, per_page, order, page))


@dashboard.get('/0/data/job/<job_id>.json')
def job(job_id: str) -> Response:
    return json_answer(job_data(job_id))


# Changes by the pages


@dashboard.post('/job/<job_id>/requeue')
def requeue_job(job_id: str) -> Response:
    retry_job(job_id)
    return json_answer({'status': 'OK'})


@dashboard.post('/job/<job_id>/delete')
def delete_job_view(job_id: str) -> Response:
    delete_job(job_id)
    return json_answer({'status': 'OK'})


@dashboard.post('/requeue/<path:queue_name>')
def requeue_all(queue_name: str) -> Response:
    return _each(queue_name, 'failed', retry_job)


@dashboard.post('/queue/<path:queue_name>/<registry_name>/empty')
def empty_queue(queue_name: str, registry_name: str) -> Response:
    return _each(queue_name, registry_name, delete_job)


def _each(queue: str, registry: str, change: Callable[[str], object]) -> Response:
    """Change each job in a step of its own, so that an interrupted request loses nothing."""
    require_registry(queue, registry)
    count = 0
    for job_id in read_registry(queue, registry, 0, MAX_SCANNED):
        try:
            change(job_id)
            count += 1
        except (JobNotFoundError, InvalidJobError):
            continue  # deleted or changed meanwhile
    return json_answer({'status': 'OK', 'count': count})


def _page(name: str, **values: Any) -> Response:
    return render(
        name,
        **values,
        active_tab=name,
        current_instance=0,
        instance_list=[address()],
        rq_url_prefix=url_for('.home'),
        poll_interval=POLL_INTERVAL,
        enable_delete=True,
    )
