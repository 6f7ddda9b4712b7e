"""`flask jobs` changes many jobs at once; names tasks shortly; pauses the workers."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from redis import Redis

from libraries.job_manager import (
    cancel_job,
    enqueue_background_job,
    enqueue_background_jobs,
    get_job_status,
    get_job_statuses,
    list_jobs,
    wait_for_job,
)
from qdjobs import JobQueue
from qdjobs.client import listing
from qdjobs.client.control import cancel_waiting_job
from qdjobs.config import environment_config
from tests.support.applications import use_redis
from tests.support.apps import create_shop
from tests.support.jobs import PATIENCE
from tests.support.modules import use_modules
from tests.support.processes import eventually
from tests.support.proxy import Proxy
from tests.support.shared_worker import SharedWorker
from tests.support.shell import Terminal, flask, refused, run

ADD, FAIL, ECHO = (f'tests.support.tasks.{name}' for name in ('add', 'fail', 'echo'))
LONG_AGO = '2020-01-01T00:00:00.000000Z'


@pytest.fixture(autouse=True)
def tasks(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_TASK_MODULES', 'workers,tests.support.tasks')
    environment_config.cache_clear()


def failed(*ids: str, task: str = FAIL, **arguments: Any) -> None:
    for job_id in ids:
        enqueue_background_job(task, job_id=job_id, **arguments)
    for job_id in ids:
        assert wait_for_job(job_id, PATIENCE)['status'] == 'failed'


def states(*ids: str) -> list[str]:
    return [job['status'] for job in get_job_statuses(ids)]


# enqueue by a short name


@pytest.mark.parametrize('name', ['add', 'tasks.add', 'support.tasks.add', ADD])
def test_a_task_is_named_by_the_end_of_its_path(name: str) -> None:
    result = run('enqueue', name, 'a=1', '--json')
    document = json.loads(result.stdout)
    assert document == {
        'id': document['id'], 'task': ADD, 'queue': 'default', 'status': 'queued',
        'new': True,
    }  # fmt: skip
    assert get_job_status(document['id'])['task'] == ADD


@pytest.mark.parametrize(
    ('name', 'says'),
    [
        ('generate_pfd', 'did you mean workers.report_tasks.generate_pdf?'),
        ('generate_pdff', 'did you mean workers.report_tasks.generate_pdf?'),
        ('workers.report.generate_pdf', 'Did you mean workers.report_tasks.generate_pdf?'),
        ('workers.report_tasks.pdf', 'workers.report_tasks has generate_pdf, generate_report'),
        ('xyzzy', 'see flask jobs tasks'),
        ('x' * 5000, 'see flask jobs tasks'),
        ('', 'see flask jobs tasks'),
        ('\x1b[2J', 'see flask jobs tasks'),
    ],
)
def test_an_unknown_task_is_a_sentence_with_what_was_meant(name: str, says: str) -> None:
    result = run('enqueue', name)
    refused(result, says)
    assert '\x1b' not in result.stderr
    assert list_jobs() == []


def test_an_end_that_two_tasks_have_names_both(
    settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    heal = 'def heal(): ...'
    use_modules(settings, tmp_path, dogs=heal, cats=heal, broken='1 / 0')
    refused(
        run('enqueue', 'heal'),
        'the end of 2 tasks: did you mean clinic.cats.heal or clinic.dogs.heal?',
    )
    assert run('enqueue', 'cats.heal').exit_code == 0
    refused(run('enqueue', 'cure'), 'clinic.broken cannot be imported')


def test_a_name_of_the_application_has_its_options() -> None:
    app = Flask('named')
    queue = JobQueue(app)
    queue.add('sum', ADD, job_queue='low', job_timeout='7m')
    runner = app.test_cli_runner()
    low = runner.invoke(args=['jobs', 'enqueue', 'sum', 'a=1', '--json'])
    assert json.loads(low.stdout)['queue'] == 'low'
    high = runner.invoke(args=['jobs', 'enqueue', 'sum', 'a=1', 'job_queue=high', '--json'])
    assert json.loads(high.stdout)['queue'] == 'high'
    wrong = runner.invoke(args=['jobs', 'enqueue', 'summ'])
    assert 'did you mean sum?' in wrong.stderr


# retry --all


def test_all_failed_jobs_are_retried_and_no_others(shared_worker: SharedWorker) -> None:
    failed('a', 'b', 'c')
    with shared_worker.held():
        enqueue_background_job(ADD, 1, job_id='canceled')
        cancel_job('canceled')
        result = run('retry', '--all', '--yes')
        assert (result.exit_code, result.stdout, result.stderr) == (0, 'queued: 3\n', '')
        assert states('a', 'b', 'c', 'canceled') == ['queued'] * 3 + ['canceled']
        again = run('retry', '--all', '--yes')
        assert (again.exit_code, again.stdout) == (0, 'There are none.\n')
        assert run('retry', '--all', '--yes', '--status', 'canceled').stdout == 'queued: 1\n'


def test_a_task_a_queue_or_a_time_chooses_what_is_retried(
    shared_worker: SharedWorker, connection: Redis
) -> None:
    failed('old', 'new')
    failed('low', job_queue='low')
    failed('other', task='tests.support.tasks.fail_for_good')
    connection.hset('rq:job:old', 'ended_at', LONG_AGO)
    with shared_worker.held():
        for options, chosen in (
            (('--task', ECHO), []),
            (('--task', 'fail_for_good'), ['other']),
            (('--queue', 'low'), ['low']),
            (('--since', '2h'), ['new']),
            (('--since', '2019-01-01T00:00Z'), ['old']),
        ):
            document = json.loads(run('retry', '--all', '--yes', '--json', *options).stdout)
            assert document == {
                'outcomes': {'queued': len(chosen)} if chosen else {},
                'refused': 0,
                'jobs': [{'id': job_id, 'outcome': 'queued'} for job_id in chosen],
            }, options


def test_many_are_retried_though_they_fail_again_at_once(
    shared_worker: SharedWorker, settings: pytest.MonkeyPatch
) -> None:
    settings.setattr(listing, '_PAGE', 10)
    ids = [job.id for job in enqueue_background_jobs(FAIL, [{}] * 60)]
    for job_id in ids:
        wait_for_job(job_id, PATIENCE)
    result = run('retry', '--all', '--yes', '--json')
    document = json.loads(result.stdout)
    assert sorted(job['id'] for job in document['jobs']) == sorted(ids)
    assert result.exit_code == 0


def test_what_cannot_be_retried_is_said_and_is_exit_code_1(connection: Redis) -> None:
    enqueue_background_job(ADD, 1, job_id='a')
    enqueue_background_job(ADD, 1, job_id='b')
    cancel_job('a')
    result = run('retry', 'a', 'b', 'none', '--json')
    assert result.exit_code == 1
    document = json.loads(result.stdout)
    assert (document['outcomes'], document['refused']) == ({'queued': 1}, 2)
    assert [list(job) for job in document['jobs']] == [['id', 'outcome'], *[['id', 'error']] * 2]
    assert len(result.stderr.splitlines()) == 2


# The question


def test_without_a_terminal_all_needs_yes() -> None:
    enqueue_background_job(ADD, 1, job_id='a')
    for command in (('cancel',), ('retry',), ('delete', '--status', 'failed')):
        result = run(*command, '--all')
        assert result.exit_code == 2
        assert 'without a terminal, --yes' in result.stderr
    assert states('a') == ['queued']


@pytest.mark.slow
@pytest.mark.parametrize(('answer', 'code', 'state'), [('y', 0, 'canceled'), ('n', 1, 'queued')])
def test_on_a_terminal_all_asks(answer: str, code: int, state: str) -> None:
    enqueue_background_job(ADD, 1, job_id='a')
    terminal = Terminal('cancel', '--all', columns=200)
    while '[y/N]' not in terminal.output:
        assert terminal.read(), terminal.output
    terminal.type(f'{answer}\n')
    assert terminal.finish() == code
    assert 'Up to 1 jobs will be cancelled. Go on?' in terminal.output
    assert states('a') == [state]


# cancel --all, delete --all


def test_all_waiting_jobs_are_cancelled_and_running_ones_only_if_named(
    shared_worker: SharedWorker,
) -> None:
    running = enqueue_background_job('tests.support.tasks.sleep', 600).id
    eventually(lambda: states(running) == ['started'])
    enqueue_background_jobs(ADD, [{'a': 1}] * 3, job_id='many')
    enqueue_background_job(ADD, 1, job_id='later', job_delay=600)
    assert run('cancel', '--all', '--yes').stdout == 'canceled: 4\n'
    assert states('many-0', 'later', running) == ['canceled', 'canceled', 'started']
    assert run('cancel', '--all', '--yes', '--running').stdout == 'stopping: 1\n'
    assert wait_for_job(running, PATIENCE)['status'] == 'stopped'


def test_a_job_that_starts_before_it_is_cancelled_goes_on(connection: Redis) -> None:
    enqueue_background_job(ADD, 1, job_id='a')
    connection.hset('rq:job:a', mapping={'status': 'started', 'worker_name': 'w'})
    assert cancel_waiting_job('a') == 'started'
    assert not connection.hexists('rq:job:a', 'stop_requested')


def test_all_jobs_of_a_status_are_deleted(shared_worker: SharedWorker) -> None:
    failed('a', 'b')
    with shared_worker.held():
        enqueue_background_job(ADD, 1, job_id='waiting')
        assert run('delete', '--all', '--yes', '--status', 'failed').stdout == 'deleted: 2\n'
        assert [job['id'] for job in list_jobs()] == ['waiting']
        refused(
            run('delete', 'waiting'), "Job 'waiting' is queued, and not deleted: cancel it first"
        )
        assert states('waiting') == ['queued']
        run('cancel', 'waiting')
        assert run('delete', 'waiting').stdout == 'waiting is deleted.\n'


@pytest.mark.slow
def test_ctrl_c_says_how_far_it_has_come_and_the_rest_can_follow(
    settings: pytest.MonkeyPatch, proxy: Proxy, redis_url: str
) -> None:
    ids = [job.id for job in enqueue_background_jobs(ADD, [{'a': 1}] * 50)]
    use_redis(settings, proxy.url)
    terminal = Terminal('cancel', '--all', '--yes')

    def interrupt() -> bool:
        """Instead of an answer to one of its many requests, it gets Ctrl-C."""
        if proxy.requests == 30:
            os.kill(terminal.pid, signal.SIGINT)
        return proxy.requests >= 30

    proxy.hang_when = interrupt
    assert terminal.finish() == 130
    use_redis(settings, redis_url)
    done = states(*ids).count('canceled')
    assert 0 < done < 30
    assert f'canceled: {done}\r' in terminal.output
    assert 'Interrupted' in terminal.output
    assert 'Traceback' not in terminal.output
    assert run('cancel', '--all', '--yes').stdout == f'canceled: {50 - done}\n'


def test_a_redis_that_goes_away_midway_leaves_a_count(
    settings: pytest.MonkeyPatch, proxy: Proxy
) -> None:
    enqueue_background_jobs(ADD, [{'a': 1}] * 10)
    run('cancel', '--all', '--yes', '--queue', 'low')  # from now on the server knows the scripts
    use_redis(settings, proxy.url)
    proxy.cut_after, proxy.skip = b'EVALSHA', 4
    result = run('cancel', '--all', '--yes', '--json')
    proxy.cut_after = None
    assert result.exit_code == 1
    assert json.loads(result.stdout)['outcomes'] == {'canceled': 3}
    assert 'does not answer' in result.stderr


# pause, resume


def test_paused_workers_take_no_job_until_they_are_resumed(
    shared_worker: SharedWorker, connection: Redis
) -> None:
    assert run('pause').stdout == 'The workers take no job until they are resumed.\n'
    eventually(lambda: 'suspended' in run('workers').stdout)
    job_id = enqueue_background_job(ADD, 1).id
    assert 'They are paused. To go on: flask jobs resume' in run('workers').stderr
    assert json.loads(run('resume', '--json').stdout) == {'paused': False, 'was_paused': True}
    assert wait_for_job(job_id, PATIENCE)['status'] == 'finished'
    assert run('resume').stdout == 'They were not paused.\n'


def test_a_pause_can_have_an_end(connection: Redis) -> None:
    assert json.loads(run('pause', '--for', '10m', '--json').stdout) == {
        'paused': True, 'seconds': 600,
    }  # fmt: skip
    assert 590 < connection.ttl('rq:suspended') <= 600
    assert run('pause').exit_code == 0
    assert connection.ttl('rq:suspended') == -1


def test_a_pause_is_of_the_workers_of_one_prefix(connection: Redis) -> None:
    create_shop().test_cli_runner().invoke(args=['jobs', 'pause'])
    assert connection.exists('shop:suspended')
    assert not connection.exists('rq:suspended')


@pytest.mark.slow
def test_help_says_every_exit_code() -> None:
    group = flask('--help').stdout
    for command in (
        'enqueue', 'list', 'show', 'status', 'wait', 'cancel', 'delete', 'retry', 'tasks',
        'workers', 'pause', 'resume', 'doctor',
    ):  # fmt: skip
        assert f'\n  {command} ' in group
        text = ' '.join(run(command, '--help').stdout.split())
        assert 'Exit codes: 0' in text, command
        assert '--json' in text, command
