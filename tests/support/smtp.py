"""A real SMTP server that keeps what arrives, and refuses what it is told to refuse."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from email import policy
from email.message import EmailMessage, Message
from email.parser import BytesParser
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from qdjobs.server import free_port

LOGIN = ('anna@shop', 'p:/%@secret')
URL_LOGIN = 'anna%40shop:p%3A%2F%25%40secret'


class Mailbox:
    """What has arrived at a server, in order; and what it answers instead of 250, by command."""

    def __init__(self) -> None:
        self.port = free_port()
        self.envelopes: list[Envelope] = []
        self.secured: list[bool] = []  # whether each arrived by TLS
        self.users: list[str] = []  # who have tried to log in
        self.answers: dict[str, str] = {}
        self.delay = 0.0  # seconds before the answer to a message
        self.slow_to_part = 0.0  # seconds before the answer to QUIT
        self.drops = 0  # connections still to be cut instead of an answer to a message

    @property
    def messages(self) -> list[EmailMessage]:
        parser = BytesParser(EmailMessage, policy=policy.default)
        return [parser.parsebytes(envelope.original_content or b'') for envelope in self.envelopes]

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.mail_from = address
        return self.answers.get('MAIL', '250 OK')

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        envelope.rcpt_tos.append(address)
        return self.answers.get('RCPT', '250 OK')

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.envelopes.append(envelope)
        self.secured.append(transport(server).get_extra_info('sslcontext') is not None)
        await asyncio.sleep(self.delay)
        if self.drops:
            self.drops -= 1
            transport(server).abort()
        return self.answers.get('DATA', '250 OK')

    def authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any
    ) -> AuthResult:
        assert isinstance(data, LoginPassword)
        self.users.append(data.login.decode())
        given = (data.login.decode(), data.password.decode())
        # Without a message, aiosmtpd answers 235 or 535 itself.
        success = given == LOGIN and 'AUTH' not in self.answers
        return AuthResult(success=success, handled=False, message=self.answers.get('AUTH'))

    async def handle_QUIT(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        await asyncio.sleep(self.slow_to_part)
        if self.answers.get('QUIT') == 'cut':
            transport(server).abort()
        return self.answers.get('QUIT', '221 Bye')


def text_of(part: Message) -> str:
    """A part's text, in lines as Python has them."""
    assert isinstance(part, EmailMessage)
    return str(part.get_content()).replace('\r\n', '\n')


def transport(server: SMTP) -> asyncio.Transport:
    assert isinstance(server.transport, asyncio.Transport)
    return server.transport


@contextmanager
def mail_server(login: bool = False, **options: Any) -> Iterator[Mailbox]:
    """A server at 127.0.0.1 until the block ends; `options` are those of aiosmtpd's SMTP."""
    mailbox = Mailbox()
    if login:
        options['authenticator'] = mailbox.authenticate
    controller = Controller(mailbox, hostname='127.0.0.1', port=mailbox.port, **options)
    controller.start()
    try:
        yield mailbox
    finally:
        controller.stop()
