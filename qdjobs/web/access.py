"""Check the token or login of a request, in constant time."""

from hmac import compare_digest

from flask import request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized


def require_token(token: str, setting: str) -> None:
    """Raise Unauthorized unless the request has the header `Authorization: Bearer <token>`.

    `setting` names where the application has the token from.
    """
    # Not `request.authorization`: Werkzeug parses a token with an equals sign as parameters.
    scheme, _, given = request.headers.get('Authorization', '').partition(' ')
    if scheme.lower() != 'bearer' or not _same(given.strip(), token):
        raise missing_token(
            'Send the token, as "Authorization: Bearer …": it is the value of '
            f'{setting} where this application runs.'
        )


def missing_token(description: str) -> Unauthorized:
    return Unauthorized(description, None, _challenge('bearer'))


def require_login(user: str, password: str) -> None:
    """Raise Unauthorized, at which a browser asks for a login, unless the request has this one."""
    given = request.authorization
    if given is None or given.type != 'basic':
        raise Unauthorized('Log in.', None, _challenge('basic'))
    # Compare both always: the time must not reveal whether the user is right.
    right = (_same(given.username, user), _same(given.password, password))
    if not all(right):
        raise Unauthorized('That is not the name and the password.', None, _challenge('basic'))


def _same(given: str | None, secret: str) -> bool:
    return given is not None and compare_digest(given.encode(), secret.encode())


def _challenge(scheme: str) -> WWWAuthenticate:
    return WWWAuthenticate(scheme, {'realm': 'background jobs', 'charset': 'UTF-8'})
