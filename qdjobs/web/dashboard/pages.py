"""rq-dashboard's templates, mended as they are read, and the policy that its pages run under."""

import re
import secrets
from functools import lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flask import Response, render_template

# Each removes one fault of the templates; a test looks whether it is still there.
REWRITES = (
    # Underscore's `<%-` escapes, `<%=` does not. Where jQuery escapes already, once is enough.
    (r'<%=', '<%-'),
    (r"\$\('<div/>'\)\.text\(([^()]+)\)\.html\(\)", r'\1'),
    # Jinja escapes nothing in a file that is named .js.
    (r"'\{\{ queue\.name \}\}'", '{{ queue.name|tojson }}'),
    (r'<a [^<]*\.compact_queue[^<]*</a>', ''),
    # Of the application, which has none.
    (r"url_for\('static'", "url_for('qdjobs_dashboard.static'"),
    # rq-dashboard may be mounted beside us: its endpoints and its templates are its own.
    (r"(['\"])rq_dashboard([./])", r'\1qdjobs_dashboard\2'),
    # So that the policy can tell these scripts from others.
    (r'<script ', '<script nonce="{{ nonce }}" '),
)


def package() -> Path:
    """Where rq-dashboard is installed; its Python is not imported."""
    spec = find_spec('rq_dashboard')
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("pip install 'qdjobs[dashboard]'", name='rq_dashboard')
    return Path(spec.origin).parent


def read_template(name: str) -> str | None:
    """The mended source of a template, or None for one that is not rq-dashboard's."""
    folder, _, file = name.partition('/')
    path = package() / 'templates' / 'rq_dashboard' / file
    if folder != 'qdjobs_dashboard' or not path.is_file():
        return None
    source = path.read_text()
    for fault, mended in REWRITES:
        source = re.sub(fault, mended, source)
    return source


def render(name: str, **values: Any) -> Response:
    """A page, with a policy that lets no script run but its own."""
    nonce = secrets.token_urlsafe(16)
    text = render_template(f'qdjobs_dashboard/{name}.html', nonce=nonce, **values, **_versions())
    answer = Response(text, mimetype='text/html')
    answer.headers['Content-Security-Policy'] = (
        # Underscore makes functions of its templates, which takes 'unsafe-eval'.
        f"default-src 'self'; script-src 'nonce-{nonce}' 'unsafe-eval'; "
        "style-src 'self'; style-src-attr 'unsafe-inline'; img-src 'self' data:; "
        "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
    return answer


@lru_cache(maxsize=1)
def _versions() -> dict[str, str]:
    return {'rq_dashboard_version': version('rq-dashboard'), 'rq_version': version('rq')}
