"""The HTTP API for drawings: simple ones in the response, complex ones as jobs."""

from typing import Annotated, Literal
from uuid import uuid4

import msgspec
from flask import Blueprint, Response, current_app, request, url_for
from werkzeug.exceptions import Conflict, NotFound

from components.artboard.files import send_output
from components.artboard.limits import require_disk_room, require_queue_room, require_urgent
from libraries.drawing.patterns import PATTERNS, Millimetres, PatternName, draw_pattern
from libraries.job_manager import (
    InvalidJobError,
    JobNotFoundError,
    Status,
    cancel_job,
    enqueue_background_job,
    get_job_status,
)
from qdjobs.web import json_answer, read_json_body

DRAW = 'workers.svg_tasks.generate_complex_svg'

LARGEST_BODY = 16 * 1024  # bytes

# A drawing opened as a page has our origin: it must not run scripts or load anything.
IMAGE_HEADERS = {
    'Content-Security-Policy': "default-src 'none'; style-src 'unsafe-inline'; sandbox",
    'X-Content-Type-Options': 'nosniff',
}

DrawingId = (
    Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
    | Annotated[str, msgspec.Meta(pattern=r'\A[A-Za-z0-9_-]{1,64}\Z')]
)

# What msgspec would say only in part, or by a regular expression.
RULES = {
    'pattern': f'pattern must be one of {", ".join(PATTERNS)}',
    'complexity': 'complexity must be "simple" or "complex"',
    'id': 'id must be a whole number from 0 on, or 1 to 64 letters, digits, dashes and underscores',
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
    id: DrawingId | None = None  # names the file, and replaces an older one of the same id


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
    if wanted.urgent:
        require_urgent()
    queue = 'high' if wanted.urgent else 'default'
    require_queue_room(queue)
    require_disk_room()
    job_id = str(uuid4())
    enqueue_background_job(
        DRAW,
        width=wanted.width,
        height=wanted.height,
        pattern_type=wanted.pattern,
        # A client chooses no more than a part of a name, which no other task writes.
        output_filename=f'{job_id if wanted.id is None else f"artboard_{wanted.id}"}.svg',
        seed=wanted.seed,
        job_id=job_id,
        job_queue=queue,
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
    shown = ['status', 'error', 'progress', 'created_at', 'started_at', 'ended_at']
    if current_app.debug:  # the name of a worker can be that of a machine
        shown.append('worker')
    body = {'job_id': job['id'], 'failed_attempts': len(job['attempts'])}
    return json_answer(body | {name: job[name] for name in shown})  # type: ignore[literal-required]


@artboard.delete('/jobs/<job_id>')
def cancel(job_id: str) -> Response:
    """Cancel a drawing: 200 if it will not be drawn, 202 if its worker is stopping it, else 409.

    Anybody who knows the id may: it is random, and only the client that requested it has it.
    """
    _drawing_job(job_id)
    status = cancel_job(job_id)
    if status not in ('canceled', 'stopping'):
        raise Conflict(f'The drawing has ended ({status}), and was left as it is.')
    return json_answer({'job_id': job_id, 'status': status}, 202 if status == 'stopping' else 200)


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


def _drawing_job(job_id: str) -> Status:
    job = get_job_status(job_id)
    if job['task'] != DRAW:  # this API needs no token: it must not show other jobs
        raise JobNotFoundError([job_id])
    return job


def _read_body() -> DrawingRequest:
    try:
        return msgspec.json.decode(read_json_body(LARGEST_BODY), type=DrawingRequest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        field = str(error).rpartition('`$.')[2].rstrip('`')
        problem = RULES.get(field, error)
        raise InvalidJobError(f'The body does not describe a drawing: {problem}.') from None
