"""Handing a message to a server that is real, and now and then rude."""

import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trustme

from libraries.mail import server as mail_server
from libraries.mail.server import MailServerError, deliver
from libraries.mail.settings import SmtpUrl, read_mail_settings
from qdjobs.errors import PermanentJobError
from qdjobs.server import free_port
from tests.support.smtp import LOGIN, URL_LOGIN, Mailbox
from tests.support.smtp import mail_server as run_server

MESSAGE = b'Subject: hello\r\n\r\n.\r\n..dots\r\n'


def send(url: str) -> None:
    server = read_mail_settings({'SMTP_URL': url}).smtp_url
    assert server
    deliver(server, 'from@shop.local', 'zoe@example.com', MESSAGE)


def plain(mailbox: Mailbox) -> str:
    return f'smtp://127.0.0.1:{mailbox.port}'


@pytest.fixture
def authority(settings: pytest.MonkeyPatch, tmp_path: Path) -> trustme.CA:
    """One that this process trusts."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / 'authority.pem'))
    settings.setenv('SSL_CERT_FILE', str(tmp_path / 'authority.pem'))
    return authority


def certificate(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names).configure_cert(context)
    return context


@contextmanager
def scripted(behave: Callable[[socket.socket], None]) -> Iterator[SmtpUrl]:
    """A server that treats each connection as `behave` does, and then hangs up."""
    listener = socket.create_server(('127.0.0.1', 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with suppress(OSError), client:
                    behave(client)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield SmtpUrl('smtp', '127.0.0.1', listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


# What goes well


def test_the_message_arrives_as_it_is() -> None:
    with run_server() as mailbox:
        send(plain(mailbox))
    (envelope,) = mailbox.envelopes
    assert (envelope.mail_from, envelope.rcpt_tos) == ('from@shop.local', ['zoe@example.com'])
    assert envelope.original_content == MESSAGE


@pytest.mark.parametrize('scheme', ['smtps', 'smtp+starttls'])
@pytest.mark.parametrize('host', ['127.0.0.1', 'localhost'])
def test_mail_goes_by_tls_and_with_a_login(authority: trustme.CA, scheme: str, host: str) -> None:
    with secured(scheme, certificate(authority, '127.0.0.1', 'localhost')) as mailbox:
        send(f'{scheme}://{URL_LOGIN}@{host}:{mailbox.port}')
    assert mailbox.secured == [True]
    assert mailbox.users == [LOGIN[0]]


@contextmanager
def secured(scheme: str, context: ssl.SSLContext) -> Iterator[Mailbox]:
    if scheme == 'smtps':
        # aiosmtpd does not see the TLS that was there before the first command.
        run = run_server(login=True, ssl_context=context, auth_require_tls=False)
    else:
        run = run_server(login=True, tls_context=context, require_starttls=True)
    with run as mailbox:
        yield mailbox


@pytest.mark.parametrize('answer', ['cut', '421 too late', '500 what?'])
def test_an_error_after_the_acceptance_is_none(answer: str) -> None:
    with run_server() as mailbox:
        mailbox.answers['QUIT'] = answer
        send(plain(mailbox))
        assert len(mailbox.envelopes) == 1


@pytest.mark.slow
def test_a_server_may_think_about_a_message_for_longer(settings: pytest.MonkeyPatch) -> None:
    settings.setattr(mail_server, 'TIMEOUT', 3.0)
    with run_server() as mailbox:
        mailbox.delay = 4.0
        send(plain(mailbox))
        assert len(mailbox.envelopes) == 1


# What the server says


@pytest.mark.parametrize('command', ['MAIL', 'RCPT', 'DATA'])
@pytest.mark.parametrize(
    ('answer', 'kind'),
    [('450 4.2.0 Greylisted', MailServerError), ('550 5.1.1 Unknown', PermanentJobError)],
)
def test_the_first_digit_of_an_answer_decides(
    command: str, answer: str, kind: type[Exception]
) -> None:
    with run_server() as mailbox:
        mailbox.answers[command] = answer
        with pytest.raises(kind) as refusal:
            send(plain(mailbox))
    assert str(refusal.value) == f'127.0.0.1:{mailbox.port} answers {answer}'


@pytest.mark.parametrize(
    ('greeting', 'kind'),
    [
        (b'421 busy\r\n', MailServerError),
        (b'554-no\r\n554 \x1b[31mservice\xff\r\n', PermanentJobError),
        (b'SSH-2.0-OpenSSH\r\n', MailServerError),
        (b'\r\n', MailServerError),
        (b'', MailServerError),
    ],
)
def test_a_greeting_that_is_none(greeting: bytes, kind: type[Exception]) -> None:
    with scripted(lambda client: client.sendall(greeting)) as url, pytest.raises(kind) as refusal:
        deliver(url, 'a@b.example', 'c@d.example', MESSAGE)
    assert str(url) in str(refusal.value)
    assert str(refusal.value).isprintable()


def test_a_wrong_password_is_refused_for_good(authority: trustme.CA) -> None:
    with (
        secured('smtps', certificate(authority, '127.0.0.1')) as mailbox,
        pytest.raises(PermanentJobError, match=r' answers 535 5\.7\.8 ') as refusal,
    ):
        send(f'smtps://anna:wrongone@127.0.0.1:{mailbox.port}')
    assert 'wrongone' not in str(refusal.value)


def test_a_login_may_be_refused_for_now_and_a_password_is_never_repeated(
    authority: trustme.CA,
) -> None:
    user, password = LOGIN
    base64 = [b64encode(text.encode()).decode() for text in (password, f'\0{user}\0{password}')]
    with secured('smtp+starttls', certificate(authority, '127.0.0.1')) as mailbox:
        mailbox.answers['AUTH'] = f'454 not now, {password} {" ".join(base64)}'
        with pytest.raises(MailServerError) as refusal:
            send(f'smtp+starttls://{URL_LOGIN}@127.0.0.1:{mailbox.port}')
    assert str(refusal.value) == f'127.0.0.1:{mailbox.port} answers 454 not now, … … …'


def test_a_server_without_a_login_is_no_place_for_one(authority: trustme.CA) -> None:
    context = certificate(authority, '127.0.0.1')
    with (
        run_server(ssl_context=context) as mailbox,
        pytest.raises(PermanentJobError, match='cannot do what SMTP_URL asks for: SMTP AUTH'),
    ):
        send(f'smtps://{URL_LOGIN}@127.0.0.1:{mailbox.port}')
    assert not mailbox.envelopes


# TLS


def test_a_server_without_starttls_gets_nothing() -> None:
    with (
        run_server() as mailbox,
        pytest.raises(PermanentJobError, match='cannot do what SMTP_URL asks for: STARTTLS'),
    ):
        send(f'smtp+starttls://127.0.0.1:{mailbox.port}')
    assert not mailbox.envelopes


@pytest.mark.parametrize('scheme', ['smtps', 'smtp+starttls'])
def test_a_certificate_of_an_unknown_authority_is_refused(
    authority: trustme.CA, scheme: str
) -> None:
    with (
        secured(scheme, certificate(trustme.CA(), '127.0.0.1')) as mailbox,
        pytest.raises(PermanentJobError, match='a certificate that is not to be trusted: '),
    ):
        send(f'{scheme}://{URL_LOGIN}@127.0.0.1:{mailbox.port}')
    assert not mailbox.envelopes
    assert not mailbox.users


@pytest.mark.parametrize('scheme', ['smtps', 'smtp+starttls'])
def test_a_certificate_for_another_host_is_refused(authority: trustme.CA, scheme: str) -> None:
    with (
        secured(scheme, certificate(authority, 'mail.example')) as mailbox,
        pytest.raises(PermanentJobError, match=r'to be trusted: .*127\.0\.0\.1'),
    ):
        send(f'{scheme}://{URL_LOGIN}@127.0.0.1:{mailbox.port}')
    assert not mailbox.envelopes
    assert not mailbox.users


def test_a_server_that_speaks_no_tls_may_be_another_one_next_time() -> None:
    with (
        run_server() as mailbox,
        pytest.raises(MailServerError, match='No mail can be sent by 127'),
    ):
        send(f'smtps://127.0.0.1:{mailbox.port}')


# The network


def test_nobody_answers_at_a_closed_port() -> None:
    port = free_port()
    with pytest.raises(MailServerError) as refusal:
        send(f'smtp://127.0.0.1:{port}')
    assert str(refusal.value) == f'No mail can be sent by 127.0.0.1:{port}: Connection refused.'


def test_an_unknown_host_is_named() -> None:
    with pytest.raises(MailServerError, match=r'^No mail can be sent by mail\.invalid:25: '):
        send('smtp://mail.invalid')


def test_a_server_that_never_says_anything_is_given_up(settings: pytest.MonkeyPatch) -> None:
    settings.setattr(mail_server, 'TIMEOUT', 0.3)
    done = threading.Event()

    def say_nothing(client: socket.socket) -> None:
        done.wait(60)

    with scripted(say_nothing) as url:
        with pytest.raises(MailServerError, match=r'does not answer: .*timed out'):
            deliver(url, 'a@b.example', 'c@d.example', MESSAGE)
        done.set()


def test_a_message_that_nobody_confirms_is_given_up(settings: pytest.MonkeyPatch) -> None:
    settings.setattr(mail_server, 'ACCEPTANCE_TIMEOUT', 0.3)
    with run_server() as mailbox:
        mailbox.delay = 20.0
        with pytest.raises(MailServerError, match=r'does not answer: .*timed out'):
            send(plain(mailbox))


def test_a_connection_that_is_cut_after_the_message_is_no_success() -> None:
    with run_server() as mailbox:
        mailbox.drops = 1
        with pytest.raises(MailServerError, match='does not answer: Connection unexpectedly'):
            send(plain(mailbox))
        assert len(mailbox.envelopes) == 1
