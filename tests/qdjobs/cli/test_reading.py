"""`flask jobs list`, `show`, `tasks`, `workers`, and the JSON of every command that reads."""

import json
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue

from libraries.job_manager import (
    enqueue_background_job,
    enqueue_background_jobs,
    get_job_status,
    wait_for_job,
)
from qdjobs.cli.text import describe_fully
from qdjobs.client import ages
from qdjobs.client.details import Details
from qdjobs.config import environment_config
from tests.support.jobs import PATIENCE
from tests.support.modules import use_modules
from tests.support.processes import eventually
from tests.support.shared_worker import SharedWorker
from tests.support.shell import flask, run
from tests.support.tasks import add

ADD, FAIL = 'tests.support.tasks.add', 'tests.support.tasks.fail'


@pytest.fixture(autouse=True)
def tasks(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_TASK_MODULES', 'workers,tests.support.tasks,tests.support.worker_tasks')
    environment_config.cache_clear()


def shown(*arguments: str) -> Any:
    """The JSON document that a command prints, with nothing on stderr."""
    result = run(*arguments, '--json')
    assert result.stderr == ''
    return json.loads(result.stdout)


# list


@pytest.mark.slow
def test_the_hint_for_the_next_page_is_a_command_that_shows_it() -> None:
    enqueue_background_jobs(ADD, [{'a': 1}] * 5, job_id='a', job_queue='low')
    first = run('list', '--limit', '2', '--queue', 'low', '--task', 'add', '--oldest')
    assert [line.split()[0] for line in first.stdout.splitlines()[1:]] == ['a-0', 'a-1']
    hint = first.stderr.removeprefix('For more: flask jobs ')
    following = run(*shlex.split(hint))
    assert [line.split()[0] for line in following.stdout.splitlines()[1:]] == ['a-2', 'a-3']
    pasted = flask(*shlex.split(following.stderr.removeprefix('For more: flask jobs ')))
    assert [line.split()[0] for line in pasted.stdout.splitlines()[1:]] == ['a-4']
    assert pasted.stderr == ''


def test_as_json_a_page_names_the_next() -> None:
    enqueue_background_jobs(ADD, [{'a': 1}] * 3, job_id='a')
    page = shown('list', '--limit', '2')
    assert [job['id'] for job in page['jobs']] == ['a-2', 'a-1']
    last = shown('list', '--limit', '2', '--cursor', page['next'])
    assert ([job['id'] for job in last['jobs']], last['next']) == (['a-0'], None)


def test_what_was_not_looked_at_is_said(settings: pytest.MonkeyPatch) -> None:
    settings.setattr(ages, 'MAX_SCANNED', 2)
    enqueue_background_jobs(ADD, [{'a': 1}] * 5, job_id='a')
    result = run('list')
    assert [line.split()[0] for line in result.stdout.splitlines()[1:]] == ['a-4', 'a-3']
    assert '3 more jobs were not looked at' in result.stderr


def test_a_task_that_the_code_does_not_have_can_be_listed_by_its_path(connection: Redis) -> None:
    Queue('low', connection=connection).enqueue('workers.gone.task', job_id='old')
    connection.hset('rq:job:old', 'task', 'workers.gone.task')
    assert [job['id'] for job in shown('list', '--task', 'workers.gone.task')['jobs']] == ['old']
    result = run('list', '--task', 'genrate_pdf')
    assert result.exit_code == 1
    assert 'did you mean workers.report_tasks.generate_pdf?' in result.stderr


# show


def test_a_job_is_shown_with_its_arguments_and_the_traceback_of_each_attempt(
    shared_worker: SharedWorker,
) -> None:
    options: dict[str, Any] = {'job_max_retries': 1, 'job_retry_delay': 0}
    job_id = enqueue_background_job(FAIL, 'too wide', **options).id
    wait_for_job(job_id, PATIENCE)
    text = run('show', job_id).stdout
    assert text.count('Traceback (most recent call last):') == 2
    assert text.count('\n  ValueError: too wide\n') == 2
    assert 'argument  "too wide"\n' in text
    assert 'in fail' in text
    document = shown('show', job_id)
    assert document.keys() >= get_job_status(job_id).keys()
    assert (document['args'], document['kwargs'], document['unreadable']) == (
        ['too wide'],
        {},
        None,
    )
    for attempt in document['attempts']:
        assert attempt.keys() == {'at', 'worker', 'error', 'traceback'}
        assert attempt['traceback'].rstrip().endswith('ValueError: too wide')


def test_keyword_arguments_and_the_result_are_shown(shared_worker: SharedWorker) -> None:
    job_id = enqueue_background_job(ADD, a=40, b=2).id
    wait_for_job(job_id, PATIENCE)
    lines = run('show', job_id).stdout.splitlines()
    assert {'argument  a=40', 'argument  b=2', 'result    42'} <= set(lines)
    assert shown('show', job_id)['kwargs'] == {'a': 40, 'b': 2}


def test_a_deferred_job_is_shown_with_what_it_waits_for() -> None:
    first = enqueue_background_job(ADD, 1, job_id='first')
    second = enqueue_background_job(ADD, 1, job_after=first)
    assert 'waits for' not in run('status', first.id).stdout
    for command in ('status', 'show'):
        assert 'waits for first\n' in run(command, second.id).stdout
    assert shown('list', '--status', 'deferred')['jobs'][0]['waits_for'] == ['first']


def test_a_delayed_job_is_shown_with_when_it_is_due() -> None:
    moment = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    later, now = enqueue_background_job(ADD, 1, job_at=moment), enqueue_background_job(ADD, 1)
    assert f'due       {moment:%Y-%m-%d %H:%M:%S}Z' in run('show', later.id).stdout.splitlines()
    assert shown('show', later.id)['due_at'] == f'{moment:%Y-%m-%dT%H:%M:%S}Z'
    assert 'due' not in run('show', now.id).stdout
    assert shown('show', now.id)['due_at'] is None


def test_metadata_are_shown_if_a_status_has_them() -> None:
    status: Any = get_job_status(enqueue_background_job(ADD, 1).id) | {'meta': {'order': 7}}
    assert 'meta      {"order":7}' in list(describe_fully(Details(status, [], (), {}, None)))


@pytest.mark.parametrize(
    ('data', 'says'),
    [
        (b'cos\nsystem\n(Vtouch /tmp/it-ran\ntR.', 'names os.system'),
        (b'', 'cannot be read'),
        (b'I7\n.', 'holds no call'),
        (b'](I1\nI2\nI3\nI4\ne.', 'holds no call'),
    ],
)
def test_a_payload_of_somebody_else_is_not_run(connection: Redis, data: bytes, says: str) -> None:
    job_id = enqueue_background_job(ADD, 1).id
    connection.hset(f'rq:job:{job_id}', 'data', data)
    assert says in run('show', job_id).stdout
    assert says in shown('show', job_id)['unreadable']
    assert not Path('/tmp/it-ran').exists()


def test_a_job_of_rq_is_shown_with_its_arguments(connection: Redis) -> None:
    queue = Queue('low', connection=connection)
    queue.enqueue('tests.support.tasks.add', 1, b=2, job_id='stock')
    queue.enqueue(add, args=(object,), job_id='odd')
    document = shown('show', 'stock')
    assert (document['task'], document['args'], document['kwargs']) == (ADD, [1], {'b': 2})
    assert 'builtins.object' in shown('show', 'odd')['unreadable']


def test_nothing_of_a_job_steers_the_terminal(shared_worker: SharedWorker) -> None:
    job_id = enqueue_background_job(FAIL, 'a\x1b[2J\x9b31m\x7f\u202eb').id
    wait_for_job(job_id, PATIENCE)
    for command in (('show', job_id), ('list',), ('status', job_id)):
        for options in ((), ('--json',)):
            output = run(*command, *options).output
            assert '[2J' in output
            assert all(c.isprintable() for c in output.replace('\n', '')), command
    assert shown('show', job_id)['args'] == ['a\x1b[2J\x9b31m\x7f\u202eb']


# status, wait


def test_wait_prints_the_last_status_as_json(shared_worker: SharedWorker) -> None:
    done = enqueue_background_job(ADD, 1).id
    result = run('wait', done, '--json')
    assert (result.exit_code, json.loads(result.stdout)['result']) == (0, 3)
    with shared_worker.held():
        late = run('wait', enqueue_background_job(ADD, 1).id, '--timeout', '0.1', '--json')
    assert (late.exit_code, json.loads(late.stdout)['status']) == (124, 'queued')


# tasks


def test_every_task_has_its_signature_its_first_line_and_its_names() -> None:
    text = run('tasks').stdout
    assert (
        'workers.svg_tasks.generate_postcard_svg(recipient: str, message: str, template_name: '
        "Literal['plain', 'birthday']) -> str  [generate_postcard_svg]\n"
        '    Draw a postcard of 148 by 105 mm'
    ) in text
    assert 'tests.support.tasks.add(a: int, b: int = 2) -> int\n' in text
    [task] = [one for one in shown('tasks')['tasks'] if one['task'].endswith('.send_email')]
    assert task == {
        'task': 'workers.email_tasks.send_email',
        'names': ['send_email'],
        'signature': '(to: str, subject: str, body: str) -> dict[str, str]',
        'summary': 'Send a plain-text mail to one address; return its `message_id` and `to`.',
    }


def test_a_module_that_cannot_be_imported_is_said_and_the_others_are_listed(
    settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_modules(
        settings,
        tmp_path,
        good='def heal(): "Heal\\x1b[2J."',
        broken='1 / 0',
        deep__in____init__='',
        deep__in__inner='def look(): ...',
    )
    result = run('tasks', '--json')
    assert result.exit_code == 1
    found = {task['task']: task['summary'] for task in json.loads(result.stdout)['tasks']}
    assert found == {'clinic.good.heal': 'Heal\x1b[2J.', 'clinic.deep.inner.look': ''}
    [line] = result.stderr.splitlines()
    assert 'importing clinic.broken failed: ZeroDivisionError' in line
    assert '\x1b' not in run('tasks').output


# workers


def test_there_are_no_workers() -> None:
    assert run('workers').stdout == 'There are none.\n'
    assert shown('workers') == {'workers': [], 'paused': False}


def test_a_worker_is_listed_with_what_it_does(
    shared_worker: SharedWorker, connection: Redis
) -> None:
    eventually(lambda: connection.scard('rq:workers') == 1)
    before = shown('workers')['workers'][0]['done']
    wait_for_job(enqueue_background_job(ADD, 1).id, PATIENCE)
    wait_for_job(enqueue_background_job(FAIL).id, PATIENCE)
    job_id = enqueue_background_job('tests.support.tasks.sleep', 600).id
    eventually(lambda: shown('workers')['workers'][0]['state'] == 'busy')
    [worker] = shown('workers')['workers']
    assert (worker['job'], worker['done'] - before) == (job_id, 2)
    assert worker['queues'] == ['high', 'default', 'low']
    assert 0 <= worker['seconds_since_heartbeat'] < 60
    header, line = run('workers').stdout.splitlines()
    assert header.split() == ['NAME', 'HOST', 'STATE', 'DONE', 'HEARTBEAT', 'QUEUES', 'JOB']
    assert line.split()[0] == worker['name']
    assert line.endswith(f'high,default,low  {job_id}')
    run('cancel', job_id)
    wait_for_job(job_id, PATIENCE)
    eventually(lambda: shown('workers')['workers'][0]['job'] is None)


def test_a_record_that_anyone_may_have_written_is_listed_all_the_same(connection: Redis) -> None:
    name = '\x1b]0;x'
    fields: Any = {'birth': 'x', 'state': 'a\x1b[2J', 'successful_job_count': '9' * 5000}
    connection.hset(f'rq:worker:{name}', mapping=fields)
    connection.sadd('rq:workers', f'rq:worker:{name}', 'rq:worker:of-another-type')
    connection.sadd(f'rq:worker:{name}:executions', 'no-colon')
    assert len(shown('workers')['workers']) == 1
    assert '\x1b' not in run('workers').output
