"""Turn errors into responses with problem details (RFC 9457)."""

import logging

from flask import Blueprint, Flask, Response, request
from werkzeug.exceptions import BadRequest, HTTPException, default_exceptions

from qdjobs.client.json import to_json
from qdjobs.errors import (
    InvalidJobError,
    JobError,
    JobNotFoundError,
    QueueUnavailableError,
    UnknownNameError,
    UnknownOptionError,
    WrongKeyError,
)

RETRY_AFTER = 5  # seconds

_STATUS: dict[type[JobError], tuple[int, str]] = {
    InvalidJobError: (400, 'The job is not valid'),
    UnknownNameError: (400, 'The job is not valid'),
    JobNotFoundError: (404, 'There is no such job'),
    WrongKeyError: (500, 'A key of the job queue is wrong'),
    QueueUnavailableError: (503, 'The job queue is away'),
}

log = logging.getLogger(__name__)


class FieldProblem(BadRequest):
    """A bad request; `field` names the invalid field, such as `params.width`."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field[:200]  # a client can send a name of any length


def answer_job_errors(app: Flask) -> None:
    """Answer the JobErrors that a client or Redis causes and no view handles; no other error.

    A handler for JobError that the application has already registered takes precedence.
    """
    if JobError not in app.error_handler_spec[None][None]:
        app.register_error_handler(JobError, _job_problem)


def register_problems(site: Flask | Blueprint) -> None:
    """Answer the same JobErrors and every HTTP error with problem details.

    `site` is a blueprint, or an application that is an API as a whole.
    """
    site.register_error_handler(JobError, _job_problem)
    site.register_error_handler(HTTPException, http_problem)
    if isinstance(site, Blueprint):
        # The application's handler for a code takes precedence over a blueprint's for all codes.
        for code in default_exceptions:
            site.register_error_handler(code, http_problem)


def _job_problem(error: JobError) -> Response:
    if isinstance(error, UnknownOptionError) or not isinstance(error, tuple(_STATUS)):
        raise error  # the application's mistake: Flask logs it, or shows it in a debugger or test
    status, title = next(answer for kind, answer in _STATUS.items() if isinstance(error, kind))
    if isinstance(error, WrongKeyError):  # nothing that the client repeats makes it right
        log.error('%s', error)
        return _problem(status, title, str(error))
    if status == 503:
        log.error('%s', error)
        # The message is for the operator, not for the client.
        detail = 'Nothing is wrong with the request: repeat it later.'
        answer = _problem(status, title, detail, job_id=getattr(error, 'job_id', None))
        answer.headers['Retry-After'] = str(RETRY_AFTER)
        return answer
    if status == 400:  # which can be the application's mistake; `r` escapes what a client sent
        log.warning('%s %r: %s: %.1000r', request.method, request.path, title, str(error))
    return _problem(status, title, str(error), field=getattr(error, 'argument', None))


def http_problem(error: HTTPException) -> Response:
    """Return the problem details of an HTTP error."""
    field = getattr(error, 'field', None)
    answer = _problem(error.code or 500, error.name, error.description or '', field=field)
    for name, value in error.get_headers():
        if name not in ('Content-Type', 'Content-Length'):
            answer.headers[name] = value  # such as Allow
    return answer


def _problem(status: int, title: str, detail: str, **more: str | None) -> Response:
    body = {'type': 'about:blank', 'title': title, 'status': status, 'detail': detail}
    body |= {name: value for name, value in more.items() if value is not None}
    return Response(to_json(body), status, mimetype='application/problem+json')
