"""`flask jobs schedule`: what is periodic, when it is due next, and how its last job ended."""

import importlib
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from redis import Redis

from qdjobs import JobQueue, enqueue_background_job
from qdjobs.client.call import Call
from qdjobs.config import environment_config
from qdjobs.testing import run_jobs
from tests.support.shell import refused, run

TABLE = 'tests.support.periodic_table'


@pytest.fixture(autouse=True)
def table(settings: pytest.MonkeyPatch) -> None:
    modules = 'workers.check_tasks,tests.support.periodic_apps,tests.support.tasks'
    settings.setenv('JOB_TASK_MODULES', modules)
    settings.setenv('JOB_SCHEDULE', TABLE)
    environment_config.cache_clear()


def test_it_has_the_rule_and_the_next_run_of_each_entry() -> None:
    result = run('schedule')
    header, first, second = result.stdout.splitlines()
    assert header.split() == ['NAME', 'RULE', 'NEXT', 'LAST', 'SKIPPED', 'TASK']
    assert re.fullmatch(
        r'note +every 1s +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC, in [01] s +- +0 +\S+\.note', first
    )
    assert re.fullmatch(
        r'yearly +0 0 1 1 \* UTC +\d{4}-01-01 00:00:00 UTC, in \d+ [dh] +- +0 +\S+\.add', second
    )
    assert result.stderr == 'No living worker enqueues note, yearly.\n'
    assert result.exit_code == 0


def test_it_has_the_last_job_with_its_status(connection: Redis) -> None:
    job = enqueue_background_job('tests.support.tasks.add', 1, job_id='yearly-20260101T000000Z')
    now = time.time()
    state: Any = {'job': job.id, 'tick': 1767225600, 'skipped': 3, 'served_at': now}
    connection.hset('rq:schedule:yearly', mapping=state)
    assert f'{job.id} queued' in run('schedule').stdout
    run_jobs()
    result = run('schedule', '--json')
    _, entry = json.loads(result.stdout)['schedule']
    seconds = entry.pop('seconds_until_next')
    assert 0 < seconds <= 366 * 86_400
    assert entry == {
        'name': 'yearly',
        'task': 'tests.support.tasks.add',
        'rule': '0 0 1 1 * UTC',
        'overlap': 'skip',
        'next': f'{time.gmtime(now).tm_year + 1}-01-01T00:00:00Z',
        'last_tick': '2026-01-01T00:00:00Z',
        'last_job': job.id,
        'last_status': 'finished',
        'skipped': 3,
        'served': True,
    }
    assert result.stderr == 'No living worker enqueues note.\n'


def test_a_job_that_is_gone_has_expired(connection: Redis) -> None:
    connection.hset('rq:schedule:yearly', 'job', 'yearly-20260101T000000Z')
    assert 'yearly-20260101T000000Z expired' in run('schedule').stdout


def test_what_others_write_is_shown_as_far_as_it_can_be(connection: Redis) -> None:
    connection.set('rq:schedule:note', 'no hash')
    junk: Any = {'job': '\x1b[31m', 'tick': 'x', 'skipped': '-3', 'served_at': 'nan'}
    connection.hset('rq:schedule:yearly', mapping=junk)
    result = run('schedule')
    assert result.exit_code == 0
    assert '\x1b' not in result.stdout


def test_without_anything_periodic_it_says_so(settings: pytest.MonkeyPatch) -> None:
    settings.delenv('JOB_SCHEDULE')
    environment_config.cache_clear()
    assert run('schedule').stdout == 'There is none.\n'
    assert json.loads(run('schedule', '--json').stdout) == {'schedule': []}


def test_a_wrong_schedule_is_one_line(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_SCHEDULE', 'tests.support.nowhere')
    environment_config.cache_clear()
    refused(run('schedule'), 'JOB_SCHEDULE', 'tests.support.nowhere')


def test_what_a_hook_refuses_is_said() -> None:
    queue = JobQueue()

    @queue.before_enqueue
    def refuse(call: Call) -> None:
        raise ValueError('no tenant')

    app = Flask('shop')
    queue.init_app(app)
    result = app.test_cli_runner().invoke(args=['jobs', 'schedule'])
    said = "Periodic job 'note' is not enqueued: before_enqueue has raised ValueError: no tenant"
    assert said in result.stderr.splitlines()
    assert result.exit_code == 0
    result = app.test_cli_runner().invoke(args=['jobs', 'doctor'])
    assert f'✗ {said}' in re.sub('\n +', ' ', result.output)


def test_it_imports_the_task_modules_first(settings: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings.delenv('JOB_SCHEDULE')
    settings.setenv('JOB_TASK_MODULES', 'late_tasks,late_nowhere')
    environment_config.cache_clear()
    settings.syspath_prepend(str(tmp_path))
    (tmp_path / 'late_shop.py').write_text('from qdjobs import JobQueue\nqueue = JobQueue()\n')
    (tmp_path / 'late_tasks.py').write_text(
        "from late_shop import queue\n@queue.task('late', every='1h')\ndef late() -> None: pass\n"
    )
    app = Flask('shop')
    importlib.import_module('late_shop').queue.init_app(app)
    result = app.test_cli_runner().invoke(args=['jobs', 'schedule'])
    assert result.stdout.splitlines()[1].split()[:3] == ['late', 'every', '1h']
    assert "there is no module 'late_nowhere'" in result.stderr
