"""`flask jobs`: what a shell can do with jobs, in its exit codes and in plain lines."""

import json
import os
import signal
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from redis import Redis
from rq.job import Job

from libraries.job_manager import (
    enqueue_background_job,
    enqueue_background_jobs,
    get_job_status,
    wait_for_job,
)
from qdjobs.cli.text import plain
from qdjobs.client.details import read_details
from qdjobs.client.payload import PlainSerializer
from qdjobs.config import environment_config
from qdjobs.server import free_port
from tests.support.applications import use_redis
from tests.support.processes import eventually
from tests.support.shared_worker import SharedWorker
from tests.support.shell import Terminal, flask, refused, run

ADD = 'tests.support.tasks.add'
ECHO = 'tests.support.tasks.echo'
SHELL = 'tests.support.shell_tasks.take'
Dump = Callable[[], dict[bytes, Any]]


@pytest.fixture(autouse=True)
def tasks(settings: pytest.MonkeyPatch) -> None:
    modules = 'workers,tests.support.tasks,tests.support.progress_tasks,tests.support.shell_tasks'
    settings.setenv('JOB_TASK_MODULES', modules)
    environment_config.cache_clear()


def queued(connection: Redis, *pairs: str, task: str = SHELL) -> Job:
    """The job that these words enqueue."""
    result = run('enqueue', task, *pairs)
    assert result.exit_code == 0, result.stderr
    return Job.fetch(result.stdout.strip(), connection, PlainSerializer)


# enqueue


@pytest.mark.parametrize(
    ('pair', 'value'),
    [
        ('text=7', '7'),
        ('text=true', 'true'),
        ('text="quoted"', '"quoted"'),
        ('text={"a": 1}', '{"a": 1}'),
        ('text=', ''),
        ('text=a=b', 'a=b'),
        ('text= ö\n', ' ö\n'),
        ('maybe=null', None),
        ('maybe=7', '7'),
        ('maybe=none', 'none'),
        ('number=7', 7),
        ('number=123456789012345678901234567890', 123456789012345678901234567890),
        ('share=7', 7),
        ('share=-1.5e3', -1500.0),
        ('flag=true', True),
        ('either=7', 7),
        ('either=seven', 'seven'),
        ('day=2030-01-02', date(2030, 1, 2)),
        ('moment=2030-01-02T03:04:05Z', datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ('duration=PT5M', timedelta(minutes=5)),
        ('price=1.10', Decimal('1.10')),
        ('price=7', Decimal(7)),
        ('key=12345678123456781234567812345678', UUID('12345678' * 4)),
        ('data=aGk=', b'hi'),
        ('days=["2030-01-02", "2030-01-03"]', [date(2030, 1, 2), date(2030, 1, 3)]),
        ('names=["7"]', ['7']),
        ('pair=[1, "x"]', (1, 'x')),
        ('marks=[1, 2]', {1, 2}),
        ('by_number={"1": "2030-01-02"}', {1: date(2030, 1, 2)}),
        ('point={"y": 2, "x": 1}', {'y': 2, 'x': 1}),
        ('unhinted=7', 7),
        ('unhinted=seven', 'seven'),
        ('unhinted="7"', '7'),
        ('anything=[1, null]', [1, None]),
        ('anything="7"', '7'),
        ('anything=NaN', 'NaN'),
        ('further=2030-01-02', date(2030, 1, 2)),
    ],
)  # fmt: skip
def test_a_value_becomes_what_the_task_takes(connection: Redis, pair: str, value: Any) -> None:
    [(name, given)] = queued(connection, pair).kwargs.items()
    assert name == pair.partition('=')[0]
    assert (given, type(given)) == (value, type(value))
    assert str(given) == str(value)  # Decimals of as many digits


@pytest.mark.parametrize(
    ('pairs', 'told'),
    [
        (['number=x'], "argument 'number': Expected int"),
        (['number=1.5'], "argument 'number': Expected int"),
        (['flag=1'], "argument 'flag': Expected bool"),
        (['day=tomorrow'], "argument 'day': Expected date"),
        (['names=[1]'], "argument 'names': Expected str"),
        (['point={"x": 1, "y": 2, "z": 3}'], "Unexpected key 'z'"),
        (['points=[{"x": 1, "y": 2, "z": 3}]'], "Unexpected key 'z'"),
        (['data=!'], "argument 'data': Expected bytes"),
        (['text'], "'text' is no argument: write key=value"),
        (['=7'], "'=7' is no argument"),
        (['a b=7'], 'is no argument'),
        (['text=a', 'text=b'], 'text is given twice'),
        (['job_queue=low', 'job_queue=low'], 'job_queue is given twice'),
        (['job_queue=middle'], 'job_queue must be one of'),
        (['job_max_retries=many'], 'job_max_retries must be a whole number'),
        (['job_max_retries=1.5'], 'job_max_retries must be a whole number'),
        (['job_at=tomorrow'], 'job_at must be an aware datetime'),
        (['job_at=2030-01-02T03:04:05'], 'job_at must be an aware datetime'),
        (['job_timeout=long'], 'job_timeout must be seconds'),
        (
            ['job_after=[7]'],
            'job_after must be a job, its id, or a list of up to 1000 of them, not [7]',
        ),
        (['job_after={"a": 1}'], 'job_after must be a job, its id'),
        (['job_colour=red'], 'job_colour is no option'),
    ],
)
def test_a_refusal_is_one_line_and_queues_nothing(dump: Dump, pairs: list[str], told: str) -> None:
    refused(run('enqueue', SHELL, *pairs), told)
    assert dump() == {}


@pytest.mark.parametrize(
    ('path', 'told'),
    [
        ('os.system', 'outside the allowed task modules'),
        ('tests.support.tasks.nothing', 'names no public function'),
        ('tests.support.tasks.options_collide', 'rename the parameter'),
        ('nonsense', "There is no task 'nonsense': see flask jobs tasks"),
    ],
)
def test_what_is_no_task_is_refused(path: str, told: str) -> None:
    refused(run('enqueue', path), told)


def test_what_is_missing_or_too_much_is_named() -> None:
    refused(run('enqueue', ADD), "missing a required argument: 'a'")
    refused(run('enqueue', ADD, 'a=1', 'c=2'), "unexpected keyword argument 'c'")


def test_options_are_read_as_the_contract_reads_them(connection: Redis) -> None:
    options = ('job_id=7', 'job_queue=high', 'job_timeout=90', 'job_max_retries=2')
    job = queued(connection, 'a=1', *options, task=ADD)
    assert (job.id, job.origin, job.timeout, job.retries_left) == ('7', 'high', 90, 2)
    at = datetime.now(UTC) + timedelta(hours=1)
    assert queued(connection, 'a=1', f'job_at={at.isoformat()}', task=ADD).is_scheduled
    assert queued(connection, 'a=1', 'job_delay=2m', task=ADD).is_scheduled


@pytest.mark.parametrize('text', ['7,s1', '7, s1', '["7", "s1"]', '"7,s1"', '7'])
def test_a_job_waits_for_a_list_of_ids_or_for_json_of_it(connection: Redis, text: str) -> None:
    parents = [enqueue_background_job(ADD, 1, job_id=job_id).id for job_id in ('7', 's1')]
    job = queued(connection, 'a=1', f'job_after={text}', task=ADD)
    assert get_job_status(job.id)['waits_for'] == (parents if 's1' in text else ['7'])


def test_what_exists_already_is_told_and_is_no_error() -> None:
    again = ('enqueue', ADD, 'a=2', 'job_id=7')
    first = run('enqueue', ADD, 'a=1', 'job_delay=1h', 'job_id=7')
    second, third = run(*again), run(*again, '--json')
    assert first.stdout == second.stdout == '7\n'
    assert (first.stderr, third.stderr) == ('', '')
    assert second.stderr == 'Job 7 exists already (scheduled): nothing was enqueued.\n'
    assert json.loads(third.stdout)['new'] is False
    assert {result.exit_code for result in (first, second, third)} == {0}
    assert read_details('7').kwargs == {'a': 1}


# status, list, cancel, retry


def test_a_status_is_told_in_words_and_as_json(shared_worker: SharedWorker) -> None:
    done = enqueue_background_job(ADD, 1).id
    broken = enqueue_background_job('tests.support.tasks.fail', 'too wide').id
    wait_for_job(broken, 60)
    lines = dict(line.split(maxsplit=1) for line in run('status', done).stdout.splitlines())
    assert lines.keys() == {
        'id', 'status', 'task', 'queue', 'created', 'started', 'ended', 'result',
    }  # fmt: skip
    assert (lines['id'], lines['status'], lines['result']) == (done, 'finished', '3')
    told = run('status', broken).stdout
    assert 'error     ValueError: too wide\n' in told
    assert 'attempt   ' in told
    as_json = json.loads(run('status', done, '--json').stdout)
    assert as_json.keys() == get_job_status(done).keys()
    assert as_json['result'] == 3


def test_jobs_are_listed_in_a_table() -> None:
    assert run('list').stdout == 'There are none.\n'
    enqueue_background_jobs(ADD, [{'a': 1}] * 3, job_id='many', job_queue='low')
    enqueue_background_job(ADD, 1, job_id='later', job_delay=60)
    header, *lines = run('list').stdout.splitlines()
    assert header.split() == ['ID', 'STATUS', 'QUEUE', 'AGE', 'TASK']
    assert [line.split()[:3] for line in lines] == [
        ['later', 'scheduled', 'default'],
        *(['many-' + number, 'queued', 'low'] for number in '210'),
    ]
    for options, ids in [
        (('--status', 'scheduled'), ['later']),
        (('--status', 'pending'), ['many-2', 'many-1', 'many-0']),
        (('--queue', 'low', '--limit', '2'), ['many-2', 'many-1']),
        (('--oldest', '--limit', '2'), ['many-0', 'many-1']),
        (('--task', 'add', '--limit', '1'), ['later']),
        (('--task', ECHO), []),
        (('--queue', 'high'), []),
    ]:
        lines = run('list', *options).stdout.splitlines()[1:]
        assert [line.split()[0] for line in lines] == ids


@pytest.mark.parametrize(
    'options',
    [
        ('list', '--status', 'lost'),
        ('list', '--queue', 'middle'),
        ('list', '--limit', '0'),
        ('list', '--limit', '9999'),
        ('cancel',),
        ('cancel', 'x', '--all'),
        ('cancel', 'x', '--running'),
        ('retry', 'x', '--task', 'add'),
        ('retry', '--all', '--since', 'yesterday'),
        ('retry', '--all', '--since', '2030-01-01T00:00'),
        ('delete', '--all', '--yes'),
        ('pause', '--for', 'ever'),
        ('wait', 'x', '--timeout', '-1'),
        ('enqueue',),
        ('retry',),
        ('no-such-command',),
    ],
)
def test_a_usage_error_is_exit_code_2(options: tuple[str, ...]) -> None:
    result = run(*options)
    assert result.exit_code == 2
    assert 'Error: ' in result.stderr


def test_cancel_says_what_will_become_of_the_job(shared_worker: SharedWorker) -> None:
    with shared_worker.held():
        waiting = enqueue_background_job(ADD, 1).id
        assert run('cancel', waiting).stdout == f'{waiting} will not run.\n'
        assert run('cancel', waiting).stdout == f'{waiting} will not run.\n'
    done = enqueue_background_job(ADD, 1).id
    wait_for_job(done, 60)
    assert run('cancel', done).stdout == f'{done} had ended before: finished.\n'
    running = enqueue_background_job('tests.support.tasks.sleep', 600).id
    eventually(lambda: get_job_status(running)['status'] == 'started')
    assert run('cancel', running).stdout == f'{running} is being stopped by its worker.\n'
    assert wait_for_job(running, 60)['status'] == 'stopped'


def test_retry_queues_what_it_can_and_tells_the_rest() -> None:
    ids = [enqueue_background_job(ADD, 1).id for _ in range(3)]
    for job_id in (ids[0], ids[2]):
        run('cancel', job_id)
    result = run('retry', *ids)
    assert result.exit_code == 1
    assert [line.split()[0] for line in result.stdout.splitlines()] == [ids[0], ids[2]]
    assert ids[1] in result.stderr
    assert {get_job_status(job_id)['status'] for job_id in ids} == {'queued'}
    run('cancel', ids[0])
    assert run('retry', ids[0]).exit_code == 0


@pytest.mark.parametrize('command', ['status', 'show', 'wait', 'cancel', 'retry', 'delete'])
@pytest.mark.parametrize('job_id', ['unknown', '', 'a\nb', '\x1b[2J'])
def test_an_unknown_id_is_one_line(command: str, job_id: str) -> None:
    refused(run(command, job_id), 'There is no job')


@pytest.mark.parametrize(
    'arguments',
    [('enqueue', ADD, 'a=1'), ('status', 'x'), ('wait', 'x'), ('list',), ('retry', 'x', 'y')],
)
def test_redis_away_is_one_line(settings: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    use_redis(settings, f'redis://127.0.0.1:{free_port()}/0')
    refused(run(*arguments), 'does not answer')


def test_nothing_of_a_task_steers_the_terminal(shared_worker: SharedWorker) -> None:
    assert plain('a\x1b[2J\r\nb\x9b\u202ec') == 'a [2J  b  c'
    broken = enqueue_background_job('tests.support.tasks.fail', 'too\x1b]0;wide\x07').id
    wait_for_job(broken, 60)
    told = run('status', broken).output + run('list').output + run('wait', broken).output
    assert 'wide' in told
    assert '\x1b' not in told
    assert '\x07' not in told


# wait, and the real command


@pytest.mark.slow
def test_from_one_end_to_the_other(shared_worker: SharedWorker) -> None:
    job_id = flask('enqueue', ADD, 'a=40').stdout.strip()
    waited = flask('wait', job_id)
    assert waited.returncode == 0
    assert waited.stderr == ''
    steps, _, told = waited.stdout.partition('id    ')
    assert set(steps.splitlines()) <= {'queued', 'started', 'finished'}  # a line for each, no bar
    assert 'status    finished\n' in told
    assert waited.stdout.endswith('result    42\n')
    assert 'status    finished\n' in run('status', job_id).stdout


def test_wait_tells_by_its_exit_code(shared_worker: SharedWorker) -> None:
    with shared_worker.held():
        canceled = enqueue_background_job(ADD, 1).id
        run('cancel', canceled)
        assert run('wait', canceled).exit_code == 1
    broken = run('wait', enqueue_background_job('tests.support.tasks.fail').id)
    assert broken.exit_code == 1
    assert 'ValueError: it failed' in broken.stdout
    assert run('wait', enqueue_background_job(ADD, 1).id, '--timeout', '60').exit_code == 0
    with shared_worker.held():
        late = run('wait', enqueue_background_job(ADD, 1).id, '--timeout', '0.1')
    assert late.exit_code == 124
    assert late.stdout == 'queued\n'
    assert late.stderr.startswith('The time is over; the job goes on. To end it: flask jobs cancel')


@pytest.mark.slow
def test_on_a_terminal_a_bar_shows_how_far_it_is(
    shared_worker: SharedWorker, tmp_path: Path
) -> None:
    gate = tmp_path / 'gate'
    job = enqueue_background_job('tests.support.progress_tasks.stop_half_way', str(gate))
    terminal = Terminal('wait', job.id)
    while ' 50%' not in terminal.output:
        assert terminal.read()
    gate.touch()
    assert terminal.finish() == 0
    assert f'\r\x1b[Kstarted   [{"#" * 15}{"-" * 15}]  50%  2/4 half-…' in terminal.output
    assert f'[{"#" * 30}] 100%  4/4' in terminal.output
    for drawn in terminal.output.split('result')[0].split('\r\x1b[K')[1:-1]:
        assert len(drawn) < 60
        assert '\n' not in drawn


def test_ctrl_c_ends_the_waiting_and_not_the_job(
    shared_worker: SharedWorker, tmp_path: Path
) -> None:
    gate = tmp_path / 'gate'
    job = enqueue_background_job('tests.support.progress_tasks.stop_half_way', str(gate))
    terminal = Terminal('wait', job.id)
    while ' 50%' not in terminal.output:
        assert terminal.read()
    os.kill(terminal.pid, signal.SIGINT)
    assert terminal.finish() == 130
    assert get_job_status(job.id)['status'] == 'started'
    gate.touch()
    assert wait_for_job(job.id, 60)['status'] == 'finished'
    assert f'the job goes on. To end it: flask jobs cancel {job.id}' in terminal.output
    assert 'Traceback' not in terminal.output


def test_on_a_terminal_a_table_fits() -> None:
    enqueue_background_job('tests.support.progress_tasks.stop_half_way', 'x', job_queue='default')
    assert 'stop_half_way\n' in run('list').stdout  # to no terminal
    terminal = Terminal('list', columns=70)
    assert terminal.finish() == 0
    _, line = terminal.output.splitlines()
    assert (len(line), line[-1]) == (70, '…')
