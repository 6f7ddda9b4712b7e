"""The server that takes our mail: its URL, and one message handed over to it."""

import contextlib
import re
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from qdjobs.errors import PermanentJobError

if TYPE_CHECKING:
    import smtplib  # imported where a mail is sent, since nobody else needs it
    import ssl

TIMEOUT = 10.0  # seconds, for the connection and for each answer
ACCEPTANCE_TIMEOUT = 60.0  # seconds: a server may scan a message before it says yes
MAX_WORDS = 300  # characters of what a server says that stand in an error

_PORTS = {'smtp': 25, 'smtps': 465, 'smtp+starttls': 587}
_HOST = re.compile(r'[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?')


class MailServerError(Exception):
    """The mail server cannot be reached, or takes nothing now: trying again may help."""


@dataclass(frozen=True)
class SmtpUrl:
    """Where mail goes. As text it is `host:port`, fit for an error."""

    scheme: str  # smtp (no TLS), smtps (TLS from the start), smtp+starttls (TLS, or no mail)
    host: str
    port: int
    login: tuple[str, str] | None = field(default=None, repr=False)  # user, password

    def __str__(self) -> str:
        host = f'[{self.host}]' if ':' in self.host else self.host
        return f'{host}:{self.port}'


def read_smtp_url(text: str) -> SmtpUrl:
    """Raise ValueError, without the password, for a URL that cannot be used."""
    try:
        parts = urlsplit(text)
        host, port, scheme = parts.hostname or '', parts.port, parts.scheme
        user, password = (
            unquote(part or '', errors='strict') for part in (parts.username, parts.password)
        )
    except ValueError:
        raise ValueError(_FORM) from None  # whose words can hold the password
    known = scheme in _PORTS and (_is_ip(host) or _HOST.fullmatch(host)) and port != 0
    if not known or parts.path.strip('/') or parts.query or parts.fragment or not _visible(text):
        raise ValueError(_FORM)
    if bool(user) != bool(password):
        raise ValueError('needs both a user and a password, or neither.')
    if not _visible(user + password):
        raise ValueError('must have a user and a password of visible ASCII characters.')
    if user and scheme == 'smtp' and not _is_loopback(host):
        raise ValueError(
            f'would send the password to {host} for anybody to read: '
            'begin it with smtps:// or smtp+starttls://.'
        )
    return SmtpUrl(scheme, host, port or _PORTS[scheme], (user, password) if user else None)


_FORM = (
    'must be of the form smtp+starttls://user:password@host:587, or begin with smtps:// or, '
    'without encryption, smtp://; special characters in it are percent-encoded.'
)


def _visible(text: str) -> bool:
    return all('!' <= character <= '~' for character in text)


def _is_ip(host: str) -> bool:
    try:
        return bool(ip_address(host))
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    return host == 'localhost' or (_is_ip(host) and ip_address(host).is_loopback)


def deliver(url: SmtpUrl, sender: str, recipient: str, message: bytes) -> None:
    """Hand a message over; once the server has accepted it, nothing fails any more.

    Raises MailServerError for what may be better next time: no network, no answer in time,
    a 4xx answer. Raises PermanentJobError for a 5xx answer, for a server without the TLS or
    the login that the URL asks for, and for a certificate that does not verify: somebody has
    to mend that first, and then retry the job.
    """
    with _explained(url), contextlib.closing(_connect(url)) as smtp:
        if url.scheme == 'smtp+starttls':
            smtp.starttls(context=_tls())
        smtp.ehlo_or_helo_if_needed()
        if url.login:
            smtp.login(*url.login)
        _require_yes(smtp.mail(sender))
        _require_yes(smtp.rcpt(recipient))
        _set_timeout(smtp, ACCEPTANCE_TIMEOUT)
        _require_yes(smtp.data(message))
        # It is theirs now: an error here would have it sent twice.
        with contextlib.suppress(OSError):
            smtp.putcmd('quit')  # and no wait for the answer, in which a time-out could strike


def _connect(url: SmtpUrl) -> 'smtplib.SMTP':
    import smtplib

    if url.scheme == 'smtps':
        return smtplib.SMTP_SSL(url.host, url.port, timeout=TIMEOUT, context=_tls())
    return smtplib.SMTP(url.host, url.port, timeout=TIMEOUT)


def _tls() -> 'ssl.SSLContext':
    import ssl

    return ssl.create_default_context()  # checks the certificate and the name in it


def _set_timeout(smtp: 'smtplib.SMTP', seconds: float) -> None:
    if smtp.sock is not None:
        smtp.sock.settimeout(seconds)


def _require_yes(answer: tuple[int, bytes]) -> None:
    import smtplib

    code, words = answer
    if code // 100 != 2:
        raise smtplib.SMTPResponseException(code, words)


@contextlib.contextmanager
def _explained(url: SmtpUrl) -> Iterator[None]:
    """Turn what smtplib raises into one of two errors, each of one readable line."""
    import smtplib
    import ssl

    try:
        yield
    except smtplib.SMTPResponseException as error:
        kind = PermanentJobError if error.smtp_code // 100 == 5 else MailServerError
        raise kind(f'{url} answers {error.smtp_code} {_words(url, error.smtp_error)}') from None
    except smtplib.SMTPServerDisconnected as error:
        raise MailServerError(f'{url} does not answer: {error}.') from error
    except smtplib.SMTPException as error:  # what the URL asks for and the server cannot do
        raise PermanentJobError(f'{url} cannot do what SMTP_URL asks for: {error}') from error
    except ssl.SSLCertVerificationError as error:
        raise PermanentJobError(
            f'{url} shows a certificate that is not to be trusted: {error.verify_message}.'
        ) from error
    except OSError as error:
        raise MailServerError(
            f'No mail can be sent by {url}: {error.strerror or error}.'
        ) from error


def _words(url: SmtpUrl, answer: bytes | str) -> str:
    """What a server has said, on one line, without the login should it repeat that."""
    text = answer if isinstance(answer, str) else answer.decode(errors='replace')
    if url.login:
        user, password = url.login
        for secret in (password, f'\0{user}\0{password}'):
            for spelling in (secret, b64encode(secret.encode()).decode()):
                text = text.replace(spelling, '…')
    return ' '.join(''.join(c if c.isprintable() else ' ' for c in text).split())[:MAX_WORDS]
