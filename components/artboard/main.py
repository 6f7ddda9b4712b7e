"""Simple drawings at once, others as jobs. Knows the tasks by name only."""

from typing import Any
from uuid import uuid4

import msgspec
from flask import Blueprint, Response, request, url_for
from werkzeug.exceptions import RequestEntityTooLarge, UnsupportedMediaType

from libraries.job_errors import InvalidJobError, JobNotFoundError
from libraries.job_manager import enqueue_background_job, get_job_status
from libraries.job_payload import to_json
from libraries.svg_patterns import Millimetres, PatternName, draw_pattern

DRAW = 'workers.svg_tasks.generate_complex_svg'

LARGEST_BODY = 16 * 1024  # bytes

artboard = Blueprint('artboard', __name__, url_prefix='/api/artboard')


class DrawingRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request for a drawing."""

    pattern: PatternName = 'spiral'
    width: Millimetres = 210
    height: Millimetres = 297
    seed: int = 0
    complexity: str = 'complex'  # only 'simple' means something: draw it at once
    urgent: bool = False


@artboard.post('/create')
def create() -> Response:
    wanted = _read_body()
    if wanted.complexity == 'simple':
        return _json(
            {'svg': draw_pattern(wanted.pattern, wanted.width, wanted.height, wanted.seed)}
        )
    job_id = str(uuid4())
    enqueue_background_job(
        DRAW,
        width=wanted.width,
        height=wanted.height,
        pattern_type=wanted.pattern,
        # From the id, so that no client can choose where a file goes.
        output_filename=f'{job_id}.svg',
        seed=wanted.seed,
        job_id=job_id,
        job_queue='high' if wanted.urgent else 'default',
        job_timeout='2m',
    )
    address = url_for('artboard.show_job', job_id=job_id)
    answer = _json(
        {
            'status': 'generating',
            'job_id': job_id,
            'message': f'The drawing is on its way: ask {address} how far it is.',
        },
        202,
    )
    answer.headers['Location'] = address
    return answer


@artboard.get('/jobs/<job_id>')
def show_job(job_id: str) -> Response:
    job = get_job_status(job_id)
    if job['task'] != DRAW:  # other people's jobs are none of this page's business
        raise JobNotFoundError([job_id])
    shown = ('status', 'error', 'progress', 'created_at', 'started_at', 'ended_at')
    return _json({'job_id': job['id']} | {name: job[name] for name in shown})  # type: ignore[literal-required]


def _read_body() -> DrawingRequest:
    # A form of another site can post text, but not JSON.
    request.max_content_length = LARGEST_BODY
    if not request.is_json:
        raise UnsupportedMediaType('Send a JSON object as application/json.')
    body = request.get_data()
    if len(body) >= LARGEST_BODY:  # without a length, Werkzeug cuts a body off in silence
        raise RequestEntityTooLarge
    try:
        return msgspec.json.decode(body, type=DrawingRequest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidJobError(f'The body does not describe a drawing: {error}.') from None


def _json(body: dict[str, Any], status: int = 200) -> Response:
    return Response(to_json(body), status, mimetype='application/json')
