"""Who may come in: secrets from the settings, compared so that time tells nothing of them."""

from hmac import compare_digest

from flask import request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized


def require_token(token: str) -> None:
    """401, unless the request says `Authorization: Bearer <token>`."""
    # By ourselves: Werkzeug takes a token with an equals sign in it for parameters.
    scheme, _, given = request.headers.get('Authorization', '').partition(' ')
    if scheme.lower() != 'bearer' or not _same(given.strip(), token):
        raise Unauthorized('Send the token, as "Authorization: Bearer …".', None, _ask('bearer'))


def require_login(user: str, password: str) -> None:
    """401, at which a browser asks for a name and a password, unless the request has these two."""
    given = request.authorization
    if given is None or given.type != 'basic':
        raise Unauthorized('Log in.', None, _ask('basic'))
    # Both are compared, whether or not the first is right.
    right = (_same(given.username, user), _same(given.password, password))
    if not all(right):
        raise Unauthorized('That is not the name and the password.', None, _ask('basic'))


def _same(given: str | None, secret: str) -> bool:
    return given is not None and compare_digest(given.encode(), secret.encode())


def _ask(scheme: str) -> WWWAuthenticate:
    return WWWAuthenticate(scheme, {'realm': 'background jobs', 'charset': 'UTF-8'})
