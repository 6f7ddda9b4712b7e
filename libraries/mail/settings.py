"""The mail settings from the environment: `SMTP_URL` and `MAIL_FROM`."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

_PORTS = {'smtp': 25, 'smtps': 465, 'smtp+starttls': 587}
_HOST = re.compile(r'[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?|[0-9a-f:.]*:[0-9a-f:.]*')
_LOOPBACK = re.compile(r'localhost|127(\.\d{1,3}){3}|::1')
_VISIBLE = re.compile('[!-~]*')  # ASCII
_URL_FORM = (
    'must be of the form smtp+starttls://user:password@host:587, or begin with smtps:// or, '
    'without encryption, smtp://; special characters in it are percent-encoded.'
)


@dataclass(frozen=True)
class SmtpUrl:
    """A parsed SMTP URL. Its `str` is `host:port`, without the login, for error messages."""

    scheme: str  # smtp (no TLS), smtps (TLS from the start), smtp+starttls (TLS required)
    host: str
    port: int
    login: tuple[str, str] | None = field(default=None, repr=False)  # user, password

    def __str__(self) -> str:
        host = f'[{self.host}]' if ':' in self.host else self.host
        return f'{host}:{self.port}'


@dataclass(frozen=True)
class MailSettings:
    """The SMTP server and the sender of every mail."""

    smtp_url: SmtpUrl | None  # None: no mail can be sent
    sender: tuple[str, str]  # name, address


def read_mail_settings(env: Mapping[str, str] | None = None) -> MailSettings:
    """Read the settings. Raises ValueError, naming the variable, for an invalid value."""
    env = os.environ if env is None else env
    try:
        smtp_url = _smtp_url(text) if (text := env.get('SMTP_URL')) else None
    except ValueError as error:
        raise ValueError(f'SMTP_URL {error}') from None
    return MailSettings(smtp_url, _sender(env.get('MAIL_FROM')))


def _smtp_url(text: str) -> SmtpUrl:
    """Parse an SMTP URL. Raises ValueError, never with the password, for an invalid one."""
    try:
        parts = urlsplit(text)
        host, port, scheme = parts.hostname or '', parts.port, parts.scheme
        user, password = (
            unquote(part or '', errors='strict') for part in (parts.username, parts.password)
        )
    except ValueError:
        raise ValueError(_URL_FORM) from None  # its message can contain the password
    known = scheme in _PORTS and _HOST.fullmatch(host) and port != 0
    extra = parts.path.strip('/') or parts.query or parts.fragment
    if not known or extra or not _VISIBLE.fullmatch(text):
        raise ValueError(_URL_FORM)
    if bool(user) != bool(password):
        raise ValueError('needs both a user and a password, or neither.')
    if not _VISIBLE.fullmatch(user + password):
        raise ValueError('must have a user and a password of visible ASCII characters.')
    if user and scheme == 'smtp' and not _LOOPBACK.fullmatch(host):
        raise ValueError(
            f'would send the password to {host} for anybody to read: '
            'begin it with smtps:// or smtp+starttls://.'
        )
    return SmtpUrl(scheme, host, port or _PORTS[scheme], (user, password) if user else None)


def _sender(text: str | None) -> tuple[str, str]:
    if not text:
        return '', 'noreply@localhost'
    from libraries.mail.message import read_sender  # slow to import

    try:
        return read_sender(text)
    except ValueError as error:
        raise ValueError(f'MAIL_FROM cannot be the sender of a mail: {error}') from None
