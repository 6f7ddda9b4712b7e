"""The one place where errors become answers: problem details, as RFC 9457 writes them."""

import logging

from flask import Flask, Response
from werkzeug.exceptions import HTTPException

from libraries.job_errors import (
    InvalidJobError,
    JobError,
    JobNotFoundError,
    QueueUnavailableError,
    UnknownTaskError,
)
from libraries.job_payload import to_json

RETRY_AFTER = 5  # seconds

_STATUS: dict[type[JobError], tuple[int, str]] = {
    InvalidJobError: (400, 'The job is not valid'),
    UnknownTaskError: (400, 'There is no such task'),
    JobNotFoundError: (404, 'There is no such job'),
    QueueUnavailableError: (503, 'The job queue is away'),
    JobError: (400, 'The job is not valid'),
}

log = logging.getLogger(__name__)


def register_problems(app: Flask) -> None:
    """Answer every JobError and every HTTP error of `app` with problem details."""
    app.register_error_handler(JobError, _job_problem)
    app.register_error_handler(HTTPException, _http_problem)


def _job_problem(error: JobError) -> Response:
    status, title = next(answer for kind, answer in _STATUS.items() if isinstance(error, kind))
    if isinstance(error, UnknownTaskError):
        log.error('%s', error)  # a client names no tasks here: the mistake is ours
    if status == 503:
        log.error('%s', error)
        # What stands in the message is for the operator, not for whoever asked.
        answer = _problem(status, title, 'Nothing is wrong with the request: repeat it later.')
        answer.headers['Retry-After'] = str(RETRY_AFTER)
        return answer
    return _problem(status, title, str(error))


def _http_problem(error: HTTPException) -> Response:
    answer = _problem(error.code or 500, error.name, error.description or '')
    for name, value in error.get_headers():
        if name not in ('Content-Type', 'Content-Length'):
            answer.headers[name] = value  # such as Allow
    return answer


def _problem(status: int, title: str, detail: str) -> Response:
    body = {'type': 'about:blank', 'title': title, 'status': status, 'detail': detail}
    return Response(to_json(body), status, mimetype='application/problem+json')
