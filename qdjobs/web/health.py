"""Answer whether a web process serves (/healthz), and whether it reaches Redis (/readyz).

An application mounts it: `app.register_blueprint(health)`. docs/deployment.md says who asks which.
"""

from flask import Blueprint, Response

from qdjobs.client.redis import redis_connection
from qdjobs.web.problems import register_problems

health = Blueprint('qdjobs_health', __name__)
register_problems(health)


@health.get('/healthz')
def healthz() -> Response:
    """Answer 200: this process serves. A restart would not bring Redis back."""
    return _ok()


@health.get('/readyz')
def readyz() -> Response:
    """Answer 200 if this process reaches Redis, else 503."""
    with redis_connection() as connection:
        connection.ping()
    return _ok()


def _ok() -> Response:
    return Response('ok\n', mimetype='text/plain')
