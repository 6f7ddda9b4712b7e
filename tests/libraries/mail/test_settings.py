"""SMTP_URL and MAIL_FROM: what they take, and what they refuse without showing a password."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libraries.mail.settings import SmtpUrl, read_mail_settings

BAD = [
    *[
        ('SMTP_URL', url)
        for url in (
            'mail.example',
            'http://mail.example',
            'smtp://',
            'smtp://:25',
            'smtp://h:0',
            'smtp://h:99999',
            'smtp://h:abc',
            'smtp://h/path',
            'smtp://h?tls=no',
            'smtp://h#x',
            'smtp://a b',
            'smtp://h\n',
            'smtp://a..b',
            'smtp://bücher.example',
            'smtp://[::1',
            f'smtp://{"h" * 64}',
            'smtps://user@h',
            'smtps://:hidden@h',
            'smtps://user:hid den@h',
            'smtps://user:hid%20den@h',
            'smtps://user:hid%00den@h',
            'smtps://user:hid%C3%A9den@h',
            'smtps://user:hid%ffden@h',
            'smtps://user:hid/den@h',
            'smtp://user:hidden@mail.example',
            'smtp://user:hidden@10.0.0.1',
            'smtp://user:hidden@localhost.example',
        )
    ],
    *[
        ('MAIL_FROM', sender)
        for sender in (
            'nobody',
            'a@b.example, c@d.example',
            'A <a@b.example',
            'A <a@b.example> B',
            'A\r\nBcc: b <a@b.example>',
            'A <a@b.example\n>',
            'é@b.example',
        )
    ],
]


def test_without_settings_no_mail_can_be_sent() -> None:
    settings = read_mail_settings({})
    assert settings.smtp_url is None
    assert settings.sender == ('', 'noreply@localhost')


@pytest.mark.parametrize(('name', 'value'), BAD, ids=lambda text: text[:30])
def test_a_bad_value_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf'(^|\W){name}\W'):
        read_mail_settings({name: value})


@given(st.text(st.characters(exclude_characters='\0', exclude_categories=['Cs']), min_size=1))
def test_any_text_is_accepted_or_refused_by_name(text: str) -> None:
    for name in ('SMTP_URL', 'MAIL_FROM'):
        try:
            read_mail_settings({name: text})
        except ValueError as error:
            assert name in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ('url', 'parsed'),
    [
        ('smtp://mail.example', SmtpUrl('smtp', 'mail.example', 25)),
        ('smtp://mail.example:2525/', SmtpUrl('smtp', 'mail.example', 2525)),
        ('SMTPS://Mail.example', SmtpUrl('smtps', 'mail.example', 465)),
        ('smtp+starttls://smtp_relay', SmtpUrl('smtp+starttls', 'smtp_relay', 587)),
        ('smtps://a%40b:p%3A%2F%25@h', SmtpUrl('smtps', 'h', 465, ('a@b', 'p:/%'))),
        ('smtp://a:p@[::1]', SmtpUrl('smtp', '::1', 25, ('a', 'p'))),
        ('smtp://a:p@127.0.0.2', SmtpUrl('smtp', '127.0.0.2', 25, ('a', 'p'))),
        ('smtp://a:p@localhost', SmtpUrl('smtp', 'localhost', 25, ('a', 'p'))),
    ],
)
def test_a_mail_server_is_named_by_a_url(url: str, parsed: SmtpUrl) -> None:
    assert read_mail_settings({'SMTP_URL': url}).smtp_url == parsed


def test_a_mail_server_is_shown_without_its_login() -> None:
    assert str(SmtpUrl('smtps', 'h', 465, ('a', 'hidden'))) == 'h:465'
    assert str(SmtpUrl('smtp', '::1', 25)) == '[::1]:25'


@pytest.mark.parametrize(
    ('text', 'sender'),
    [
        ('a@b.example', ('', 'a@b.example')),
        ('<a@localhost>', ('', 'a@localhost')),
        ('"Plotter, Inc." <a@b.example>', ('Plotter, Inc.', 'a@b.example')),
        ('Zoë’s <a@bücher.example>', ('Zoë’s', 'a@xn--bcher-kva.example')),
    ],
)
def test_a_sender_may_have_a_name(text: str, sender: tuple[str, str]) -> None:
    assert read_mail_settings({'MAIL_FROM': text}).sender == sender


@pytest.mark.parametrize('url', [value for name, value in BAD if name == 'SMTP_URL'])
def test_a_bad_mail_server_does_not_tell_its_password(url: str) -> None:
    with pytest.raises(ValueError, match='SMTP_URL') as refusal:
        read_mail_settings({'SMTP_URL': url})
    assert 'hid' not in str(refusal.value)
    assert refusal.value.__cause__ is None
