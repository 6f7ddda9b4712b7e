"""The environment is read once, when first asked for, and a bad value names its variable."""

import json
import os
import subprocess
import sys
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdjobs.config import (
    QUEUES,
    VARIABLES,
    JobConfig,
    _read,
    environment_config,
    get_config,
    read_app_config,
)
from tests.support.processes import ROOT


def test_an_empty_environment_has_defaults() -> None:
    assert _read({}) == JobConfig(**DEFAULTS)


def test_an_empty_value_is_the_default() -> None:
    assert _read(dict.fromkeys(VARIABLES, '')) == _read({})


def test_every_setting_can_be_set() -> None:
    env = {
        'REDIS_URL': 'rediss://:secret@host:1/2',
        'JOB_REDIS_OPTIONS': 'ssl_cert_reqs=none',
        'JOB_WAIT_REPLICAS': '2',
        'JOB_KEY_PREFIX': 'shop:{1}',
        'JOB_QUEUES': 'fast, slow',
        'JOB_TASK_MODULES': ' workers, tests.support.tasks ,,',
        'JOB_RESULT_TTL': '1',
        'JOB_FAILURE_TTL': '2',
        'JOB_APP': 'app:create_app',
        'JOB_SCHEDULE': 'shop.schedule',
        'JOB_LEASE': '3',
        'JOB_MAX_WORKER_DEATHS': '4',
        'JOB_SHUTDOWN_GRACE': '5',
        'JOB_HORSE_MAX_JOBS': '6',
        'JOB_MAX_ARGUMENTS': '60',
        'JOB_MAX_RESULT': '7',
        'JOB_HORSE_MAX_MEMORY': '512',
        'JOB_UNKNOWN_TASK_GRACE': '9',
        'JOB_IDLE_WAIT': '0.05',
        'JOB_DUE_INTERVAL': '0.01',
        'JOB_HEARTBEAT_INTERVAL': '20',
        'JOB_TIDY_INTERVAL': '7.5',
        'JOB_HEALTH_FILE': '/run/health',
        'JOB_LOG_FORMAT': 'json',
        'JOBS_API_TOKEN': 'hidden-a',
        'METRICS_TOKEN': 'hidden-m',
        'DASHBOARD_USERNAME': 'anna',
        'DASHBOARD_PASSWORD': 'hidden-d',
    }
    assert {*env, 'RQ_REDIS_URL'} == set(VARIABLES)
    config = _read(env)
    assert {each.name: getattr(config, each.name) for each in fields(config)} == {
        'redis_url': 'rediss://:secret@host:1/2?ssl_cert_reqs=none',
        'wait_replicas': 2,
        'key_prefix': 'shop:{1}',
        'queues': ('fast', 'slow'),
        'task_modules': ('workers', 'tests.support.tasks'),
        'result_ttl': 1,
        'failure_ttl': 2,
        'max_arguments': 60,
        'max_result': 7,
        'lease': 3,
        'max_worker_deaths': 4,
        'unknown_task_grace': 9,
        'shutdown_grace': 5,
        'horse_max_jobs': 6,
        'horse_max_memory': 512,
        'idle_wait': 0.05,
        'due_interval': 0.01,
        'heartbeat_interval': 20.0,
        'tidy_interval': 7.5,
        'health_file': '/run/health',
        'log_format': 'json',
        'app': 'app:create_app',
        'schedule': 'shop.schedule',
        'api_token': 'hidden-a',
        'metrics_token': 'hidden-m',
        'dashboard_login': ('anna', 'hidden-d'),
        'variables': env,
        'own_tasks': frozenset(),  # no setting
    }
    assert 'hidden' not in repr(config)
    assert 'secret' not in repr(config)


def test_every_setting_is_documented() -> None:
    documented = (ROOT / 'docs/operations.md').read_text()
    assert [name for name in VARIABLES if f'`{name}`' not in documented] == []


def test_the_worker_command_and_we_read_the_same_url() -> None:
    both = {'REDIS_URL': 'redis://web', 'RQ_REDIS_URL': 'redis://worker'}
    assert _read(both).redis_url == 'redis://worker'


@pytest.mark.parametrize(
    'url',
    [
        'redis://h',
        'redis://h/',
        'redis://h/0',
        'redis://h:1/15?client_name=x',
        'rediss://h:1/2?ssl_cert_reqs=none',
        'unix:///s',
        'unix:///run/valkey.sock?db=2',
    ],
)
def test_redis_can_be_reached_in_three_ways(url: str) -> None:
    assert _read({'REDIS_URL': url}).redis_url == url


@pytest.mark.parametrize('value', ['1', '60', '86400', '31622400'])
@pytest.mark.parametrize('name', ['JOB_RESULT_TTL', 'JOB_FAILURE_TTL'])
def test_a_time_is_whole_seconds(name: str, value: str) -> None:
    field = name.removeprefix('JOB_').lower()
    assert getattr(_read({name: value}), field) == int(value)


DEFAULTS: dict[str, Any] = {
    'redis_url': 'redis://localhost:6379/0',
    'wait_replicas': None,
    'key_prefix': 'rq',
    'queues': ('high', 'default', 'low'),
    'task_modules': ('workers',),
    'result_ttl': 86_400,
    'failure_ttl': 7 * 86_400,
    'max_arguments': 1,
    'max_result': 10,
    'lease': 30,
    'max_worker_deaths': 3,
    'unknown_task_grace': 3600,
    'shutdown_grace': None,
    'horse_max_jobs': 1000,
    'horse_max_memory': None,
    'idle_wait': 1.0,
    'due_interval': 0.5,
    'heartbeat_interval': 10.0,
    'tidy_interval': 5.0,
    'health_file': None,
    'log_format': 'text',
    'app': None,
    'schedule': None,
    'api_token': None,
    'metrics_token': None,
    'dashboard_login': None,
    'variables': {},
}

BAD = [
    *[('JOB_KEY_PREFIX', text) for text in ('a b', 'é', '%s', 'a\n', 'a' * 101)],
    *[('JOB_QUEUES', text) for text in (',', 'a,a', 'a b', 'a:b', 'é', 'a\nb', 'a' * 101)],
    *[('REDIS_URL', url) for url in ('localhost', 'http://x', ' redis://x', '/a', 'redis:/x')],
    *[('RQ_REDIS_URL', url) for url in ('localhost', 'http://x')],
    *[('REDIS_URL', f'redis://h:{port}/0') for port in ('abc', '99999', '-1')],
    *[('REDIS_URL', f'redis://h/{database}') for database in ('x', '-1', '1/5', '0x')],
    ('REDIS_URL', 'rediss://h/x'),
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
        (f'JOB_{name}', text)
        for name in ('IDLE_WAIT', 'DUE_INTERVAL', 'HEARTBEAT_INTERVAL', 'TIDY_INTERVAL')
        for text in ('0', '0.001', '21', '-1', '1.', '.5', '1e1', 'nan', 'inf', ' 1', '²', '1' * 99)
    ],
    *[
        (name, text)
        for name in ('JOBS_API_TOKEN', 'METRICS_TOKEN')
        for text in ('two words', 'line\n', 'é')
    ],
    *[('JOB_LOG_FORMAT', text) for text in ('xml', 'JSON', ' ')],
    ('DASHBOARD_USERNAME', 'without a password'),
    ('DASHBOARD_PASSWORD', 'without a user'),
]


@pytest.mark.parametrize(('name', 'value'), BAD, ids=lambda text: text[:30])
def test_a_bad_value_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf'(^|\W){name}\W'):
        _read({name: value})


def test_a_wrong_format_names_both() -> None:
    with pytest.raises(ValueError, match="must be text or json, not 'xml'"):
        _read({'JOB_LOG_FORMAT': 'xml'})


def test_a_bad_url_does_not_tell_its_password() -> None:
    with pytest.raises(ValueError, match='REDIS_URL') as refusal:
        _read({'REDIS_URL': 'redsi://:secret@host'})
    assert 'secret' not in str(refusal.value)


@pytest.mark.slow
@given(st.text(st.characters(exclude_characters='\0', exclude_categories=['Cs']), min_size=1))
def test_any_text_is_taken_or_refused_by_name(text: str) -> None:
    for name in ('REDIS_URL', 'JOB_TASK_MODULES', 'JOB_RESULT_TTL', 'JOB_QUEUES'):
        try:
            _read({name: text})
        except ValueError as error:
            assert name in str(error)  # noqa: PT017


def test_settings_cannot_be_changed() -> None:
    for field in fields(JobConfig):
        with pytest.raises(FrozenInstanceError):
            setattr(get_config(), field.name, None)


def test_the_environment_is_read_once(settings: pytest.MonkeyPatch) -> None:
    first = get_config()
    settings.setenv('JOB_RESULT_TTL', '7')
    assert get_config() is first
    environment_config.cache_clear()
    assert get_config().result_ttl == 7


def test_a_bad_value_is_told_each_time_until_it_is_mended(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_RESULT_TTL', 'soon')
    environment_config.cache_clear()
    for _ in range(2):
        with pytest.raises(ValueError, match='JOB_RESULT_TTL'):
            get_config()
    settings.setenv('JOB_RESULT_TTL', '7')
    assert get_config().result_ttl == 7


def test_workers_serve_the_queues_in_the_order_of_the_settings() -> None:
    procfile = (ROOT / 'Procfile').read_text()
    assert ' '.join(QUEUES) in procfile


# An application's own configuration


def test_an_application_s_value_goes_before_the_environment(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_LEASE', '9')
    settings.setenv('JOB_RESULT_TTL', '8')
    config = read_app_config({'JOB_LEASE': 7, 'OTHER': object()})
    assert (config.lease, config.result_ttl) == (7, 8)


def test_an_application_s_redis_goes_before_each_of_the_environment_s(
    settings: pytest.MonkeyPatch,
) -> None:
    settings.setenv('RQ_REDIS_URL', 'redis://worker')
    assert read_app_config({'REDIS_URL': 'redis://mine'}).redis_url == 'redis://mine'


def test_none_in_an_application_is_the_default(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_LEASE', '9')
    assert read_app_config({'JOB_LEASE': None}).lease == DEFAULTS['lease']


def test_an_application_may_list_names() -> None:
    config = read_app_config(
        {'JOB_TASK_MODULES': ['shop.tasks', 'shop.mail'], 'JOB_QUEUES': ('a',)}
    )
    assert (config.task_modules, config.queues) == (('shop.tasks', 'shop.mail'), ('a',))


@pytest.mark.parametrize(
    ('key', 'says'),
    [
        ('JOB_LEESE', 'app.config has JOB_LEESE.*Did you mean JOB_LEASE'),
        ('JOBS_API_TOKENS', 'JOBS_API_TOKENS.*Did you mean JOBS_API_TOKEN'),
        ('JOB_BOARD', 'JOB_BOARD.*docs/operations.md.* your own must not begin with JOB_'),
    ],
)
def test_an_unknown_key_of_an_application_is_refused(key: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_app_config({key: '1'})


@pytest.mark.parametrize('value', [True, {}, [1], b'7', object()])
def test_a_value_of_another_kind_is_refused_by_name(value: Any) -> None:
    with pytest.raises(ValueError, match='JOB_LEASE') as refusal:
        read_app_config({'JOB_LEASE': value})
    assert repr(value) not in str(refusal.value)  # it may be a secret


@pytest.mark.parametrize(
    ('queues', 'default'), [('a,default,b', 'default'), ('a,b', 'a'), (None, 'default')]
)
def test_the_queue_of_a_job_that_names_none(queues: str | None, default: str) -> None:
    assert read_app_config({'JOB_QUEUES': queues}).default_queue == default


def test_configurations_are_equal_if_a_worker_would_do_the_same() -> None:
    web = {'JOBS_API_TOKEN': 'a', 'METRICS_TOKEN': 'b', 'JOB_APP': 'app'}
    assert read_app_config(web) == read_app_config({})
    assert read_app_config({'JOB_KEY_PREFIX': 'shop'}) != read_app_config({})


# Import. tests/support/import_watch.py sees what a module does.

PACKAGES = ('components', 'libraries', 'qdjobs', 'workers')
MODULES = [
    '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')
    for path in (
        ROOT / 'app.py',
        *(file for name in PACKAGES for file in (ROOT / name).rglob('*.py')),
    )
]

WATCH = """
import sys
opened = []
sys.addaudithook(lambda event, _: event.startswith('socket.') and opened.append(event))
"""
SENTRY = 'qdjobs.integrations.sentry'
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
        timeout=240,
    )


def import_watched(*modules: str, path: Path = ROOT) -> dict[str, list[str]]:
    """What modules do while they are imported, in a process whose every setting is bad."""
    environment = os.environ | GARBAGE | {'PYTHONPATH': f'{ROOT}:{path}'}
    done = subprocess.run(
        [sys.executable, '-B', '-m', 'tests.support.import_watch', *modules],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    acts: dict[str, list[str]] = json.loads(done.stdout)
    return acts


@pytest.mark.slow
def test_importing_any_module_acts_on_nothing() -> None:
    assert {name.partition('.')[0] for name in MODULES} == {'app', *PACKAGES}
    assert import_watched(*(name for name in MODULES if name != SENTRY)) == {}
    # What its SDK imports tries whether there is IPv6.
    assert set(import_watched(SENTRY)) == {'urllib3.util.connection'}


ACTS = {
    'environ': "import os; URL = os.environ['HOME']",
    'environb': "import os; URL = os.environb.get(b'REDIS_URL')",
    'getenv': "import os; URL = os.getenv('REDIS_URL')",
    'copy': 'import os; ENVIRONMENT = os.environ | {}',
    'default': 'import os\ndef f(url=os.getenv("X")): ...',
    'attribute': 'import os\nclass A:\n    url = os.environ.get("X")',
    'caught': 'import os\ntry: URL = os.environ["X"]\nexcept KeyError: pass',
    'folder': 'import pathlib; HERE = pathlib.Path.cwd()',
    'file': "NAMES = [line for name in ['/etc/hostname', '/etc/passwd'] for line in open(name)]",
    'written': "import os; open(os.devnull, 'w').close()",
    'made': "import os\ntry: os.mkdir('/')\nexcept OSError: pass",
    'process': "import subprocess; subprocess.run(['true'])",
    'socket': 'import socket; socket.socket().close()',
    'through': 'from qdjobs.config import get_config\ntry: get_config()\nexcept ValueError: pass',
}
NO_ACTS = {
    'function': 'import os\ndef f(): return os.environ["HOME"], open("/etc/passwd")',
    'import': 'import email, http.server, polars, acts_import.socket',
    'own': 'import pathlib; TEXT = pathlib.Path(__file__).read_text()',
    'main': "if __name__ == '__main__':\n    import socket; socket.socket()",
}


@pytest.mark.slow
def test_the_watch_sees_acts_and_nothing_else(tmp_path: Path) -> None:
    for name, source in (ACTS | NO_ACTS).items():
        folder = tmp_path / f'acts_{name}'
        folder.mkdir()
        (folder / '__init__.py').write_text(source)
    (tmp_path / 'acts_import/socket.py').write_text(ACTS['socket'])
    acts = import_watched(*(f'acts_{name}' for name in ACTS | NO_ACTS), path=tmp_path)
    assert set(acts) == {'acts_import.socket', *(f'acts_{name}' for name in ACTS)}


@pytest.mark.slow
def test_importing_the_tasks_waits_for_no_engine() -> None:
    tasks = ', '.join(name for name in MODULES if name.startswith('workers.'))
    done = run(f'import {tasks}, sys; print(*(name.partition(".")[0] for name in sys.modules))')
    loaded = set(done.stdout.split())
    assert 'workers' in loaded
    assert loaded.isdisjoint({'polars', 'PIL', 'reportlab', 'email_validator'})


@pytest.mark.slow
def test_an_application_is_made_without_a_socket() -> None:
    done = run('from app import create_app; create_app(); print(opened)')
    assert (done.returncode, done.stdout) == (0, '[]\n'), done.stderr


@pytest.mark.slow
def test_an_application_is_not_made_with_a_bad_setting() -> None:
    done = run('from app import create_app; create_app()', SMTP_URL='!')
    assert done.returncode == 1
    assert 'ValueError: SMTP_URL must' in done.stderr
