"""The environment is read once, when first asked for, and a bad value names its variable."""

import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st

from libraries.mail.server import SmtpUrl
from qdjobs.config import QUEUES, Settings, _read, get_settings
from tests.conftest import ROOT

# A slow machine is no failure.
unhurried = hypothesis(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_an_empty_environment_has_defaults() -> None:
    assert _read({}) == Settings(
        redis_url='redis://localhost:6379/0',
        task_modules=('workers',),
        upload_dir=Path('uploads').absolute(),
        output_dir=Path('output').absolute(),
        result_ttl=86_400,
        failure_ttl=7 * 86_400,
        app=None,
        lease=30,
        max_worker_deaths=3,
        shutdown_grace=None,
        horse_max_jobs=1000,
        webhook_hosts=(),
        smtp_url=None,
        mail_from=('', 'noreply@localhost'),
        api_token=None,
        metrics_token=None,
        dashboard_login=None,
    )


def test_an_empty_value_is_the_default() -> None:
    names = ['REDIS_URL', 'RQ_REDIS_URL', 'JOB_TASK_MODULES', 'UPLOAD_DIR', 'OUTPUT_DIR']
    ttls = ['JOB_RESULT_TTL', 'JOB_FAILURE_TTL']
    assert _read(dict.fromkeys(names + ttls, '')) == _read({})


def test_every_setting_can_be_set() -> None:
    settings = _read(
        {
            'REDIS_URL': 'rediss://:secret@host:1/2',
            'JOB_TASK_MODULES': ' workers, tests.support.tasks ,,',
            'UPLOAD_DIR': '/srv/in/../up',
            'OUTPUT_DIR': '/srv/out/',
            'JOB_RESULT_TTL': '1',
            'JOB_FAILURE_TTL': '2',
            'JOB_APP': 'app:create_app',
            'JOB_LEASE': '3',
            'JOB_MAX_WORKER_DEATHS': '4',
            'JOB_SHUTDOWN_GRACE': '5',
            'JOB_HORSE_MAX_JOBS': '6',
            'JOB_WEBHOOK_HOSTS': 'a.example, b.example',
            'SMTP_URL': 'smtps://user:hidden@mail.example',
            'MAIL_FROM': 'Plotter <plotter@example.com>',
            'JOBS_API_TOKEN': 'hidden-a',
            'METRICS_TOKEN': 'hidden-m',
            'DASHBOARD_USERNAME': 'anna',
            'DASHBOARD_PASSWORD': 'hidden-d',
        }
    )
    assert settings == Settings(
        redis_url='rediss://:secret@host:1/2',
        task_modules=('workers', 'tests.support.tasks'),
        upload_dir=Path('/srv/up'),
        output_dir=Path('/srv/out'),
        result_ttl=1,
        failure_ttl=2,
        app='app:create_app',
        lease=3,
        max_worker_deaths=4,
        shutdown_grace=5,
        horse_max_jobs=6,
        webhook_hosts=('a.example', 'b.example'),
        smtp_url=SmtpUrl('smtps', 'mail.example', 465, ('user', 'hidden')),
        mail_from=('Plotter', 'plotter@example.com'),
        api_token='hidden-a',
        metrics_token='hidden-m',
        dashboard_login=('anna', 'hidden-d'),
    )
    assert 'hidden' not in repr(settings)
    assert 'secret' not in repr(settings)


def test_the_worker_command_and_we_read_the_same_url() -> None:
    both = {'REDIS_URL': 'redis://web', 'RQ_REDIS_URL': 'redis://worker'}
    assert _read(both).redis_url == 'redis://worker'


@pytest.mark.parametrize('url', ['redis://h', 'rediss://h:1/2?ssl_cert_reqs=none', 'unix:///s'])
def test_redis_can_be_reached_in_three_ways(url: str) -> None:
    assert _read({'REDIS_URL': url}).redis_url == url


@pytest.mark.parametrize('value', ['1', '60', '86400', '31622400'])
@pytest.mark.parametrize('name', ['JOB_RESULT_TTL', 'JOB_FAILURE_TTL'])
def test_a_time_is_whole_seconds(name: str, value: str) -> None:
    field = name.removeprefix('JOB_').lower()
    assert getattr(_read({name: value}), field) == int(value)


BAD = [
    *[('REDIS_URL', url) for url in ('localhost', 'http://x', ' redis://x', '/a', 'redis:/x')],
    *[('RQ_REDIS_URL', url) for url in ('localhost', 'http://x')],
    *[('REDIS_URL', f'redis://h:{port}/0') for port in ('abc', '99999', '-1')],
    ('REDIS_URL', 'redis://[::1'),
    ('REDIS_URL', 'redis://h?socket_timeout=soon'),
    *[('JOB_TASK_MODULES', text) for text in ('a b', 'a/b', 'a.', '.a', 'a..b', 'a-b', '*', '1')],
    ('JOB_TASK_MODULES', ','),
    ('JOB_TASK_MODULES', ' '),
    *[
        (name, text)
        for name in ('JOB_RESULT_TTL', 'JOB_FAILURE_TTL')
        for text in ('0', '-1', '1.5', '1d', 'nan', 'inf', ' ', 'None', '1_0', '²')
    ],
    *[
        (name, text)
        for name in ('JOB_RESULT_TTL', 'JOB_FAILURE_TTL')
        for text in ('99999999999', '9' * 30, '9' * 5000)
    ],
    *[
        (name, text)
        for name in ('JOBS_API_TOKEN', 'METRICS_TOKEN')
        for text in ('two words', 'line\n', 'é')
    ],
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
    ('DASHBOARD_USERNAME', 'without a password'),
    ('DASHBOARD_PASSWORD', 'without a user'),
]


@pytest.mark.parametrize(('name', 'value'), BAD, ids=lambda text: text[:30])
def test_a_bad_value_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf'(^|\W){name}\W'):
        _read({name: value})


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
    assert _read({'SMTP_URL': url}).smtp_url == parsed


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
    assert _read({'MAIL_FROM': text}).mail_from == sender


@pytest.mark.parametrize('url', [value for name, value in BAD if name == 'SMTP_URL'])
def test_a_bad_mail_server_does_not_tell_its_password(url: str) -> None:
    with pytest.raises(ValueError, match='SMTP_URL') as refusal:
        _read({'SMTP_URL': url})
    assert 'hid' not in str(refusal.value)
    assert refusal.value.__cause__ is None


def test_a_bad_url_does_not_tell_its_password() -> None:
    with pytest.raises(ValueError, match='REDIS_URL') as refusal:
        _read({'REDIS_URL': 'redsi://:secret@host'})
    assert 'secret' not in str(refusal.value)


@unhurried
@given(st.text(st.characters(exclude_characters='\0', exclude_categories=['Cs']), min_size=1))
def test_any_text_is_taken_or_refused_by_name(text: str) -> None:
    for name in ('REDIS_URL', 'JOB_TASK_MODULES', 'JOB_RESULT_TTL', 'SMTP_URL', 'MAIL_FROM'):
        try:
            _read({name: text})
        except ValueError as error:
            assert name in str(error)  # noqa: PT017


def test_settings_cannot_be_changed() -> None:
    for field in fields(Settings):
        with pytest.raises(FrozenInstanceError):
            setattr(get_settings(), field.name, None)


def test_the_environment_is_read_once(settings: pytest.MonkeyPatch) -> None:
    first = get_settings()
    settings.setenv('JOB_RESULT_TTL', '7')
    assert get_settings() is first
    get_settings.cache_clear()
    assert get_settings().result_ttl == 7


def test_a_bad_value_is_told_each_time_until_it_is_mended(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_RESULT_TTL', 'soon')
    get_settings.cache_clear()
    for _ in range(2):
        with pytest.raises(ValueError, match='JOB_RESULT_TTL'):
            get_settings()
    settings.setenv('JOB_RESULT_TTL', '7')
    assert get_settings().result_ttl == 7


def test_workers_serve_the_queues_in_the_order_of_the_settings() -> None:
    procfile = (ROOT / 'Procfile').read_text()
    assert ' '.join(QUEUES) in procfile


# Import. An audit hook sees every socket, whoever opens it.

WATCH = """
import sys
opened = []
sys.addaudithook(lambda event, _: event.startswith('socket.') and opened.append(event))
"""
GARBAGE = {
    'REDIS_URL': 'garbage',
    'RQ_REDIS_URL': 'garbage',
    'JOB_TASK_MODULES': '!',
    'JOB_RESULT_TTL': 'x',
    'JOB_FAILURE_TTL': 'x',
    'SMTP_URL': 'x',
    'MAIL_FROM': 'x',
}


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, '-c', WATCH + code],
        cwd=ROOT,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    'module',
    [
        'libraries.job_manager',
        'libraries.files',
        'workers.email_tasks',
        'app',
        'components.artboard.main',
    ],
)
def test_importing_reads_no_setting_and_opens_no_socket(module: str) -> None:
    done = run(f'import {module}; print(opened)', **GARBAGE)
    assert (done.returncode, done.stdout) == (0, '[]\n'), done.stderr


def test_the_watch_sees_a_socket() -> None:
    done = run('import socket; socket.socket().close(); print(opened)')
    assert 'socket.__new__' in done.stdout


def test_an_application_is_made_without_a_socket() -> None:
    done = run('from app import create_app; create_app(); print(opened)')
    assert (done.returncode, done.stdout) == (0, '[]\n'), done.stderr


@pytest.mark.parametrize('name', ['REDIS_URL', 'JOB_TASK_MODULES', 'JOB_RESULT_TTL', 'SMTP_URL'])
def test_an_application_is_not_made_with_a_bad_setting(name: str) -> None:
    done = run('from app import create_app; create_app()', **{name: '!'})
    assert done.returncode == 1
    assert f'ValueError: {name} must' in done.stderr
