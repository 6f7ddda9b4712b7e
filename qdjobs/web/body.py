"""Read the JSON body of a request, of a limited size, and make JSON responses."""

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
    """Return the raw body of a JSON request, of at most `largest` bytes.

    Raises RequestEntityTooLarge for a larger one, UnsupportedMediaType for a request that is not
    JSON (a form of another site cannot send JSON), and BadRequest for a truncated body or
    malformed chunks.
    """
    request.max_content_length = largest + 1
    if not request.is_json:
        raise UnsupportedMediaType('Send a JSON object as application/json.')
    try:
        body = request.get_data(cache=False)
    except HTTPException:
        raise
    except Exception as error:  # servers raise errors of their own for malformed chunks
        raise BadRequest(f'The body cannot be read: {error}.') from error
    if len(body) > largest:  # Werkzeug silently truncates a body without a Content-Length
        raise RequestEntityTooLarge
    return body


def json_answer(body: dict[str, Any], status: int = 200) -> Response:
    """Return a response with plain data as JSON."""
    return Response(to_json(body), status, mimetype='application/json')
