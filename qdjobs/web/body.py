"""JSON bodies: that of a request, if it is not too much of it, and that of an answer."""

from typing import Any

from flask import Response, request
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    RequestEntityTooLarge,
    UnsupportedMediaType,
)

from qdjobs.client.json import to_json


def read_json_body(largest: int) -> bytes:
    """The body as it came, of at most `largest` bytes; else 413, or 415 if it is not JSON.

    A form of another site can post text, but not JSON. Raises BadRequest for a body that breaks
    off, or whose chunks are none.
    """
    request.max_content_length = largest + 1
    if not request.is_json:
        raise UnsupportedMediaType('Send a JSON object as application/json.')
    try:
        body = request.get_data(cache=False)
    except HTTPException:
        raise
    except Exception as error:  # each server has its own for what is no chunk
        raise BadRequest(f'The body cannot be read: {error}.') from error
    if len(body) > largest:  # without a length, Werkzeug cuts a body off in silence
        raise RequestEntityTooLarge
    return body


def json_answer(body: dict[str, Any], status: int = 200) -> Response:
    return Response(to_json(body), status, mimetype='application/json')
