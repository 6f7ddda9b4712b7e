"""The mail server of `make up` and `make demo`: it prints mails and delivers none."""

from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

import click
from aiosmtpd.smtp import SMTP, Envelope, Session


class ShowMails:
    """Writes each mail, decoded, to standard output or to a file."""

    def __init__(self, output: Any = None) -> None:
        self._output = output

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        mail = message_from_bytes(envelope.content or b'', policy=default)  # type: ignore[arg-type]
        click.echo('\n'.join(describe(mail)), self._output)
        return '250 OK'


def describe(mail: EmailMessage) -> list[str]:
    """The lines to print for a mail: its main headers and its texts, decoded."""
    lines = ['', '-' * 30 + ' a mail ' + '-' * 30]
    for name in ('From', 'To', 'Subject', 'Message-ID'):
        lines.append(f'{name}: {mail[name]}')
    for part in mail.walk():
        if part.get_content_maintype() == 'text':
            lines += ['', f'[{part.get_content_type()}]', part.get_content().rstrip()]
    return [*lines, '-' * 68]
