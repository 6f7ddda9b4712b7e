"""The HTTP API of jobs, for whoever has the token: enqueue by name, look, cancel, try again."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from flask import Blueprint, Response, request, url_for
from werkzeug.exceptions import Conflict, MethodNotAllowed, NotFound

from qdjobs.web.access import require_token
from qdjobs.web.body import json_answer
from qdjobs.web.api.request import read_enqueue, read_listing
from qdjobs.web.problems import register_problems
from qdjobs.errors import InvalidJobError
from libraries.job_manager import cancel_job, get_job_status, list_jobs_page, retry_job
from qdjobs.extension import JobQueue
from qdjobs.client.status import Status

# All of them come to us, so that even the answer that one is not allowed needs the token.
METHODS = ('GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'TRACE')

View = Callable[..., Response]


def make_jobs_api(queue: JobQueue, token: str) -> Blueprint:
    """The API of the jobs of `queue`, whole in itself: it may stand in any application."""
    api = Blueprint('jobs', __name__)
    api.before_request(partial(require_token, token))
    api.after_request(_keep_out_of_caches)
    register_problems(api)
    add = partial(api.add_url_rule, methods=METHODS, strict_slashes=False)
    add('', 'jobs', _by_method(GET=partial(show_jobs, queue), POST=partial(enqueue, queue)))
    add('/<job_id>', 'job', _by_method(GET=partial(show_job, queue), DELETE=cancel))
    add('/<job_id>/retry', 'retry', _by_method(POST=retry))
    add('/<path:path>', 'nothing', nothing)
    return api


def enqueue(queue: JobQueue) -> Response:
    """201; or 200 with the job that is waiting or running under this `id` already."""
    asked_at = datetime.now(UTC)
    task, arguments, options = read_enqueue(queue)
    job = task.enqueue(**arguments, **options)
    # One that was there is older, unless another machine's clock is ahead.
    code = 200 if job.created_at < asked_at else 201
    answer = _state(job.id, job.get_status(refresh=False).value, code)
    answer.headers['Location'] = url_for('.job', job_id=job.id)
    return answer


def show_jobs(queue: JobQueue) -> Response:
    """All jobs, also those that were enqueued without a name; none of their results."""
    jobs, cursor = list_jobs_page(**read_listing())
    shown = [_show(queue, job) for job in jobs]
    for job in shown:
        del job['result']
    return json_answer({'jobs': shown, 'next': cursor})


def show_job(queue: JobQueue, job_id: str) -> Response:
    return json_answer(_show(queue, get_job_status(job_id)))


def cancel(job_id: str) -> Response:
    """200 if it will not run, 202 if its worker has been told to stop, 409 if it had ended."""
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


def nothing(path: str) -> Response:
    raise NotFound


def _by_method(**views: View) -> View:
    def view(**values: str) -> Response:
        method = 'GET' if request.method == 'HEAD' else request.method
        if method not in views:
            raise MethodNotAllowed([*views, *(['HEAD'] if 'GET' in views else [])])
        return views[method](**values)

    return view


def _show(queue: JobQueue, job: Status) -> dict[str, Any]:
    shown: dict[str, Any] = {'job_id': job['id'], **job}
    del shown['id']
    shown['task'] = queue.name_for(job['task']) or job['task']
    return shown


def _state(job_id: str, status: str, code: int) -> Response:
    return json_answer({'job_id': job_id, 'status': status}, code)


def _keep_out_of_caches(answer: Response) -> Response:
    answer.headers['Cache-Control'] = 'no-store'
    return answer
