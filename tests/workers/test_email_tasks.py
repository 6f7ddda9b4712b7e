"""Mails that a real server receives, and those that never leave."""

import re
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from redis import Redis

from libraries.job_manager import enqueue_background_job, wait_for_job
from libraries.mail.message import read_sender, write_message
from qdjobs.config import environment_config
from qdjobs.errors import InvalidJobError, PermanentJobError
from tests.support.processes import Worker
from tests.support.smtp import Mailbox, mail_server, text_of
from workers import email_tasks
from workers.email_tasks import email_notification, send_email, send_notification

NOTIFY = 'workers.email_tasks.send_notification'
EMAIL = 'workers.email_tasks.send_email'
HEADERS = {
    'From', 'To', 'Subject', 'Date', 'Message-ID', 'Auto-Submitted', 'MIME-Version',
    'Content-Type', 'Content-Transfer-Encoding',
}  # fmt: skip

# A slow machine is no failure.
unhurried = hypothesis(deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def mailbox(settings: pytest.MonkeyPatch) -> Iterator[Mailbox]:
    """Where mails go in this test."""
    with mail_server() as mailbox:
        settings.setenv('SMTP_URL', f'smtp://127.0.0.1:{mailbox.port}')
        settings.setenv('MAIL_FROM', 'Zoë’s Plotter <plotter@shop.local>')
        environment_config.cache_clear()
        yield mailbox


@pytest.fixture
def templates(settings: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A folder of its own for the templates of this test."""
    folder = tmp_path / 'workers' / 'templates' / 'email'
    folder.mkdir(parents=True)
    settings.setattr(email_tasks, '__file__', str(tmp_path / 'workers' / 'email_tasks.py'))
    email_tasks._templates.cache_clear()
    yield folder
    email_tasks._templates.cache_clear()


def refused(*arguments: Any, **keywords: Any) -> str:
    """Why send_email, or another task, refuses for good."""
    task = keywords.pop('task', send_email)
    with pytest.raises(PermanentJobError) as refusal:
        task(*arguments, **keywords)
    assert '\n' not in str(refusal.value)
    return str(refusal.value)


# What arrives


@pytest.mark.parametrize('send', [send_email, email_notification])
def test_a_mail_of_plain_text(mailbox: Mailbox, send: Any) -> None:
    sent = send('zoe@example.com', 'Your drawing', 'It is ready.\n.\nBye')
    (envelope,), (message,) = mailbox.envelopes, mailbox.messages
    assert (envelope.mail_from, envelope.rcpt_tos) == ('plotter@shop.local', ['zoe@example.com'])
    assert sent == {'message_id': message['Message-ID'], 'to': 'zoe@example.com'}
    assert message['From'] == 'Zoë’s Plotter <plotter@shop.local>'
    assert message['To'] == 'zoe@example.com'
    assert message['Subject'] == 'Your drawing'
    assert message['Date'].datetime.utcoffset() is not None
    assert message['Auto-Submitted'] == 'auto-generated'
    assert re.fullmatch(r'<[^@<>]+@shop\.local>', message['Message-ID'])
    assert message.get_content_type() == 'text/plain'
    assert text_of(message) == 'It is ready.\n.\nBye\n'
    assert set(message.keys()) == HEADERS


def test_a_mail_from_nobody_in_particular(mailbox: Mailbox, settings: pytest.MonkeyPatch) -> None:
    settings.delenv('MAIL_FROM')
    environment_config.cache_clear()
    send_email('root@localhost', 'Hello', '')
    assert mailbox.envelopes[0].mail_from == 'noreply@localhost'
    assert mailbox.messages[0]['From'] == 'noreply@localhost'


def test_two_mails_outside_a_job_are_two(mailbox: Mailbox) -> None:
    first, second = (send_email('zoe@example.com', 'Hello', 'Hi') for _ in range(2))
    assert first['message_id'] != second['message_id']


@pytest.mark.parametrize(
    'subject', ['Grüße aus Zürich', '日本' * 100, '👨‍👩‍👧', 'a' * 300, '=?a?q?b?=']
)
@pytest.mark.parametrize(
    'body', ['Grüße\n', '日本\n' * 100, 'long ' * 500 + '\n', '.\n..\nFrom me\n']
)
def test_words_of_any_language_arrive(mailbox: Mailbox, subject: str, body: str) -> None:
    send_email('zoe@example.com', subject, body)
    (message,) = mailbox.messages
    assert message['Subject'] == subject
    assert text_of(message) == body
    raw = mailbox.envelopes[0].original_content or b''
    assert raw.isascii()
    assert all(len(line) <= 78 for line in raw.split(b'\r\n'))


@pytest.mark.parametrize(
    ('address', 'sent_to'),
    [
        ('zoe@bücher.example', 'zoe@xn--bcher-kva.example'),
        ('Zoe+tag@EXAMPLE.com', 'Zoe+tag@example.com'),
        ('root@localhost', 'root@localhost'),
        ('a@mailhost', 'a@mailhost'),
        ('a@shop.local', 'a@shop.local'),
        ('a@shop.test', 'a@shop.test'),
        ('a@Shop.Internal', 'a@shop.internal'),
        (f'{"zoe." * 30}z@example.com', f'{"zoe." * 30}z@example.com'),
    ],
)
def test_an_address_of_any_domain(mailbox: Mailbox, address: str, sent_to: str) -> None:
    assert send_email(address, 'Hello', 'Hi')['to'] == sent_to
    assert mailbox.envelopes[0].rcpt_tos == [sent_to]
    raw = mailbox.envelopes[0].original_content or b''
    assert f'\r\nTo: {sent_to}\r\n' in raw.decode()


# Templates


@pytest.mark.parametrize(
    ('template', 'context', 'told'),
    [
        ('reminder', {'name': 'Zoe'}, "'order_id' is undefined"),
        ('no_such', {}, "'no_such' is not a mail template: use one of"),
        ('welcome', {'self': 1, 'name': 'Zoe'}, "Jinja reserves the name 'self'"),
    ],
)
def test_what_a_template_lacks_is_known_at_enqueue(
    connection: Redis, templates: Path, template: str, context: dict[str, Any], told: str
) -> None:
    (templates / 'reminder.txt').write_text('{{ name }}, {{ order_id }}')
    (templates / 'welcome.txt').write_text('{{ name }}')
    arguments: dict[str, Any] = {
        'recipient': 'zoe@example.com',
        'subject': 'Hello',
        'template': template,
    }
    with pytest.raises(InvalidJobError, match=re.escape(told)):
        enqueue_background_job(NOTIFY, **arguments, **context)
    assert connection.dbsize() == 0


@pytest.mark.parametrize('template', ['order_complete', 'welcome'])
def test_a_notification_is_text_and_html(mailbox: Mailbox, template: str) -> None:
    name = '<b>Zoë</b> & "Anna"'
    send_notification('zoe@example.com', 'A & B', template, name=name, order_id=7)
    (message,) = mailbox.messages
    assert message.get_content_type() == 'multipart/alternative'
    text, html = message.iter_parts()
    assert [part.get_content_type() for part in (text, html)] == ['text/plain', 'text/html']
    assert f'Hello {name},\n' in text_of(text)
    assert 'Hello &lt;b&gt;Zoë&lt;/b&gt; &amp; &#34;Anna&#34;,' in text_of(html)
    assert '<title>A &amp; B</title>' in text_of(html)
    told = 'order 7' if template == 'order_complete' else 'as zoe@example.com'
    assert told in text_of(text)


def test_a_template_without_html_is_plain(mailbox: Mailbox, templates: Path) -> None:
    (templates / 'note.txt').write_text('{{ rows | sum }} of {{ subject }}')
    send_notification('zoe@example.com', 'Rows', 'note', rows=[1, 2])
    assert mailbox.messages[0].get_content_type() == 'text/plain'
    assert text_of(mailbox.messages[0]) == '3 of Rows\n'


@pytest.mark.parametrize(
    'template',
    ['', 'nothing', '../email/welcome', '/etc/passwd', 'welcome.txt', '.', '..', 'a\0', '\udc80'],
    ids=ascii,
)
def test_only_a_template_of_the_folder_is_one(mailbox: Mailbox, template: str) -> None:
    told = refused('zoe@example.com', 'Hello', template, task=send_notification)
    assert told == f'{template!r} is not a mail template: use one of order_complete, welcome.'
    assert not mailbox.envelopes


@pytest.mark.parametrize('suffix', ['txt', 'html'])
@pytest.mark.parametrize(
    ('source', 'told'),
    [
        ('{{ nmae }}', "'nmae' is undefined"),
        ('{{ name.first }}', "'str object' has no attribute 'first'"),
        ('{% if nmae %}{% endif %}', "'nmae' is undefined"),
        ('{{ name', 'unexpected end of template'),
        ('{{ name + 1 }}', 'can only concatenate str'),
        ('{{ 1 / 0 }}', 'division by zero'),
        ('{% include "../../../etc/passwd" %}', 'passwd'),
    ],
)
def test_a_template_that_cannot_be_filled_in_sends_nothing(
    mailbox: Mailbox, templates: Path, suffix: str, source: str, told: str
) -> None:
    (templates / 'note.txt').write_text('text')
    (templates / f'note.{suffix}').write_text(source)
    message = refused('zoe@example.com', 'Hello', 'note', task=send_notification, name='Zoë')
    assert message.startswith(f'The mail template note.{suffix} cannot be filled in: ')
    assert told in message
    assert not mailbox.envelopes


def test_a_name_that_jinja_keeps_is_refused(mailbox: Mailbox) -> None:
    told = refused('zoe@example.com', 'Hello', 'welcome', task=send_notification, self=1)
    assert "reserves the name 'self'" in told


# What never leaves


@pytest.mark.parametrize(
    'address',
    [
        '',
        'zoe',
        '@example.com',
        'zoe@',
        'zoe@example..com',
        'Zoë <zoe@example.com>',
        '<zoe@example.com>',
        'zoe@example.com, anna@example.com',
        'zoe@example.com,anna@localhost',
        'zoe@example.com;anna@example.com',
        'zoe@example.com\r\nBcc: anna@example.com',
        'zoe@localhost\n',
        'zoe\n@localhost',
        'zoe @localhost',
        'zoe@example.com\0',
        'zoe@[127.0.0.1]',
        '"zoe"@example.com',
        'zoë@example.com',
        'zoë@localhost',
        '=?utf-8?q?zoe=40example.com=3E?=@shop.local',
        '\ud800@example.com',
        f'zoe@{"x" * 64}.com',
        'x' * 300 + '@example.com',
    ],
    ids=lambda text: ascii(text)[:40],
)
def test_an_address_that_is_none_is_refused(mailbox: Mailbox, address: str) -> None:
    told = refused(address, 'Hello', 'Hi')
    assert 'is not one plain address, such as zoe@example.com: ' in told
    assert not mailbox.envelopes


@pytest.mark.parametrize('character', '\r\n\t\0\x1b\x7f\x85\u2028\u2029\ud800\udfff', ids=ascii)
def test_a_subject_is_one_line(mailbox: Mailbox, character: str) -> None:
    told = refused('zoe@example.com', f'Hello{character}Bcc: anna@example.com', 'Hi')
    assert told == f'The subject must not contain the character {character!a}.'
    assert not mailbox.envelopes


@pytest.mark.parametrize('subject', ['', ' ', '\u00a0'])
def test_a_subject_says_something(mailbox: Mailbox, subject: str) -> None:
    assert refused('zoe@example.com', subject, 'Hi') == 'The subject must not be empty.'


@pytest.mark.parametrize('character', '\0\x08\x1b\ud800', ids=ascii)
def test_a_body_is_text(mailbox: Mailbox, character: str) -> None:
    told = refused('zoe@example.com', 'Hello', f'Hi{character}')
    assert told == f'The body must not contain the character {character!a}.'
    told = refused('a@b.example', 'A', 'welcome', task=send_notification, name=character)
    assert told == f'The body must not contain the character {character!a}.'
    assert not mailbox.envelopes


def test_without_a_server_no_mail_is_sent() -> None:
    told = refused('zoe@example.com', 'Hello', 'Hi')
    assert told == 'No mail can be sent without a server: set SMTP_URL.'


def written(subject: str, body: str) -> EmailMessage:
    """What a reader makes of the message."""
    message = write_message(('', 'a@b.example'), 'c@d.example', subject, body, None, 'job')
    return BytesParser(EmailMessage, policy=policy.default).parsebytes(message.as_bytes())


@unhurried
@given(st.text(max_size=400))
@example('Hello\r\nBcc: anna@example.com')
@example('a' * 71)
@example(' two  spaces ')
@example('Hello =?utf-8?q?=0D=0ABcc:_anna@example.com?=')
@example('é ' * 60)
def test_any_subject_is_refused_or_arrives_as_one_header(subject: str) -> None:
    try:
        message = written(subject, 'Hi')
    except ValueError as error:
        assert str(error).startswith('The subject must not ')  # noqa: PT017
        return
    assert message.get_all('Subject') == [subject]
    assert set(message.keys()) == HEADERS
    assert len(message.keys()) == len(HEADERS)
    assert text_of(message) == 'Hi\n'


@unhurried
@given(st.text(max_size=400))
@example('Bcc: anna@example.com\n\n.\n')
@example('a' * 2000)
@example('\r')
def test_any_body_is_refused_or_arrives(body: str) -> None:
    try:
        message = written('Hello', body)
    except ValueError as error:
        assert str(error).startswith('The body must not ')  # noqa: PT017
        return
    lines = body.replace('\r\n', '\n').replace('\r', '\n').removesuffix('\n') + '\n'
    assert text_of(message) == lines
    assert set(message.keys()) == HEADERS


@unhurried
@given(st.text(max_size=10))
@example('Plotter, Inc.')
@example('a@b.example,')
@example('=?utf-8?q?hi?=')
@example('"\\')
@example('" Zoë "')
def test_any_name_of_a_sender_is_refused_or_arrives(name: str) -> None:
    try:
        sender = read_sender(f'{name} <a@b.example>')
    except ValueError as error:
        assert str(error).startswith('A name must not ')  # noqa: PT017
        return
    message = write_message(sender, 'c@d.example', 'Hello', 'Hi', None, 'job')
    arrived = BytesParser(EmailMessage, policy=policy.default).parsebytes(message.as_bytes())
    (address,) = arrived['From'].addresses
    assert (address.display_name, address.addr_spec) == sender
    assert set(arrived.keys()) == HEADERS


# As jobs


def test_a_notification_is_checked_when_it_is_queued() -> None:
    good: dict[str, Any] = {
        'recipient': 'zoe@example.com',
        'subject': 'Hi',
        'template': 'welcome',
    }
    assert enqueue_background_job(NOTIFY, **good, name='Zoë', order_id=7).id
    for missing in good:
        with pytest.raises(InvalidJobError, match=missing):
            enqueue_background_job(NOTIFY, **{key: good[key] for key in good if key != missing})
    with pytest.raises(InvalidJobError, match='recipient'):
        enqueue_background_job(NOTIFY, **good | {'recipient': ['a@b.example', 'c@d.example']})
    with pytest.raises(InvalidJobError, match='name'):
        enqueue_background_job(NOTIFY, **good, name=object())


@pytest.mark.parametrize(
    ('mail', 'told'),
    [
        (('zoe', 'Hello', 'Hi'), "'zoe' is not one plain address, such as zoe@example.com: "),
        (('zoe@example.com', '', 'Hi'), 'The subject must not be empty.'),
        (('zoe@example.com', 'Hello', 'Hi\0'), 'The body must not contain the character'),
    ],
)
def test_a_mail_that_nobody_can_send_is_not_queued(
    connection: Redis, mail: tuple[str, str, str], told: str
) -> None:
    to, subject, body = mail
    calls: list[tuple[str, dict[str, Any]]] = [
        (EMAIL, {'to': to, 'subject': subject, 'body': body}),
        ('workers.email_tasks.email_notification', {'email': to, 'subject': subject, 'body': body}),
        (NOTIFY, {'recipient': to, 'subject': subject, 'template': 'welcome', 'name': body}),
    ]
    for task, arguments in calls:
        with pytest.raises(InvalidJobError, match=re.escape(told)):
            enqueue_background_job(task, **arguments)
    assert connection.dbsize() == 0


def test_a_retried_mail_has_the_id_that_it_had(mailbox: Mailbox, own_worker: Worker) -> None:
    mailbox.drops = 1  # after it has got the message
    with own_worker():
        job = enqueue_background_job(
            NOTIFY, 'zoe@example.com', 'Hello', 'order_complete', name='Zoë', order_id=7,
            job_max_retries=1, job_retry_delay=1,
        )  # fmt: skip
        status = wait_for_job(job.id, 60)
    first, second = mailbox.messages
    assert [attempt['error'] for attempt in status['attempts']] == [
        f'MailServerError: 127.0.0.1:{mailbox.port} does not answer: '
        'Connection unexpectedly closed.'
    ]
    assert status['result'] == {'message_id': second['Message-ID'], 'to': 'zoe@example.com'}
    assert first['Message-ID'] == second['Message-ID']
    assert first['Message-ID'].startswith(f'<{job.id}.')
    assert first['Message-ID'].endswith('@shop.local>')


def test_mails_of_one_job_have_ids_of_their_own() -> None:
    mails = [('a@b.example', 'Hi', 'x'), ('c@b.example', 'Hi', 'x'), ('a@b.example', 'Ho', 'x')]
    mails += [('a@b.example', 'Hi', 'y'), ('a@b.example', 'Hi', 'x')]
    ids = [
        write_message(('', 'a@b.example'), *mail, None, 'j' * 200)['Message-ID'] for mail in mails
    ]
    assert len(set(ids)) == 4
    assert ids[0] == ids[-1]


def test_another_run_under_the_same_id_is_another_mail(
    mailbox: Mailbox, own_worker: Worker
) -> None:
    with own_worker():
        for _ in range(2):
            job = enqueue_background_job(
                'workers.email_tasks.send_email', 'a@b.example', 'Hi', 'x', job_id='reminder'
            )
            assert wait_for_job(job.id, 60)['status'] == 'finished'
    first, second = mailbox.messages
    assert first['Message-ID'] != second['Message-ID']


@pytest.mark.slow
def test_a_server_that_is_slow_to_part_gets_the_mail_once(
    mailbox: Mailbox, own_worker: Worker
) -> None:
    mailbox.slow_to_part = 20.0
    with own_worker():
        job = enqueue_background_job(
            'workers.email_tasks.send_email', 'a@b.example', 'Hi', 'x',
            job_timeout=10, job_max_retries=2, job_retry_delay=1,
        )  # fmt: skip
        status = wait_for_job(job.id, 60)
    assert (status['status'], status['attempts']) == ('finished', [])
    assert len(mailbox.messages) == 1


@pytest.mark.slow
def test_a_refusal_for_good_is_not_tried_again(mailbox: Mailbox, own_worker: Worker) -> None:
    with own_worker():
        mailbox.answers['RCPT'] = '550 5.1.1 No such user'
        job = enqueue_background_job(EMAIL, 'zoe@example.com', 'Hello', 'Hi', job_max_retries=3)
        status = wait_for_job(job.id, 60)
    assert status['status'] == 'failed'
    assert status['error'] == (
        f'PermanentJobError: 127.0.0.1:{mailbox.port} answers 550 5.1.1 No such user'
    )
    assert len(status['attempts']) == 1
