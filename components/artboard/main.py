"""The HTTP API for drawings: simple ones in the response, complex ones as jobs."""

import logging
from typing import Literal
from uuid import uuid4

import msgspec
from flask import Blueprint, Response, request, url_for
from werkzeug.exceptions import NotFound, ServiceUnavailable

from components.artboard.files import send_output
from libraries.drawing.patterns import Millimetres, PatternName, draw_pattern
from libraries.files import NoRoomError, require_room
from libraries.job_manager import (
    InvalidJobError,
    JobNotFoundError,
    Status,
    enqueue_background_job,
    get_job_status,
)
from qdjobs.web import json_answer, read_json_body

DRAW = 'workers.svg_tasks.generate_complex_svg'

LARGEST_BODY = 16 * 1024  # bytes
ROOM_AFTER = 600  # seconds after which a client may look whether there is room again

log = logging.getLogger(__name__)

# A drawing opened as a page has our origin: it must not run scripts or load anything.
IMAGE_HEADERS = {
    'Content-Security-Policy': "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    'X-Content-Type-Options': 'nosniff',
}

artboard = Blueprint('artboard', __name__, url_prefix='/api/artboard')


class DrawingRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a request for a drawing."""

    pattern: PatternName = 'spiral'
    width: Millimetres = 210
    height: Millimetres = 297
    seed: int = 0
    complexity: Literal['simple', 'complex'] = 'complex'  # in the response, or by a job
    urgent: bool = False


@artboard.post('/create')
def create() -> Response:
    """Draw: 200 with the SVG text if simple, 202 with the job's id and address if complex.

    503 if there is no room for complex ones.
    """
    wanted = _read_body()
    if wanted.complexity == 'simple':
        return json_answer(
            {'svg': draw_pattern(wanted.pattern, wanted.width, wanted.height, wanted.seed)}
        )
    _require_room()
    job_id = str(uuid4())
    enqueue_background_job(
        DRAW,
        width=wanted.width,
        height=wanted.height,
        pattern_type=wanted.pattern,
        # From the id, so that no client can choose a file name.
        output_filename=f'{job_id}.svg',
        seed=wanted.seed,
        job_id=job_id,
        job_queue='high' if wanted.urgent else 'default',
        job_timeout='2m',
    )
    address = url_for('artboard.show_job', job_id=job_id)
    answer = json_answer(
        {
            'status': 'generating',
            'job_id': job_id,
            'message': f'The drawing is queued. Its status is at {address}.',
        },
        202,
    )
    answer.headers['Location'] = address
    return answer


@artboard.get('/jobs/<job_id>')
def show_job(job_id: str) -> Response:
    """The status of a drawing's job."""
    job = _drawing_job(job_id)
    shown = ('status', 'error', 'progress', 'created_at', 'started_at', 'ended_at')
    return json_answer({'job_id': job['id']} | {name: job[name] for name in shown})  # type: ignore[literal-required]


@artboard.get('/jobs/<job_id>/svg')
def show_drawing(job_id: str) -> Response:
    """The SVG file of a finished drawing; with `?download=1` as an attachment."""
    job = _drawing_job(job_id)
    if job['status'] != 'finished':
        raise NotFound(f'There is no drawing: its job is {job["status"]}.')
    try:
        answer = send_output(
            job['result'],
            'image/svg+xml',
            as_attachment=request.args.get('download') == '1',
            download_name=f'{job_id}.svg',
        )
    except (FileNotFoundError, ValueError):  # ValueError: OUTPUT_DIR has changed since
        raise NotFound('The file of this drawing is gone: request the drawing again.') from None
    answer.headers.update(IMAGE_HEADERS)
    return answer


def _require_room() -> None:
    try:
        require_room()
    except NoRoomError as error:
        log.warning('A drawing is refused: %s', error)
        # The message is for the operator, not for the client.
        detail = 'There is no room for more drawings: repeat the request later.'
        raise ServiceUnavailable(detail, retry_after=ROOM_AFTER) from None


def _drawing_job(job_id: str) -> Status:
    job = get_job_status(job_id)
    if job['task'] != DRAW:  # this API needs no token: it must not show other jobs
        raise JobNotFoundError([job_id])
    return job


def _read_body() -> DrawingRequest:
    try:
        return msgspec.json.decode(read_json_body(LARGEST_BODY), type=DrawingRequest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidJobError(f'The body does not describe a drawing: {error}.') from None
