"""What a worker logs, in whose format, and that nothing of it is lost."""

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdjobs import cancel_job, enqueue_background_job
from qdjobs.config import environment_config
from qdjobs.worker.logs import JsonFormatter
from tests.support.processes import ROOT, Worker, eventually

RQ = Path(sys.executable).with_name('rq')
TASKS = 'tests.support.log_tasks'
APPS = 'tests.support.log_apps'
STARTED = 'Job speak started: tests.support.log_tasks.speak()'
SPOKEN = ['the task speaks', 'the library speaks', 'the thread speaks']
RAISED = 'exception raised while executing'


@pytest.fixture(autouse=True)
def log_tasks(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_TASK_MODULES', TASKS)
    environment_config.cache_clear()


def enqueue(*names: str, **options: Any) -> None:
    """Enqueue tasks of `log_tasks`, each under its own name as its id."""
    for name in names:
        enqueue_background_job(f'{TASKS}.{name}', job_id=name, **options)


def run_worker(
    *options: str, app: str | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """The documented command, until no job is left, or it has run so many."""
    if app is not None:
        env['JOB_APP'] = f'{APPS}:{app}'
    end = () if '--max-jobs' in options else ('--burst',)
    return subprocess.run(
        [RQ, 'worker', '--worker-class', 'qdjobs.JobWorker', *end, *options, 'default'],
        cwd=ROOT,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=240,
    )


def log_of(*options: str, app: str | None = None, **env: str) -> list[str]:
    """The lines that a worker logs."""
    done = run_worker(*options, app=app, **env)
    assert (done.returncode, done.stdout) == (0, ''), done
    assert '--- Logging error ---' not in done.stderr
    return done.stderr.splitlines()


def objects(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


def messages(log: list[dict[str, Any]], job_id: str) -> list[str]:
    return [each['message'] for each in log if each['job_id'] == job_id]


def require_life_of_jobs(log: list[dict[str, Any]]) -> None:
    """The records of `speak` and of `fail` are there, once, and each knows its job."""
    *said, ended = messages(log, 'speak')
    assert said == [STARTED, *SPOKEN]
    assert re.fullmatch(r'Job speak finished in \d+\.\d{3} s', ended)
    started, spoken, raised, ended = messages(log, 'fail')
    assert started == 'Job fail started: tests.support.log_tasks.fail()'
    assert spoken == 'the task speaks'
    assert RAISED in raised
    assert raised.rstrip().endswith('ValueError: it failed')
    assert re.fullmatch(r'Job fail failed in \d+\.\d{3} s: ValueError: it failed', ended)
    for each in log:
        if each['job_id']:
            about = f'{TASKS}.{each["job_id"]}', 1, 'default'
            assert (each['task'], each['attempt'], each['queue']) == about


# -- nobody configures logging ---------------------------------------------------------------------


def test_by_default_info_of_everybody_is_shown_once_with_the_job() -> None:
    enqueue('speak', 'fail')
    lines = log_of()
    in_job = r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (INFO|ERROR) ([\w.]+) \[speak\]: (.*)'
    found = [match.groups() for line in lines if (match := re.fullmatch(in_job, line))]
    assert [message for _, _, message in found[:-1]] == [STARTED, *SPOKEN]
    assert {name for _, name, _ in found} == {'qdjobs.worker.runner', TASKS, 'log_library'}
    assert re.fullmatch(r'Job speak finished in \d+\.\d{3} s', found[-1][2])
    text = '\n'.join(lines)
    assert text.count('[speak]') == 5
    assert text.count('ERROR rq.worker [fail]: ') == 1
    assert text.count('\nValueError: it failed') == 1
    assert re.search(r'Job fail failed in \d+\.\d{3} s: ValueError: it failed', text)
    assert len(re.findall(r' INFO rq\.worker: Worker \w+: started with PID', text)) == 1
    for repeated in ('Job OK', 'is kept', 'DEBUG'):
        assert repeated not in text


@pytest.mark.slow
def test_a_line_says_that_a_job_is_tried_again() -> None:
    enqueue('fail', job_max_retries=1, job_retry_delay=0.1)
    lines = log_of('--max-jobs', '2')
    (again,) = [line for line in lines if 'is tried again' in line]
    expected = r'failed in \d+\.\d{3} s, is tried again after 0\.\d s: ValueError: it failed'
    assert re.search(expected, again)
    assert len([line for line in lines if 'Job fail started' in line]) == 2


@pytest.mark.slow
def test_the_options_of_rq_go_before_the_defaults() -> None:
    enqueue('speak', 'fail')
    quiet = log_of('--quiet')
    assert RAISED in quiet[0]
    assert quiet[-2:] == ['ValueError: it failed', '']
    assert 'the task speaks' not in '\n'.join(quiet)
    enqueue('speak')
    assert [line for line in log_of('--verbose') if 'the task whispers' in line]
    enqueue('speak')
    own = '%(asctime)s|%(job_id)s|%(task)s|%(message)s'
    lines = log_of('--log-format', own, '--date-format', 'then', JOB_LOG_FORMAT='json')
    assert f'then|speak|{TASKS}.speak|the task speaks' in lines
    assert [line for line in lines if line.startswith('then|None|None|Worker ')]


@pytest.mark.slow
def test_an_unknown_level_is_one_line() -> None:
    done = run_worker('--logging_level', 'loud')
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "INFO, DEBUG, NOTSET, not 'loud'" in line


# -- JSON ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_as_json_each_line_is_an_object_with_all_fields() -> None:
    enqueue('speak', 'fail', 'speak_with_fields')
    log = objects(log_of(JOB_LOG_FORMAT='json'))
    require_life_of_jobs([each for each in log if each['job_id'] in ('speak', 'fail')])
    for each in log:
        assert re.fullmatch(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00', each['time'])
    assert any(each['logger'] == 'rq.worker' and each['job_id'] is None for each in log)
    events = [each for each in log if 'event' in each and each['job_id'] != 'speak_with_fields']
    assert [(each['job_id'], each['event'], each.get('outcome')) for each in events] == [
        ('speak', 'job_started', None),
        ('speak', 'job_ended', 'finished'),
        ('fail', 'job_started', None),
        ('fail', 'job_ended', 'failed'),
    ]
    assert all(0 < each['duration'] < 600 for each in events if each['event'] == 'job_ended')
    (own,) = [each for each in log if each['job_id'] == 'mine']
    assert (own['task'], own['colour'], own['queue']) == ('a task of my own', 'red', 'default')
    assert (own['level'], own['level_']) == ('INFO', 7)
    assert own['unusual']


@pytest.mark.slow
def test_as_json_a_hidden_description_hides_the_arguments_of_a_failed_job() -> None:
    enqueue('fail', password='hunter2')
    lines = log_of('--disable-job-desc-logging', JOB_LOG_FORMAT='json')
    assert 'hunter2' not in '\n'.join(lines)
    assert [each['message'] for each in objects(lines)].count('Job fail started') == 1


@pytest.mark.slow
def test_as_json_the_line_about_a_dead_horse_has_the_fields_of_its_job() -> None:
    enqueue('print_and_die')
    done = run_worker(JOB_LOG_FORMAT='json')
    log = objects([line for line in done.stderr.splitlines() if line != 'complaint'])
    (end,) = [each for each in log if each.get('event') == 'job_ended']
    assert (end['level'], end['outcome']) == ('ERROR', 'failed')
    about = 'print_and_die', f'{TASKS}.print_and_die', 1, 'default'
    assert (end['job_id'], end['task'], end['attempt'], end['queue']) == about


@pytest.mark.slow
def test_as_json_a_stop_is_an_end_too(own_worker: Worker, tmp_path: Path) -> None:
    log = tmp_path / 'worker.log'
    with own_worker(JOB_LOG_FORMAT='json'):
        enqueue('sleep')
        eventually(lambda: 'the task sleeps' in log.read_text())
        cancel_job('sleep')
        eventually(lambda: 'job_ended' in log.read_text())
    (end,) = [each for each in objects(log.read_text().splitlines()) if 'outcome' in each]
    assert (end['job_id'], end['task'], end['outcome']) == ('sleep', f'{TASKS}.sleep', 'stopped')


@pytest.mark.slow
@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
    )
)
def test_any_value_of_a_field_gives_one_line_of_json(value: Any) -> None:
    record = logging.makeLogRecord({'msg': 'said', 'field': value})
    line = JsonFormatter().format(record)
    assert '\n' not in line
    assert json.loads(line)['message'] == 'said'
    assert 'field' in json.loads(line)


def test_a_traceback_is_a_field() -> None:
    try:
        raise ValueError('it failed')
    except ValueError:
        record = logging.LogRecord('a', logging.ERROR, '', 0, 'said', None, sys.exc_info())
    line = json.loads(JsonFormatter().format(record))
    assert line['exception'].startswith('Traceback (most recent call last):\n')
    assert line['exception'].endswith('ValueError: it failed')


# -- the application configures logging ------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize('app', ['create_disabling', 'create_keeping'])
def test_the_dict_config_of_an_application_rules_its_horse(app: str) -> None:
    enqueue('speak', 'fail', 'speak_for_the_application')
    lines = log_of(app=app, JOB_LOG_FORMAT='json')
    horse = [each for each in objects(lines) if each.get('by') == 'application']
    parent = [each for each in objects(lines) if 'by' not in each]
    require_life_of_jobs([each for each in horse if each['job_id'] != 'speak_for_the_application'])
    assert messages(horse, 'speak_for_the_application')[1:3] == [
        'the application speaks',
        'the task speaks',
    ]
    assert {each['job_id'] for each in parent} == {None}
    assert {each['logger'] for each in parent} == {'rq.worker'}


@pytest.mark.slow
@pytest.mark.parametrize('app', ['create_for_warnings', 'create_without_level'])
def test_the_level_of_an_application_rules(app: str) -> None:
    enqueue('speak', 'fail')
    lines = [line for line in log_of(app=app) if line.startswith('{')]
    (raised,) = [each for each in objects(lines) if each['job_id']]
    assert (raised['levelname'], raised['name']) == ('ERROR', 'rq.worker')


@pytest.mark.slow
def test_the_basic_config_of_an_application_rules() -> None:
    enqueue('speak')
    lines = log_of(app='create_basic')
    assert f'basic {TASKS} {TASKS}.speak the task speaks' in lines
    assert f'basic qdjobs.worker.runner {TASKS}.speak {STARTED}' in lines
    assert 'basic log_app None the application is made' in lines
    assert not [line for line in lines if '[speak]' in line]


@pytest.mark.slow
@pytest.mark.parametrize('app', ['create_bare', 'create_careless'])
def test_what_flask_or_python_adds_of_itself_is_no_configuration(app: str) -> None:
    enqueue('speak_for_the_application')
    log = objects([line for line in log_of(app=app, JOB_LOG_FORMAT='json') if line[0] == '{'])
    assert messages(log, 'speak_for_the_application')[1:3] == [
        'the application speaks',
        'the task speaks',
    ]


@pytest.mark.slow
def test_what_is_logged_while_the_application_is_made_is_json_too() -> None:
    log = objects(log_of(app='create_bare', JOB_LOG_FORMAT='json'))
    said = [each['message'] for each in log[:2]]
    assert said == ['the set-up speaks', 'the application is made']


@pytest.mark.slow
def test_a_logger_with_a_handler_of_its_own_is_not_written_twice() -> None:
    enqueue('speak_for_the_application')
    lines = log_of(app='create_for_own_logger')
    (spoken,) = [line for line in lines if 'the application speaks' in line]
    assert json.loads(spoken)['job_id'] == 'speak_for_the_application'
    (other,) = [line for line in lines if line.endswith(': the task speaks')]
    assert f' INFO {TASKS} [speak_for_the_application]: ' in other


@pytest.mark.slow
def test_a_field_that_the_application_gives_its_records_stays() -> None:
    enqueue('speak')
    log = objects(log_of(app='create_with_factory', JOB_LOG_FORMAT='json'))
    tasks = {each['task'] for each in log if each['job_id'] == 'speak'}
    assert tasks == {'known better'}


@pytest.mark.slow
def test_the_configuration_of_the_command_rules_the_parent_and_a_horse_without_one() -> None:
    enqueue('speak', 'fail')
    lines = log_of('-c', 'tests.support.log_settings')
    assert [
        line for line in lines if re.match(r'settings rq\.worker None Worker \w+: started', line)
    ]
    assert f'settings {TASKS} speak the task speaks' in lines
    assert f'settings qdjobs.worker.runner speak {STARTED}' in lines
    assert len([line for line in lines if RAISED in line]) == 1
    enqueue('speak')
    lines = log_of('-c', 'tests.support.log_settings', app='create_disabling')
    assert [line for line in lines if re.match(r'settings rq\.worker None Worker \w+: done', line)]
    horse = objects([line for line in lines if line.startswith('{')])
    assert messages(horse, 'speak')[:4] == [STARTED, *SPOKEN]


# -- what is no record -----------------------------------------------------------------------------


@pytest.mark.slow
def test_what_a_task_and_its_programs_print_survives_their_process() -> None:
    enqueue('print_and_die')
    done = run_worker(PYTHONUNBUFFERED='')  # which would hide the loss
    assert done.stdout == 'printed\nfrom a program\n'
    assert 'complaint' in done.stderr.splitlines()
    assert 'HorseDied: the work horse was killed by SIGKILL' in done.stderr
