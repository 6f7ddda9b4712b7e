"""Deliver a message to an SMTP server."""

import contextlib
import smtplib
import ssl
from base64 import b64encode
from functools import partial

from libraries.mail.settings import SmtpUrl
from qdjobs.errors import PermanentJobError

TIMEOUT = 10.0  # seconds, for the connection and for each reply
ACCEPTANCE_TIMEOUT = 60.0  # seconds: a server may scan a message before it accepts it
MAX_REPLY = 300  # characters of a server's reply in an error message


class MailServerError(Exception):
    """The mail server cannot be reached or refuses for now: a retry may succeed."""


def deliver(url: SmtpUrl, sender: str, recipient: str, message: bytes) -> None:
    """Deliver a message to a server; errors after its acceptance are ignored.

    Raises MailServerError where a retry may succeed: no connection, no reply in time, a 4xx
    reply. Raises PermanentJobError for a 5xx reply, a server without the TLS or login that
    the URL requires, and a certificate that does not verify.
    """
    try:
        _send(url, sender, recipient, message)
    except smtplib.SMTPResponseException as error:
        raise _refusal(url, error.smtp_code, error.smtp_error) from None
    except smtplib.SMTPRecipientsRefused as error:
        raise _refusal(url, *error.recipients[recipient]) from None
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


def _send(url: SmtpUrl, sender: str, recipient: str, message: bytes) -> None:
    tls = ssl.create_default_context()  # verifies the certificate and its host name
    connect = partial(smtplib.SMTP_SSL, context=tls) if url.scheme == 'smtps' else smtplib.SMTP
    with contextlib.closing(connect(url.host, url.port, timeout=TIMEOUT)) as smtp:
        if url.scheme == 'smtp+starttls':
            smtp.starttls(context=tls)
        smtp.ehlo_or_helo_if_needed()
        if url.login:
            smtp.login(*url.login)
        if smtp.sock:
            smtp.sock.settimeout(ACCEPTANCE_TIMEOUT)
        smtp.sendmail(sender, recipient, message)
        # The server has accepted the message: an error from here on would send it twice.
        with contextlib.suppress(OSError):
            smtp.putcmd('quit')  # without waiting for the reply: the job could time out there


def _refusal(url: SmtpUrl, code: int, reply: bytes | str) -> Exception:
    """The error of a reply, on one line, with `…` for the password where the reply repeats it."""
    text = reply if isinstance(reply, str) else reply.decode(errors='replace')
    if url.login:
        user, password = url.login
        for secret in (password, f'\0{user}\0{password}'):
            for spelling in (secret, b64encode(secret.encode()).decode()):
                text = text.replace(spelling, '…')
    text = ' '.join(''.join(c if c.isprintable() else ' ' for c in text).split())[:MAX_REPLY]
    kind = PermanentJobError if code // 100 == 5 else MailServerError
    return kind(f'{url} answers {code} {text}')
