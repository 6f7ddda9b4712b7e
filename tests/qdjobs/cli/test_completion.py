"""What a shell offers after Tab, by the protocol of click in a real process and its own class."""

import os
import subprocess
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from flask.cli import FlaskGroup

from app import create_app
from libraries.job_manager import enqueue_background_job, enqueue_background_jobs
from qdjobs.config import environment_config
from qdjobs.server import free_port
from tests.support.applications import shared_app, use_redis
from tests.support.modules import use_modules
from tests.support.processes import ROOT
from tests.support.shell import FLASK

ADD = 'tests.support.tasks.add'


def offered(*words: str, incomplete: str = '') -> list[str]:
    """What is offered for a word after `flask jobs` and these."""
    cli = FlaskGroup(create_app=lambda: shared_app(create_app))
    complete = ShellComplete(cli, {}, 'flask', '_FLASK_COMPLETE')
    return [str(item.value) for item in complete.get_completions(['jobs', *words], incomplete)]


@pytest.mark.parametrize(
    'shell', ['bash', *(pytest.param(name, marks=pytest.mark.slow) for name in ('zsh', 'fish'))]
)
def test_a_shell_completes_the_id_of_a_job(shell: str) -> None:
    enqueue_background_job(ADD, 1, job_id='order-7')
    script = subprocess.run(
        [FLASK],
        env=os.environ | {'_FLASK_COMPLETE': f'{shell}_source'},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert f'_FLASK_COMPLETE={shell}_complete' in script.stdout
    current = 'order' if shell == 'fish' else '3'
    words = {'COMP_WORDS': 'flask jobs show order', 'COMP_CWORD': current}
    done = subprocess.run(
        [FLASK],
        cwd=ROOT,
        env=os.environ | words | {'_FLASK_COMPLETE': f'{shell}_complete'},
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert 'order-7' in done.stdout
    assert done.stderr == ''


def test_ids_are_offered_newest_first_and_once() -> None:
    enqueue_background_jobs(ADD, [{'a': 1}] * 3, job_id='many')
    enqueue_background_job(ADD, 1, job_id='other')
    for command in ('show', 'status', 'wait', 'cancel', 'retry', 'delete'):
        assert offered(command, incomplete='many') == ['many-2', 'many-1', 'many-0'], command
    assert offered('cancel', 'many-1', incomplete='many') == ['many-2', 'many-0']


def test_tasks_queues_statuses_and_commands_are_offered() -> None:
    assert offered('enqueue', incomplete='workers.report') == [
        'workers.report_tasks.generate_pdf',
        'workers.report_tasks.generate_report',
    ]
    assert offered('enqueue', incomplete='generate_p') == [
        'generate_pdf', 'generate_postcard_svg',
    ]  # fmt: skip
    assert offered('enqueue', incomplete='app_n') == ['app_name']  # only one path ends so
    assert offered('list', '--task', incomplete='app_n') == ['app_name']
    assert offered('list', '--task', incomplete='tests.support.tasks.ap') == [
        'tests.support.tasks.app_name',
        'tests.support.tasks.append',
    ]
    assert offered('list', '--queue') == ['high', 'default', 'low']
    assert offered('list', '--status', incomplete='f') == ['failed', 'finished']
    assert offered(incomplete='res') == ['resume']


def test_where_redis_is_away_nothing_is_offered(settings: pytest.MonkeyPatch) -> None:
    use_redis(settings, f'redis://127.0.0.1:{free_port()}/0', shared_app(create_app))
    assert offered('show') == []
    assert offered('list', '--queue', incomplete='l') == ['low']


def test_a_task_module_that_fails_or_prints_takes_no_part(
    settings: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    use_modules(settings, tmp_path, a='print("hello")\ndef heal(): ...', b='1 / 0')
    assert offered('enqueue', incomplete='clinic') == ['clinic.a.heal']
    assert capsys.readouterr().out == ''
    assert environment_config().task_modules == ('clinic',)
