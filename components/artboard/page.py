"""The artboard's page and its thumbnails. The page uses the API of components/artboard/main.py."""

from functools import lru_cache
from typing import cast

from flask import Blueprint, Response, render_template
from werkzeug.exceptions import NotFound

from components.artboard.main import IMAGE_HEADERS
from libraries.drawing.patterns import PATTERNS, PatternName, draw_pattern

PAPERS = {'A2': (420, 594), 'A3': (297, 420), 'A4': (210, 297), 'A5': (148, 210), 'A6': (105, 148)}
THUMBNAIL = 30  # millimetres: room for about thirty lines
DAY = 86_400  # seconds

# Allows scripts, styles and requests of our own origin, and images made by these scripts.
HEADERS = {
    'Content-Security-Policy': (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
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
    text = render_template('artboard.html', patterns=patterns, papers=PAPERS)
    return Response(text, headers=HEADERS, mimetype='text/html')


@page.get('/artboard/thumbnails/<pattern>.svg')
def show_thumbnail(pattern: str) -> Response:
    """A small drawing of a pattern, always with the same seed."""
    if pattern not in PATTERNS:
        raise NotFound(f'There is no pattern {pattern!r}.')
    answer = Response(_thumbnail(cast(PatternName, pattern)), mimetype='image/svg+xml')
    answer.headers.update(IMAGE_HEADERS)
    answer.cache_control.max_age = DAY
    return answer


@lru_cache(maxsize=len(PATTERNS))
def _thumbnail(pattern: PatternName) -> str:
    return draw_pattern(pattern, THUMBNAIL, THUMBNAIL, seed=3)
