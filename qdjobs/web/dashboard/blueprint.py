"""The blueprint of the dashboard: its login, the check of origins, the headers of answers."""

from importlib.metadata import version
from typing import Any

from flask import Blueprint, Response, g, render_template, request, url_for
from werkzeug.exceptions import Forbidden, NotFound

from qdjobs.client.json import to_json
from qdjobs.client.redis import address
from qdjobs.config import get_config
from qdjobs.web.access import require_login
from qdjobs.web.problems import register_problems

POLL_INTERVAL = 1000  # milliseconds between two readings of a page that is looked at
POLL_ENDED = 5  # times that, of a job that has ended: its result can be large, and changes no more

SAID = ('done', 'count', 'of')  # the parts of an address that say what a button has done

_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    'Content-Security-Policy': _CSP,
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'same-origin',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Cache-Control': 'no-store',
}

dashboard = Blueprint(
    'qdjobs_dashboard',
    __name__,
    url_prefix='/rq',
    static_folder='static',
    template_folder='templates',
)

# Ours, or the application's handlers of errors would answer: a browser must see the 401.
register_problems(dashboard)


@dashboard.before_request
def _guard() -> None:
    login = get_config().dashboard_login
    if login is None:
        raise NotFound
    require_login(*login)
    g.qdjobs_may_see_pages = True
    if request.method not in ('GET', 'HEAD', 'OPTIONS') and not _is_same_origin():
        raise Forbidden('Only the pages of the dashboard itself may ask for this.')


def _is_same_origin() -> bool:
    # A browser also sends the login with requests that pages of other sites make.
    site, origin = request.headers.get('Sec-Fetch-Site'), request.headers.get('Origin')
    if site is None and origin is None:
        return False
    same_host = origin is None or origin.partition('://')[2] == request.host
    return site in (None, 'same-origin') and same_host


@dashboard.after_request
def _finish(answer: Response) -> Response:
    # A page names the address of Redis: it is not for those who have not logged in.
    is_problem = answer.mimetype == 'application/problem+json'
    may_see = g.get('qdjobs_may_see_pages')
    if is_problem and wants_page() and (may_see or answer.status_code == 401):
        problem = answer.get_json()
        name = 'qdjobs_dashboard/login.html'
        answer.set_data(render('problem', **problem) if may_see else render_template(name))
        answer.mimetype = 'text/html'
    for name, value in HEADERS.items():
        answer.headers.setdefault(name, value)
    return answer


def wants_page() -> bool:
    """Return whether the client is a browser that shows a page, and no script."""
    types = ['application/json', 'text/html']
    return request.accept_mimetypes.best_match(types) == 'text/html'


def render(name: str, **values: Any) -> str:
    """Render a template, with what every page shows."""
    is_read_again = request.method == 'GET' or values.get('status') == 503
    return render_template(
        f'qdjobs_dashboard/{name}.html',
        **values,
        home=url_for('qdjobs_dashboard.home'),
        poll_interval=POLL_INTERVAL if is_read_again else 0,
        is_change=request.method == 'POST',
        poll_ended=POLL_ENDED,
        redis_address=address(),
        rq_version=version('rq'),
        as_json=to_json,
    )
