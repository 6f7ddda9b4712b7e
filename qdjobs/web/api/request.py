"""Parse and check requests to the API. Every error names the invalid field."""

import json
from collections.abc import Iterable
from typing import Any

import msgspec
from flask import request
from werkzeug.exceptions import BadRequest

from qdjobs.client.call import Call, call_from_json
from qdjobs.client.listing import LIKE_STATUSES
from qdjobs.client.names import NamedTask, TaskNames
from qdjobs.client.tasks import OPTION_PREFIX
from qdjobs.errors import InvalidJobError, UnknownTaskError, short_repr
from qdjobs.web.body import read_json_body
from qdjobs.web.problems import FieldProblem

LARGEST_BODY = 1024 * 1024  # bytes

# Field of the body → option of the job.
OPTIONS = {
    'queue': 'job_queue',
    'max_retries': 'job_max_retries',
    'delay': 'job_delay',
    'id': 'job_id',
}
# Names that clients of other APIs use.
SYNONYMS = {'task_name': 'task', 'payload': 'params'}


def read_call(names: TaskNames) -> Call:
    """Return the call of a named task, with the options of the name and those of the request."""
    body = _replace_synonyms(_parse(read_json_body(LARGEST_BODY)))
    task = _task(names, body.pop('task', None))
    params = _params(body.pop('params', {}))
    given = {OPTIONS[field]: value for field, value in body.items()}
    try:
        return call_from_json(task.path, params, {**task.options, **given})
    except InvalidJobError as error:
        name = error.argument
        if name is None or (name in task.options and name not in given):
            raise
        if name in given:
            field = next(field for field, option in OPTIONS.items() if option == name)
            raise FieldProblem(field, str(error).replace(name, field)) from None
        raise FieldProblem(f'params.{name}', str(error)) from None


def read_listing() -> dict[str, Any]:
    """Return the arguments of `list_jobs_page`."""
    arguments: dict[str, Any] = {}
    for name, values in request.args.lists():
        if name not in ('status', 'queue', 'limit', 'cursor') or len(values) > 1:
            raise FieldProblem(
                name, 'A listing takes status, queue, limit and cursor, each of them once.'
            )
        arguments[name] = values[0]
    if 'status' in arguments:
        arguments['status'] = LIKE_STATUSES.get(arguments['status'], arguments['status'])
    if (limit := arguments.get('limit', '')).isdecimal() and len(limit) < 10:
        arguments['limit'] = int(limit)  # other texts are left for `list_jobs_page` to refuse
    return arguments


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        body = msgspec.json.decode(raw)
        # msgspec takes the last of two members with one name; a proxy may have checked the first.
        json.loads(raw.decode(), object_pairs_hook=_refuse_duplicates)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f'The body cannot be read as JSON: {error}.') from None
    if not isinstance(body, dict):
        raise BadRequest('Send a JSON object, such as {"task": "send_email", "params": {…}}.')
    return body


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise FieldProblem(name, f'{short_repr(name)} is twice in one object: send it once.')
        seen.add(name)


def _replace_synonyms(body: dict[str, Any]) -> dict[str, Any]:
    known = ('task', 'params', *OPTIONS)
    replaced: dict[str, Any] = {}
    given_as: dict[str, str] = {}
    for given, value in body.items():
        name = SYNONYMS.get(given, given)
        if name not in known:
            raise FieldProblem(given, f'There is no field {short_repr(given)}, but {_list(known)}.')
        if name in replaced:
            both = f'{given_as[name]} and {given}'
            raise FieldProblem(given, f'{both} are the same field: send one of them.')
        replaced[name], given_as[name] = value, given
    return replaced


def _task(names: TaskNames, name: Any) -> NamedTask:
    if not isinstance(name, str):
        raise FieldProblem('task', f'task must be the name of one, not {short_repr(name)}.')
    try:
        return names.find(name)
    except UnknownTaskError as error:
        raise FieldProblem('task', str(error)) from None


def _params(params: Any) -> dict[str, Any]:
    if not isinstance(params, dict):
        raise FieldProblem('params', f'params must be an object, not {short_repr(params)}.')
    for name in params:
        if name.startswith(OPTION_PREFIX):
            raise FieldProblem(
                f'params.{name}', f'Options go beside params: {_list(OPTIONS)}, and no others.'
            )
    return params


def _list(names: Iterable[str]) -> str:
    return ', '.join(names)
