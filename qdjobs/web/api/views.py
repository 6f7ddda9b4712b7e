"""The views of the HTTP API, protected by a token: enqueue by name, read, cancel, retry."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from flask import Blueprint, Flask, Response, request, url_for
from werkzeug.exceptions import Conflict, MethodNotAllowed, NotFound

from qdjobs.client.control import cancel_job, retry_job
from qdjobs.client.enqueue import enqueue_call
from qdjobs.client.listing import list_jobs_page
from qdjobs.client.names import TaskNames
from qdjobs.client.status import Status, get_job_status
from qdjobs.errors import InvalidJobError
from qdjobs.web.access import missing_token, require_token
from qdjobs.web.api.request import read_call, read_listing
from qdjobs.web.body import json_answer
from qdjobs.web.problems import http_problem, register_problems

# The views get all methods, so that even 405 needs the token.
METHODS = ('GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE')

View = Callable[..., Response]


def make_jobs_api(names: TaskNames, token: str) -> Blueprint:
    """Return the API as a blueprint for any application, for requests with this token."""
    api = Blueprint('qdjobs_api', __name__)
    api.before_request(partial(require_token, token, 'JOBS_API_TOKEN'))
    api.after_request(_keep_out_of_caches)
    register_problems(api)
    add = partial(api.add_url_rule, methods=METHODS, strict_slashes=False)
    add('', 'jobs', _by_method(GET=partial(show_jobs, names), POST=partial(enqueue, names)))
    add('/<job_id>', 'job', _by_method(GET=partial(show_job, names), DELETE=cancel))
    add('/<job_id>/retry', 'retry', _by_method(POST=retry))
    add('/<path:path>', 'not_found', not_found)
    return api


def close_jobs_api(app: Flask, prefix: str) -> None:
    """Have requests to the API of an application without a token answered by how to open it.

    Only those that would be a 404 otherwise: the application may have views of its own there.
    """

    def explain(answer: Response) -> Response:
        is_missing = answer.status_code == 404 and request.url_rule is None
        if not is_missing or not f'{request.path}/'.startswith(f'{prefix.rstrip("/")}/'):
            return answer
        closed = missing_token(
            'This application has no token for its API, so that is closed: set JOBS_API_TOKEN '
            'where the application runs, and send it as "Authorization: Bearer …".'
        )
        return _keep_out_of_caches(http_problem(closed))

    app.after_request(explain)


def enqueue(names: TaskNames) -> Response:
    """Enqueue a job: 201, or 200 if a job with this `id` is already waiting or running."""
    received_at = datetime.now(UTC)
    job = enqueue_call(read_call(names))
    # An existing job is older, unless the clock of another machine is ahead.
    code = 200 if job.created_at < received_at else 201
    answer = _state(job.id, job.get_status(refresh=False).value, code)
    answer.headers['Location'] = url_for('.job', job_id=job.id)
    return answer


def show_jobs(names: TaskNames) -> Response:
    """List jobs, including those enqueued without a name, without their results."""
    jobs, cursor = list_jobs_page(**read_listing())
    shown = [_show(names, job) for job in jobs]
    for job in shown:
        del job['result']
    return json_answer({'jobs': shown, 'next': cursor})


def show_job(names: TaskNames, job_id: str) -> Response:
    return json_answer(_show(names, get_job_status(job_id)))


def cancel(job_id: str) -> Response:
    """Cancel a job: 200 if it will not run, 202 if its worker is stopping it, 409 if it ended."""
    status = cancel_job(job_id)
    if status not in ('canceled', 'stopping'):
        raise Conflict(f'The job has ended ({status}), and was left as it is.')
    return _state(job_id, status, 202 if status == 'stopping' else 200)


def retry(job_id: str) -> Response:
    try:
        job = retry_job(job_id)
    except InvalidJobError as error:
        raise Conflict(str(error)) from None
    return _state(job.id, 'queued', 200)


def not_found(path: str) -> Response:
    raise NotFound


def _by_method(**views: View) -> View:
    def view(**values: str) -> Response:
        method = 'GET' if request.method == 'HEAD' else request.method
        if method not in views:
            raise MethodNotAllowed([*views, *(['HEAD'] if 'GET' in views else [])])
        return views[method](**values)

    return view


def _show(names: TaskNames, job: Status) -> dict[str, Any]:
    shown: dict[str, Any] = {'job_id': job['id'], **job}
    del shown['id']
    shown['task'] = names.name_for(job['task']) or job['task']
    return shown


def _state(job_id: str, status: str, code: int) -> Response:
    return json_answer({'job_id': job_id, 'status': status}, code)


def _keep_out_of_caches(answer: Response) -> Response:
    answer.headers['Cache-Control'] = 'no-store'
    return answer
