"""Each thing that the doctor finds, made real."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from redis import Redis

from app import create_app
from libraries.job_manager import enqueue_background_job, get_job_status, wait_for_job
from qdjobs import JobQueue
from qdjobs.client.control import pause_workers
from qdjobs.config import environment_config
from qdjobs.monitoring.doctor import clean_up, list_names, set_in_server
from qdjobs.server import embedded_redis, free_port
from qdjobs.worker.ending import unknown_here
from tests.support.applications import shared_app, use_redis
from tests.support.apps import create_shop
from tests.support.jobs import end_next
from tests.support.load import commands, fill
from tests.support.modules import use_modules
from tests.support.processes import ROOT, Worker, eventually, kill_group
from tests.support.shared_worker import SharedWorker

ADD = 'tests.support.tasks.add'
BIN = Path(sys.executable).parent
SHOP = 'tests.support.apps:create_shop'
LONG_AGO = '2020-01-01T00:00:00.000000Z'


class Report:
    """What the doctor has said, and its exit code."""

    def __init__(self, color: bool = False) -> None:
        runner = shared_app(create_app).test_cli_runner()
        result = runner.invoke(args=['jobs', 'doctor'], color=color)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        self.code, self.text = result.exit_code, result.output
        self.lines = re.sub('\n    ', ' ', result.output).splitlines()  # each with its remedy

    def remedy(self, words: str) -> str:
        """The command below the line that has these words."""
        return self.text[self.text.index(words) :].splitlines()[1].strip()

    def marks(self, *words: str) -> str:
        """The marks of the lines that have all of the words."""
        return ''.join(line[0] for line in self.lines if all(word in line for word in words))


@pytest.fixture(autouse=True)
def tasks(settings: pytest.MonkeyPatch) -> None:
    """Only sound modules, and none with a periodic task."""
    settings.setenv(
        'JOB_TASK_MODULES', 'workers.svg_tasks,workers.check_tasks,tests.support.progress_tasks'
    )
    environment_config.cache_clear()


@pytest.fixture
def allow_test_tasks(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_TASK_MODULES', 'tests.support.tasks,workers.check_tasks')
    environment_config.cache_clear()


@pytest.fixture
def configure(connection: Redis) -> Iterator[Callable[[str, str], None]]:
    before: dict[str, Any] = {}

    def configure(name: str, value: str) -> None:
        before[name] = connection.config_get(name)[name]
        connection.config_set(name, value)

    yield configure
    for name, value in before.items():
        connection.config_set(name, value)


def kill(worker: subprocess.Popen[bytes]) -> None:
    """The worker and its horse, at once and without a goodbye."""
    kill_group(worker.pid)
    worker.wait()


def has_worker(connection: Redis) -> bool:
    return connection.scard('rq:workers') == 1


def paste(
    command: str, bin_folder: Path | None = None, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """Run a command in a shell that has the environment of this process."""
    folders = [str(folder) for folder in (bin_folder, BIN) if folder]
    path = os.pathsep.join([*folders, os.environ['PATH']])
    return subprocess.run(
        ['sh', '-c', command],
        cwd=ROOT,
        env=os.environ | {'PATH': path},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


DOORS = {
    '/rq': ('DASHBOARD_USERNAME', 'DASHBOARD_PASSWORD'),
    '/api/jobs': ('JOBS_API_TOKEN',),
    '/metrics': ('METRICS_TOKEN',),
}


# All is well


def test_all_is_well(
    shared_worker: SharedWorker, connection: Redis, settings: pytest.MonkeyPatch
) -> None:
    for name in (name for names in DOORS.values() for name in names):
        settings.setenv(name, 'a-key')
    environment_config.cache_clear()
    eventually(lambda: has_worker(connection))
    report = Report()
    assert {line[0] for line in report.lines} == {'✓'}
    assert report.code == 0
    for said in (
        'Valkey', 'append-only', 'evicts nothing', 'Every queue has a worker', 'orphaned',
        'No delayed job is late', '0 jobs waiting', 'workers.svg_tasks has 3 tasks',
        'tests.support.progress_tasks has 4 tasks',
    ):  # fmt: skip
        assert report.marks(said) == '✓', said


def test_colour_is_for_terminals() -> None:
    assert '\x1b' not in Report().text
    assert '\x1b[31m✗\x1b[0m' in Report(color=True).text


# Redis


def test_redis_is_away_and_the_tasks_are_examined_all_the_same(
    settings: pytest.MonkeyPatch,
) -> None:
    use_redis(settings, f'redis://:hush-hush@127.0.0.1:{free_port()}/0')
    report = Report()
    assert report.marks('does not answer', 'REDIS_URL') == '✗'
    assert report.marks('workers.svg_tasks has') == '✓'
    assert not [line for line in report.lines if 'orker ' in line or 'queue' in line]
    assert report.code == 1
    assert 'hush-hush' not in report.text


def test_the_question_of_a_server_has_no_full_stop(
    settings: pytest.MonkeyPatch, redis_url: str
) -> None:
    use_redis(settings, redis_url.replace('://', '://:hush-hush@'))
    assert Report().marks('Are you sure your configuration is correct? Is it running, and') == '✗'


def test_a_redis_that_forgets(configure: Callable[[str, str], None]) -> None:
    configure('appendonly', 'no')
    assert Report().marks('append-only', '"appendonly yes"', ' config set appendonly yes') == '!'


def test_a_redis_that_evicts(configure: Callable[[str, str], None]) -> None:
    configure('maxmemory-policy', 'allkeys-lru')
    report = Report()
    assert report.marks('allkeys-lru', ' config set maxmemory-policy noeviction') == '✗'
    assert report.code == 1


def test_a_redis_that_cannot_write(settings: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / 'data'
    folder.mkdir()
    with embedded_redis(data_dir=folder) as url:
        use_redis(settings, url)
        assert Report().marks('cannot write') == ''
        shutil.rmtree(folder)
        with Redis.from_url(url) as admin:
            admin.bgsave()
            eventually(lambda: admin.info('persistence')['rdb_last_bgsave_status'] == 'err')
        assert Report().marks('cannot write', 'free space') == '✗'


# Workers


def test_no_worker_at_all() -> None:
    report = Report()
    said = report.marks('No worker is alive on high, default, low', 'Start one: flask jobs worker')
    assert said == '✗'
    assert report.code == 1


def test_a_queue_that_nobody_serves(connection: Redis, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name('rq')), 'worker', 'high', 'low']
    with (tmp_path / 'log').open('wb') as log:
        worker = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    try:
        eventually(lambda: has_worker(connection))
        report = Report()
    finally:
        kill(worker)
    assert report.marks('No worker is alive on default.') == '✗'


@pytest.mark.slow
def test_a_worker_that_was_killed(own_worker: Worker, connection: Redis) -> None:
    with own_worker() as worker:
        eventually(lambda: has_worker(connection))
        assert Report().code == 0
        kill(worker)
        [key] = connection.smembers('rq:workers')
        connection.hset(key, 'last_heartbeat', LONG_AGO)  # a minute goes by
        report = Report()
    assert report.marks('has been silent for', 'restarts it') == '!'
    assert report.marks('No worker is alive on') == '✗'


@pytest.mark.slow
def test_a_stock_worker(rq_worker: Worker, connection: Redis) -> None:
    with rq_worker():
        eventually(lambda: has_worker(connection))
        report = Report()
    assert report.marks('stock worker', 'instead: flask jobs worker') == '!'
    assert report.marks('Every queue has a worker') == '✓'
    assert report.code == 0


def test_suspended_workers(connection: Redis) -> None:
    connection.set('rq:suspended', 1)  # as `rq suspend` does
    assert Report().marks('suspended', 'flask jobs resume') == '!'


# What is periodic


@pytest.fixture
def scheduled(settings: pytest.MonkeyPatch) -> None:
    modules = 'workers.check_tasks,tests.support.periodic_apps,tests.support.tasks'
    settings.setenv('JOB_TASK_MODULES', modules)
    settings.setenv('JOB_SCHEDULE', 'tests.support.periodic_table')
    environment_config.cache_clear()


@pytest.mark.usefixtures('scheduled')
def test_a_schedule_that_nobody_serves(connection: Redis) -> None:
    report = Report()
    said = report.marks('No living worker enqueues what is periodic: note, yearly', 'jobs worker')
    assert said == '✗'
    served: Any = {'served_at': time.time(), 'rule': 'every 1s'}
    connection.hset('rq:schedule:note', mapping=served)
    connection.hset('rq:schedule:yearly', mapping=served | {'rule': '0 0 1 1 * UTC'})
    assert Report().marks('2 periodic jobs, which workers enqueue') == '✓'
    connection.hset('rq:schedule:note', 'rule', 'every 2s')
    assert Report().marks('Workers know another time for what is periodic: note. Restart') == '!'
    connection.hset('rq:schedule:note', 'served_at', time.time() - 120)
    assert Report().marks('No living worker enqueues what is periodic: note.') == '✗'


def test_of_many_names_ten_are_in_a_line() -> None:
    names = [f'n{number}' for number in range(1000)]
    assert list_names(names) == 'n0, n1, n2, n3, n4, n5, n6, n7, n8, n9 and 990 more'
    assert list_names(names[:10]).endswith(', n9')


def test_a_schedule_that_is_wrong(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_SCHEDULE', 'tests.support.nowhere')
    environment_config.cache_clear()
    assert Report().marks('JOB_SCHEDULE', "'tests.support.nowhere'. No worker starts") == '✗'


def test_without_a_schedule_there_is_nothing_to_say() -> None:
    assert 'periodic' not in Report().text


# Jobs


@pytest.mark.slow
@pytest.mark.usefixtures('allow_test_tasks')
def test_a_job_whose_worker_was_killed(own_worker: Worker, connection: Redis) -> None:
    job = enqueue_background_job('tests.support.tasks.sleep', 600)
    with own_worker(JOB_LEASE='3') as worker:
        eventually(lambda: get_job_status(job.id)['status'] == 'started')
        assert Report().marks('No job is orphaned') == '✓'
        kill(worker)
        wait_for_lost_lease(connection)
        assert Report().marks('1 running job lost', 'look again') == '!'
        [key] = connection.smembers('rq:workers')
        connection.hset(key, 'last_heartbeat', LONG_AGO)
        assert Report().marks('1 running job lost', 'Start one: flask jobs worker') == '✗'
    with own_worker(JOB_LEASE='3', JOB_SHUTDOWN_GRACE='1'):
        eventually(lambda: connection.zcount('rq:leases', '-inf', time.time()) == 0)
        assert Report().marks('No job is orphaned') == '✓'


def wait_for_lost_lease(connection: Redis) -> None:
    """Until a lease is past in whole seconds too."""
    eventually(lambda: connection.zcount('rq:leases', '-inf', time.time() - 1) == 1)


@pytest.mark.slow
@pytest.mark.usefixtures('allow_test_tasks')
def test_a_job_whose_stock_worker_was_killed(rq_worker: Worker, connection: Redis) -> None:
    job = enqueue_background_job('tests.support.tasks.sleep', 600)
    with rq_worker() as worker:
        eventually(lambda: get_job_status(job.id)['status'] == 'started')
        assert Report().marks('No job is orphaned') == '✓'
        kill(worker)
    entry: Any
    [entry] = connection.zrange('rq:wip:default', 0, -1)
    connection.zadd('rq:wip:default', {entry: time.time() - 1})  # its time-out goes by
    report = Report()
    assert report.marks('1 job left as started by a stock worker', 'rq info') == '✗'
    assert get_job_status(job.id)['status'] == 'started'
    assert paste(report.remedy('left as started')).returncode == 0
    assert get_job_status(job.id)['status'] == 'failed'
    assert Report().marks('No job is orphaned') == '✓'


def test_a_started_job_without_a_lease(connection: Redis) -> None:
    connection.zadd('rq:wip:low', {'job:execution': '+inf'})
    assert Report().marks('1 job left as started') == '✗'
    connection.zadd('rq:leases', {'job:execution': time.time() + 60})
    assert Report().marks('No job is orphaned') == '✓'


@pytest.mark.usefixtures('allow_test_tasks')
def test_a_delayed_job_that_nobody_enqueues(connection: Redis) -> None:
    job = enqueue_background_job(ADD, 1, job_delay=1)
    score = connection.zscore('rq:scheduled:default', job.id)
    assert score is not None
    connection.zadd('rq:scheduled:default', {job.id: score - 30})
    assert Report().marks('No delayed job is late') == '✓'
    connection.zadd('rq:scheduled:default', {job.id: score - 62})
    report = Report()
    assert report.marks('1 delayed job should have been enqueued', 'Start one') == '✗'


@pytest.mark.usefixtures('allow_test_tasks')
def test_jobs_that_the_code_of_no_worker_can_run(connection: Redis) -> None:
    assert 'another version' not in Report().text
    for number in range(2):
        enqueue_background_job(ADD, 1, job_id=f'new-{number}')
        end_next(connection, unknown_here(time.time(), "UnknownTaskError: 'shop.new' names none."))
    report = Report()
    words = ('2 jobs waiting for a worker of another version', "'shop.new' names none. Restart")
    assert report.marks(*words) == '!'
    assert report.remedy('another version') == 'flask jobs list --status scheduled'


@pytest.mark.usefixtures('allow_test_tasks')
def test_a_job_that_waits_for_long(connection: Redis) -> None:
    job = enqueue_background_job(ADD, 1, job_queue='low')
    assert Report().marks('1 job waiting, none for long') == '✓'
    connection.hset(f'rq:job:{job.id}', 'enqueued_at', LONG_AGO)
    report = Report()
    assert report.marks('oldest job of low', ' d, with 1 in the queue', 'more workers') == '!'
    assert report.marks('none for long') == ''


@pytest.mark.usefixtures('allow_test_tasks')
def test_a_queued_id_without_a_record(connection: Redis) -> None:
    connection.delete(f'rq:job:{enqueue_background_job(ADD, 1).id}')
    assert Report().marks('1 queued id without a record') == '!'


@pytest.mark.usefixtures('allow_test_tasks')
def test_dead_letters_are_worth_a_note(shared_worker: SharedWorker, connection: Redis) -> None:
    wait_for_job(enqueue_background_job('tests.support.tasks.fail').id, 60)
    eventually(lambda: has_worker(connection))  # again, with its next heartbeat
    report = Report()
    assert report.marks('1 job among the dead letters', 'flask jobs list --status failed') == '·'
    assert report.code == 0


# Tasks


def test_a_module_that_does_not_import_tells_its_own_cause(
    settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use_modules(
        settings,
        tmp_path,
        good='def task(a: int) -> int: return a',
        broken='1 / 0',
        typo='import no_such_library',
        leaves='raise SystemExit(3)',
        deep__in____init__='',
        deep__in__inner='import no_such_thing_either',
    )
    report = Report()
    assert report.marks('clinic.good has 1 task.') == '✓'
    assert report.marks('clinic.broken', 'ZeroDivisionError') == '✗'
    assert report.marks('clinic.typo', "'no_such_library'") == '✗'
    assert report.marks('clinic.leaves', 'SystemExit') == '✗'
    assert report.marks('clinic.deep.inner', "'no_such_thing_either'") == '✗'
    assert report.code == 1


def test_a_function_that_cannot_be_a_task_tells_why(
    settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = (
        'def collides(job_name: str) -> None: ...\n'
        'def yields():\n    yield 1\n'
        'def strange(x: "NoSuchType") -> None: ...\n'
        'def _private(job_name): ...\n'
    )
    use_modules(settings, tmp_path, odd=source, __main__='raise RuntimeError("it ran")')
    report = Report()
    assert report.marks('clinic.odd.collides', 'rename the parameter') == '!'
    assert report.marks('clinic.odd.yields', 'generator') == '!'
    assert report.marks('clinic.odd.strange', 'NoSuchType') == '!'
    assert report.marks('_private') == ''
    assert report.marks('it ran') == ''


def test_a_task_module_that_there_is_not(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_TASK_MODULES', 'workers,no_such_module')
    environment_config.cache_clear()
    assert Report().marks("no module 'no_such_module'", 'JOB_TASK_MODULES') == '✗'


def test_a_name_whose_path_is_no_task_is_an_error() -> None:
    app = Flask('named')
    queue = JobQueue(app)
    queue.add('draw', 'workers.svg_tasks.generate_complex_svg')
    queue.add('gone', 'workers.svg_tasks.nope')
    result = app.test_cli_runner().invoke(args=['jobs', 'doctor'])
    [line] = [line for line in result.output.splitlines() if 'can be enqueued' in line]
    assert line.startswith("✗ No call of 'gone' can be enqueued: 'workers.svg_tasks.nope' names no")


@pytest.mark.parametrize(
    ('name', 'says'),
    [
        ('JOBS_TOKEN', 'Did you mean JOBS_API_TOKEN?'),
        ('JOB_QUEUE', 'Did you mean JOB_QUEUES?'),
        ('JOB_SHUTDOWN_GRCE', 'Did you mean JOB_SHUTDOWN_GRACE?'),
        ('JOBS_BOARD_TITLE', ''),  # of another program
    ],
)
def test_a_misspelt_variable_is_a_warning(
    settings: pytest.MonkeyPatch, name: str, says: str
) -> None:
    settings.setenv(name, 'hush-hush')
    report = Report()
    assert report.marks(name, says) == ('!' if says else '')
    assert 'hush-hush' not in report.text


@pytest.mark.slow
def test_a_bad_setting_is_one_line() -> None:
    flask = str(Path(sys.executable).with_name('flask'))
    result = subprocess.run(
        [flask, 'jobs', 'doctor'],
        cwd=ROOT,
        env=os.environ | {'JOB_LEASE': 'soon'},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert (result.returncode, result.stdout) == (1, '')
    assert re.fullmatch(r"Error: JOB_LEASE must be .*, not 'soon'\.\n", result.stderr)


# Remedies, and JSON


def examine(*options: str) -> dict[str, Any]:
    """What `doctor --json` finds in a process of its own."""
    done = paste(f'flask {" ".join(options)} jobs doctor --json')
    assert done.stderr == ''
    document: dict[str, Any] = json.loads(done.stdout)
    assert document['ok'] == (done.returncode == 0)
    return document


def remedy_for(document: dict[str, Any], words: str) -> str:
    [found] = [finding for finding in document['findings'] if words in finding['text']]
    assert found['remedy'] is not None
    return str(found['remedy'])


@pytest.mark.slow
def test_each_remedy_works_when_it_is_pasted_for_an_application_that_is_named() -> None:
    with create_shop().app_context():
        enqueue_background_job('tests.support.tasks.fail', job_id='broken')
        job = enqueue_background_job('tests.support.tasks.app_name')
        pause_workers()
        document = examine('--app', SHOP)
        assert document['ok'] is False
        assert paste(remedy_for(document, 'are suspended')).returncode == 0
        start = remedy_for(document, 'No worker is alive on fast, slow')
        assert start == f'flask --app {SHOP} jobs worker'
        environment = os.environ | {'PATH': f'{BIN}{os.pathsep}{os.environ["PATH"]}'}
        worker = subprocess.Popen(
            ['sh', '-c', start], cwd=ROOT, env=environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            assert wait_for_job(job.id, 60)['result'] == 'shop'  # it runs in the application
            wait_for_job('broken', 60)
            shown = paste(remedy_for(examine('--app', SHOP), 'among the dead letters'))
        finally:
            kill(worker)
        assert shown.returncode == 0
        assert 'broken  failed' in shown.stdout


CLI = """#!{python}
import sys
from flask import Flask
from redis import Redis
*where, command, subcommand, name, value = sys.argv[1:]
options = dict(zip(where[::2], where[1::2]))
host, port, path = options.get('-h', ''), int(options.get('-p', 0)), options.get('-s')
with Redis(host, port, unix_socket_path=path) as connection:
    print(connection.execute_command(command, subcommand, name, value))
"""


@pytest.mark.slow
def test_the_settings_of_the_server_are_set_by_its_own_client(
    configure: Callable[[str, str], None], connection: Redis, tmp_path: Path
) -> None:
    client = tmp_path / 'valkey-cli'
    client.write_text(CLI.format(python=sys.executable))
    client.chmod(0o755)
    configure('appendonly', 'no')
    configure('maxmemory-policy', 'allkeys-lru')
    report = Report()
    for words in ('append-only', 'maxmemory-policy is'):
        done = paste(report.remedy(words), tmp_path)
        assert done.returncode == 0, done.stderr
    assert connection.config_get('appendonly')['appendonly'] == 'yes'
    assert connection.config_get('maxmemory-policy')['maxmemory-policy'] == 'noeviction'


@pytest.mark.parametrize(
    ('url', 'client', 'rq'),
    [
        ('redis://:hush@a:1/2', '-h a -p 1 --askpass', 'rq info'),
        ('rediss://anna:hush@a/2', '-h a -p 6379 --tls --user anna --askpass', 'rq info'),
        ('redis://a/2?password=hush', '-h a -p 6379 --askpass', 'rq info'),
        ('redis://a:1/2', '-h a -p 1', 'rq info --url redis://a:1/2'),
        ('unix:///a/b', '-s /a/b', 'rq info --url unix:///a/b'),
    ],
)
def test_a_remedy_has_the_address_and_not_the_password(
    settings: pytest.MonkeyPatch, url: str, client: str, rq: str
) -> None:
    use_redis(settings, url)
    config = environment_config()
    command = set_in_server(config, 'Valkey', 'appendonly', 'yes')
    assert command == f'valkey-cli {client} config set appendonly yes'
    assert clean_up(config) == rq


# What it costs, and that it only looks


def test_it_changes_nothing(connection: Redis, dump: Callable[[], dict[bytes, Any]]) -> None:
    fill(connection, 5)
    connection.zadd('rq:finished:default', {'gone': 1})
    connection.zadd('rq:leases', {'lost:execution': 1})
    connection.sadd('rq:workers', 'rq:worker:gone')
    before = dump()
    assert Report().code == 1
    assert dump() == before


@pytest.mark.slow
@pytest.mark.parametrize('jobs', [3_000, pytest.param(50_000, marks=pytest.mark.slow)])
def test_it_costs_the_same_however_many_jobs_there_are(connection: Redis, jobs: int) -> None:
    Report()  # from now on the server knows the script
    fill(connection, 1_500)
    some = commands(connection, Report)
    fill(connection, jobs)
    many = commands(connection, Report)
    assert many == some
    assert (many['evalsha'], many['info']) == (1, 1)


def test_text_from_redis_does_not_steer_the_terminal(connection: Redis) -> None:
    fields: Any = {'birth': LONG_AGO, 'hostname': 'a\x1b[2J\nb', 'queues': 'low'}
    connection.hset('rq:worker:\x1b]0;x', mapping=fields)
    connection.sadd('rq:workers', 'rq:worker:\x1b]0;x')
    report = Report()
    assert report.marks('stock worker') == '!'
    assert '\x1b' not in report.text


@pytest.mark.parametrize('door', DOORS)
def test_a_door_without_a_key_is_closed_and_that_is_told(
    settings: pytest.MonkeyPatch, door: str
) -> None:
    assert Report().marks(f'There is no {door}', *DOORS[door]) == '·'
    for name in DOORS[door]:
        settings.setenv(name, 'a-key')
    environment_config.cache_clear()
    assert f'There is no {door}' not in Report().text


# An application's own checks


def examined(check: Callable[[], Any], queue: str | None = None) -> list[str]:
    """What the doctor says last, of an application with one check."""
    app = Flask('checked')
    JobQueue(app).doctor_check(queue=queue)(check)
    result = app.test_cli_runner().invoke(args=['jobs', 'doctor'])
    lines: list[str] = result.output.splitlines()
    return lines[[line.startswith('· There is no /metrics') for line in lines].index(True) + 1 :]


def test_a_check_of_the_application_finds_what_is_wrong() -> None:
    def check() -> Iterator[str]:
        """The printer has paper.

        More of that.
        """
        yield 'There is no paper: fill it.'
        yield 'And no ink.'

    assert examined(check) == ['✗ There is no paper: fill it.', '✗ And no ink.']


def test_a_check_that_finds_nothing_says_what_is_so() -> None:
    def check() -> list[str]:
        """The printer has paper."""
        return []

    assert examined(check) == ['✓ The printer has paper.']


def test_a_check_that_fails_is_an_error_and_stops_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def check() -> list[str]:
        """The printer has paper."""
        raise RuntimeError('on fire')

    assert examined(check) == ['✗ Not checked, since RuntimeError: The printer has paper.']
    assert 'on fire' in caplog.text


def test_what_a_check_has_found_before_it_fails_is_kept() -> None:
    def check() -> Iterator[str]:
        """The printer has paper."""
        yield 'There is no paper.'
        raise RuntimeError

    assert examined(check) == [
        '✗ There is no paper.',
        '✗ Not checked, since RuntimeError: The printer has paper.',
    ]


@pytest.mark.parametrize(
    ('found', 'said'),
    [
        ('There is no paper.', ['✗ There is no paper.']),
        (None, ['✓ The printer has paper.']),
        (iter([7, 'No ink.']), ['✗ 7', '✗ No ink.']),
        (True, ['✗ Not checked, since TypeError: The printer has paper.']),
    ],
)
def test_a_check_may_return_one_text_or_nothing(found: Any, said: list[str]) -> None:
    def check() -> Any:
        """The printer has paper."""
        return found

    assert examined(check) == said


def test_a_check_that_exits_does_not_end_the_doctor() -> None:
    def check() -> list[str]:
        """The printer has paper."""
        sys.exit(7)

    assert examined(check) == ['✗ Not checked, since SystemExit: The printer has paper.']


class Callme:
    __doc__ = None

    def __call__(self) -> list[str]:
        return []


def blank() -> list[str]:
    """ """
    return []


def dot() -> list[str]:
    """."""
    return []


@pytest.mark.parametrize(
    ('check', 'title'),
    [
        (Callme(), 'Callme'),
        (blank, 'blank'),
        (dot, 'dot'),
        (partial(blank), 'blank'),
    ],
)
def test_a_check_without_words_has_the_name_of_its_function(
    check: Callable[[], list[str]], title: str
) -> None:
    assert examined(check) == [f'✓ {title}.']


def test_a_check_that_is_decorated_without_parentheses_is_an_error() -> None:
    queue: Any = JobQueue()
    with pytest.raises(TypeError, match=r'Write @queue\.doctor_check\(\)'):
        queue.doctor_check(blank)


def test_a_check_that_needs_a_worker_is_not_made_without_one(
    connection: Redis, settings: pytest.MonkeyPatch
) -> None:
    def check() -> list[str]:
        """The printer has paper."""
        return ['It was made.']

    assert examined(check, 'low') == [
        '· Not checked, since no worker is alive on low: The printer has paper.'
    ]
    fields: Any = {'birth': LONG_AGO, 'queues': 'low'}
    connection.hset('rq:worker:a', mapping=fields)
    connection.sadd('rq:workers', 'rq:worker:a')
    assert examined(check, 'low') == ['✗ It was made.']
    use_redis(settings, f'redis://127.0.0.1:{free_port()}/0')
    assert examined(check, 'low') == []
