"""The mail settings from the environment: `SMTP_URL` and `MAIL_FROM`."""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from libraries.mail.server import SmtpUrl, read_smtp_url


@dataclass(frozen=True)
class MailSettings:
    """The SMTP server and the sender of every mail."""

    smtp_url: SmtpUrl | None  # None: no mail can be sent
    sender: tuple[str, str]  # name, address


def read_mail_settings(env: Mapping[str, str] | None = None) -> MailSettings:
    """Read the settings. Raises ValueError, naming the variable, for an invalid value."""
    env = os.environ if env is None else env
    return MailSettings(_smtp_url(env.get('SMTP_URL')), _sender(env.get('MAIL_FROM')))


def _smtp_url(text: str | None) -> SmtpUrl | None:
    try:
        return read_smtp_url(text) if text else None
    except ValueError as error:
        raise ValueError(f'SMTP_URL {error}') from None


def _sender(text: str | None) -> tuple[str, str]:
    if not text:
        return '', 'noreply@localhost'
    from libraries.mail.message import read_sender  # slow to import

    try:
        return read_sender(text)
    except ValueError as error:
        raise ValueError(f'MAIL_FROM cannot be the sender of a mail: {error}') from None
