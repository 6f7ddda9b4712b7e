"""Render rq-dashboard's templates, patched when they are read, with a Content-Security-Policy."""

import re
import secrets
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flask import Response, render_template

# Each patch fixes one fault of the templates; a test checks that the fault still exists.
REWRITES = (
    # Underscore's `<%-` escapes, `<%=` does not. Escaping by jQuery too would escape twice.
    (r'<%=', '<%-'),
    (r"\$\('<div/>'\)\.text\(([^()]+)\)\.html\(\)", r'\1'),
    # Jinja does not escape in .js files.
    (r"'\{\{ queue\.name \}\}'", '{{ queue.name|tojson }}'),
    (r'<a [^<]*\.compact_queue[^<]*</a>', ''),
    # The endpoint `static` is the application's, which does not have these files.
    (r"url_for\('static'", "url_for('qdjobs_dashboard.static'"),
    # rq-dashboard may be mounted too: do not use its endpoints and templates.
    (r"(['\"])rq_dashboard([./])", r'\1qdjobs_dashboard\2'),
    # The policy allows only scripts with the nonce.
    (r'<script ', '<script nonce="{{ nonce }}" '),
)


def package() -> Path:
    """Return the folder in which rq-dashboard is installed. Does not import its Python."""
    spec = find_spec('rq_dashboard')
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("pip install 'qdjobs[dashboard]'", name='rq_dashboard')
    return Path(spec.origin).parent


def read_template(name: str) -> str | None:
    """Return the patched source of a template, or None if rq-dashboard does not have it."""
    folder, _, file = name.partition('/')
    path = package() / 'templates' / 'rq_dashboard' / file
    if folder != 'qdjobs_dashboard' or not path.is_file():
        return None
    source = path.read_text()
    for pattern, replacement in REWRITES:
        source = re.sub(pattern, replacement, source)
    return source


def render(name: str, **values: Any) -> Response:
    """Render a page, with a policy that allows only its own scripts."""
    nonce = secrets.token_urlsafe(16)
    text = render_template(f'qdjobs_dashboard/{name}.html', nonce=nonce, **values, **_versions())
    answer = Response(text, mimetype='text/html')
    answer.headers['Content-Security-Policy'] = (
        # Underscore compiles its templates to functions, which needs 'unsafe-eval'.
        f"default-src 'self'; script-src 'nonce-{nonce}' 'unsafe-eval'; "
        "style-src 'self'; style-src-attr 'unsafe-inline'; img-src 'self' data:; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
    return answer


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    return {'rq_dashboard_version': version('rq-dashboard'), 'rq_version': version('rq')}
