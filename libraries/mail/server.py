"""Parse the URL of an SMTP server and deliver a message to it."""

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
    import smtplib  # slow to import: only on sending a mail
    import ssl

TIMEOUT = 10.0  # seconds, for the connection and for each reply
ACCEPTANCE_TIMEOUT = 60.0  # seconds: a server may scan a message before it accepts it
MAX_REPLY = 300  # characters of a server's reply in an error message

_PORTS = {'smtp': 25, 'smtps': 465, 'smtp+starttls': 587}
_HOST = re.compile(r'[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?')


class MailServerError(Exception):
    """The mail server cannot be reached or refuses for now: a retry may succeed."""


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


def read_smtp_url(text: str) -> SmtpUrl:
    """Parse an SMTP URL. Raises ValueError, never with the password, for an invalid one."""
    try:
        parts = urlsplit(text)
        host, port, scheme = parts.hostname or '', parts.port, parts.scheme
        user, password = (
            unquote(part or '', errors='strict') for part in (parts.username, parts.password)
        )
    except ValueError:
        raise ValueError(_URL_FORM) from None  # its message can contain the password
    known = scheme in _PORTS and (_is_ip(host) or _HOST.fullmatch(host)) and port != 0
    extra = parts.path.strip('/') or parts.query or parts.fragment
    if not known or extra or not _is_visible_ascii(text):
        raise ValueError(_URL_FORM)
    if bool(user) != bool(password):
        raise ValueError('needs both a user and a password, or neither.')
    if not _is_visible_ascii(user + password):
        raise ValueError('must have a user and a password of visible ASCII characters.')
    if user and scheme == 'smtp' and not _is_loopback(host):
        raise ValueError(
            f'would send the password to {host} for anybody to read: '
            'begin it with smtps:// or smtp+starttls://.'
        )
    return SmtpUrl(scheme, host, port or _PORTS[scheme], (user, password) if user else None)


_URL_FORM = (
    'must be of the form smtp+starttls://user:password@host:587, or begin with smtps:// or, '
    'without encryption, smtp://; special characters in it are percent-encoded.'
)


def _is_visible_ascii(text: str) -> bool:
    return all('!' <= character <= '~' for character in text)


def _is_ip(host: str) -> bool:
    try:
        return bool(ip_address(host))
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    return host == 'localhost' or (_is_ip(host) and ip_address(host).is_loopback)


def deliver(url: SmtpUrl, sender: str, recipient: str, message: bytes) -> None:
    """Deliver a message to a server; errors after its acceptance are ignored.

    Raises MailServerError where a retry may succeed: no connection, no reply in time, a 4xx
    reply. Raises PermanentJobError for a 5xx reply, a server without the TLS or login that
    the URL requires, and a certificate that does not verify.
    """
    with _translate_errors(url), contextlib.closing(_connect(url)) as smtp:
        if url.scheme == 'smtp+starttls':
            smtp.starttls(context=_tls())
        smtp.ehlo_or_helo_if_needed()
        if url.login:
            smtp.login(*url.login)
        _require_success(smtp.mail(sender))
        _require_success(smtp.rcpt(recipient))
        _set_timeout(smtp, ACCEPTANCE_TIMEOUT)
        _require_success(smtp.data(message))
        # The server has accepted the message: an error from here on would send it twice.
        with contextlib.suppress(OSError):
            smtp.putcmd('quit')  # without waiting for the reply: the job could time out there


def _connect(url: SmtpUrl) -> 'smtplib.SMTP':
    import smtplib

    if url.scheme == 'smtps':
        return smtplib.SMTP_SSL(url.host, url.port, timeout=TIMEOUT, context=_tls())
    return smtplib.SMTP(url.host, url.port, timeout=TIMEOUT)


def _tls() -> 'ssl.SSLContext':
    import ssl

    return ssl.create_default_context()  # verifies the certificate and its host name


def _set_timeout(smtp: 'smtplib.SMTP', seconds: float) -> None:
    if smtp.sock is not None:
        smtp.sock.settimeout(seconds)


def _require_success(reply: tuple[int, bytes]) -> None:
    import smtplib

    code, text = reply
    if code // 100 != 2:
        raise smtplib.SMTPResponseException(code, text)


@contextlib.contextmanager
def _translate_errors(url: SmtpUrl) -> Iterator[None]:
    """Raise errors of smtplib and ssl as MailServerError or PermanentJobError, in one line."""
    import smtplib
    import ssl

    try:
        yield
    except smtplib.SMTPResponseException as error:
        kind = PermanentJobError if error.smtp_code // 100 == 5 else MailServerError
        reply = _reply_text(url, error.smtp_error)
        raise kind(f'{url} answers {error.smtp_code} {reply}') from None
    except smtplib.SMTPServerDisconnected as error:
        raise MailServerError(f'{url} does not answer: {error}.') from error
    except smtplib.SMTPException as error:  # the server lacks the STARTTLS or login of the URL
        raise PermanentJobError(f'{url} cannot do what SMTP_URL asks for: {error}') from error
    except ssl.SSLCertVerificationError as error:
        raise PermanentJobError(
            f'{url} shows a certificate that is not to be trusted: {error.verify_message}.'
        ) from error
    except OSError as error:
        raise MailServerError(
            f'No mail can be sent by {url}: {error.strerror or error}.'
        ) from error


def _reply_text(url: SmtpUrl, reply: bytes | str) -> str:
    """A server's reply on one line, with the password replaced by `…` where it repeats it."""
    text = reply if isinstance(reply, str) else reply.decode(errors='replace')
    if url.login:
        user, password = url.login
        for secret in (password, f'\0{user}\0{password}'):
            for spelling in (secret, b64encode(secret.encode()).decode()):
                text = text.replace(spelling, '…')
    return ' '.join(''.join(c if c.isprintable() else ' ' for c in text).split())[:MAX_REPLY]
