"""The artboard's page, with its thumbnails and sketches. It uses the API of main.py."""

from functools import lru_cache
from pathlib import Path

from flask import Blueprint, Response, current_app, render_template, send_from_directory
from werkzeug.exceptions import NotFound

from components.artboard.limits import urgent_for_all
from components.artboard.main import IMAGE_HEADERS
from libraries.drawing.patterns import PATTERNS, PatternName, draw_pattern, sketch_pattern

PAPERS = {'A2': (420, 594), 'A3': (297, 420), 'A4': (210, 297), 'A5': (148, 210), 'A6': (105, 148)}
THUMBNAIL = 30  # millimetres: room for about thirty lines
DAY = 86_400  # seconds
draw_once = lru_cache(maxsize=len(PATTERNS))(draw_pattern)
PATTERN = f'<any({", ".join(PATTERNS)}):pattern>'  # in a route
DOCS = Path(__file__).parents[2] / 'docs'
DASHBOARD = 'qdjobs_dashboard'

# Allows scripts, styles, images and requests of our own origin, and thumbnails that they make.
HEADERS = {
    'Content-Security-Policy': (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'no-referrer',
}

page = Blueprint(
    'page',
    __name__,
    template_folder='templates',
    static_folder='static',
    static_url_path='/artboard/static',
)


@page.get('/')
def show() -> Response:
    """The page."""
    # The docstring of a pattern is its description on the page.
    patterns = {name: (draw.__doc__ or '').strip() for name, draw in PATTERNS.items()}
    text = render_template(
        'artboard.html',
        patterns=patterns,
        papers=PAPERS,
        urgent=urgent_for_all(),
        development=current_app.debug,
        dashboard=DASHBOARD in current_app.blueprints,
    )
    return Response(text, headers=HEADERS, mimetype='text/html')


@page.get(f'/artboard/thumbnails/{PATTERN}.svg')
def show_thumbnail(pattern: PatternName) -> Response:
    """A small drawing of a pattern, always with the same seed."""
    return _image(draw_once(pattern, THUMBNAIL, THUMBNAIL, seed=3))


@page.get(
    f'/artboard/sketches/<any({", ".join(PAPERS)}):paper>/<any(portrait, landscape):orientation>'
    f'/{PATTERN}/<int(max=999999999):seed>.svg'
)
def show_sketch(paper: str, orientation: str, pattern: PatternName, seed: int) -> Response:
    """What a choice looks like before it is drawn: the drawing itself, at fewer points."""
    short, long = PAPERS[paper]
    sides = (short, long) if orientation == 'portrait' else (long, short)
    return _image(sketch_pattern(pattern, *sides, seed))


@page.get('/artboard/docs/<name>.md')
def show_document(name: str) -> Response:
    """A page of docs/ as text, in development."""
    if not current_app.debug:
        raise NotFound
    return send_from_directory(DOCS, f'{name}.md', mimetype='text/plain')


def _image(svg: str) -> Response:
    answer = Response(svg, mimetype='image/svg+xml')
    answer.headers.update(IMAGE_HEADERS)
    answer.cache_control.max_age = DAY
    return answer
