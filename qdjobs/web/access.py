"""Check the token or login of a request, in constant time."""

from hmac import compare_digest

from flask import request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized

from qdjobs.config import get_config


def require_token(token: str, setting: str) -> None:
    """Raise Unauthorized unless the request has the header `Authorization: Bearer <token>`.

    `setting` names where the application has the token from.
    """
    if not _has_token(token):
        raise missing_token(
            'Send the token, as "Authorization: Bearer …": it is the value of '
            f'{setting} where this application runs.'
        )


def missing_token(description: str) -> Unauthorized:
    return Unauthorized(description, None, _challenge('bearer'))


def has_api_token() -> bool:
    """Return whether there is a JOBS_API_TOKEN, and the request has it."""
    token = get_config().api_token
    return token is not None and _has_token(token)


def require_login(user: str, password: str) -> None:
    """Raise Unauthorized, at which a browser asks for a login, unless the request has this one."""
    given = request.authorization
    if given is None or given.type != 'basic':
        raise Unauthorized('Log in.', None, _challenge('basic'))
    # Compare both always: the time must not reveal whether the user is right.
    right = (_same(given.username, user), _same(given.password, password))
    if not all(right):
        raise Unauthorized('That is not the name and the password.', None, _challenge('basic'))


def _has_token(token: str) -> bool:
    # Not `request.authorization`: Werkzeug parses a token with an equals sign as parameters.
    scheme, _, given = request.headers.get('Authorization', '').partition(' ')
    return scheme.lower() == 'bearer' and _same(given.strip(), token)


def _same(given: str | None, secret: str) -> bool:
    return given is not None and compare_digest(given.encode(), secret.encode())


def _challenge(scheme: str) -> WWWAuthenticate:
    return WWWAuthenticate(scheme, {'realm': 'background jobs', 'charset': 'UTF-8'})
