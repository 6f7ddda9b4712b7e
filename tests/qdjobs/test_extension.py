"""Named tasks: what a name may stand for, and what is refused."""

import pkgutil
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest
from flask import Flask
from redis import Redis

import workers
from components.task_names import name_tasks
from libraries.job_manager import get_job_status, list_jobs
from qdjobs.client.tasks import public_functions
from qdjobs.config import environment_config
from qdjobs.errors import InvalidJobError, JobError, UnknownTaskError
from qdjobs.extension import JobQueue, QueuedJob
from qdjobs.web.problems import answer_job_errors
from tests.support import tasks
from tests.support.applications import use_redis
from tests.support.processes import ROOT, eventually
from tests.support.shared_worker import SharedWorker


@pytest.fixture
def queue() -> JobQueue:
    queue = JobQueue(Flask('an-app'))
    queue.add('add', 'tests.support.tasks.add')
    queue.add('echo', 'tests.support.tasks.echo', job_queue='high', job_max_retries=3)
    return queue


@pytest.fixture
def module(settings: pytest.MonkeyPatch) -> ModuleType:
    """An importable module of an allowed name, in which a test may define tasks."""
    made = ModuleType('workers.of_a_test')
    settings.setitem(sys.modules, made.__name__, made)
    return made


# Names


def test_a_decorated_function_stays_what_it_is(module: ModuleType) -> None:
    module.queue = queue = JobQueue()  # type: ignore[attr-defined]
    source = '\n'.join(
        (
            'def double(number: int) -> int: return 2 * number',
            "same = queue.task('double', job_max_retries=3)(double) is double",
        )
    )
    exec(source, vars(module))
    assert module.same
    assert module.double(4) == 8
    named = queue.find('double')
    assert (named.path, named.options) == ('workers.of_a_test.double', {'job_max_retries': 3})
    job = queue.enqueue('double', number=4)
    assert get_job_status(job.id)['task'] == 'workers.of_a_test.double'


def test_a_job_of_a_name_is_done_by_a_real_worker(
    queue: JobQueue, shared_worker: SharedWorker
) -> None:
    with shared_worker.held():
        good = queue.enqueue('add', 2, b=3)
        queue.add('fail', 'tests.support.tasks.fail')
        bad = queue.enqueue('fail', message='too wide')
        assert (good.status, good.result, good.error) == ('queued', None, None)
    eventually(lambda: (good.status, bad.status) == ('finished', 'failed'))
    assert (good.result, good.error) == (5, None)
    assert (bad.result, bad.error) == (None, 'ValueError: too wide')


def test_the_options_of_a_call_go_before_those_of_the_name(queue: JobQueue) -> None:
    plain = queue.enqueue('echo', queue='mine', task='too', self=1)
    low = queue.enqueue('echo', job_queue='low')
    later = queue.using(job_queue='default', job_delay='5m').enqueue('echo', job_queue='low')
    jobs = {job['id']: (job['queue'], job['status']) for job in list_jobs()}
    assert jobs == {
        plain.id: ('high', 'queued'),
        low.id: ('low', 'queued'),
        later.id: ('low', 'scheduled'),
    }
    assert queue.using(job_delay='5m').using(job_id='mine').enqueue('add', 1).status == 'scheduled'
    assert QueuedJob('mine').status == 'scheduled'
    assert queue.enqueue('add', 1).status == 'queued'


def test_a_registered_function_is_as_good_as_its_name(queue: JobQueue) -> None:
    job = queue.using(job_max_retries=2).enqueue(tasks.add, 1, b=2)
    assert get_job_status(job.id)['task'] == 'tests.support.tasks.add'
    with pytest.raises(UnknownTaskError, match=r'tests\.support\.tasks\.sleep has no name here'):
        queue.enqueue(tasks.sleep, seconds=1.0)


def test_a_name_is_taken_once_but_a_module_may_be_loaded_again(queue: JobQueue) -> None:
    queue.add('add', 'tests.support.tasks.add', job_timeout='1h')
    assert queue.find('add').options == {'job_timeout': '1h'}
    with pytest.raises(InvalidJobError, match=r"'add' is that of tests\.support\.tasks\.add"):
        queue.add('add', 'tests.support.tasks.echo')


def test_an_unknown_name_is_told_with_its_neighbours(queue: JobQueue) -> None:
    queue.add('send_email', 'tests.support.tasks.echo')
    with pytest.raises(UnknownTaskError, match=r"'send_mail': there is send_email\."):
        queue.enqueue('send_mail', to='somebody')
    with pytest.raises(UnknownTaskError, match=r'by its dotted path, and there is add\.$'):
        queue.enqueue('tests.support.tasks.add', 1)
    with pytest.raises(UnknownTaskError, match=r'none yet\.$'):
        JobQueue().enqueue('add', 1)
    with pytest.raises(UnknownTaskError, match='enqueue_background_job takes paths'):
        JobQueue().enqueue('tests.support.tasks.add', 1)
    assert list_jobs() == []


def test_a_name_that_a_client_has_chosen_is_the_client_s_mistake(queue: JobQueue) -> None:
    app = Flask('names')
    app.add_url_rule('/<name>', 'name', lambda name: queue.enqueue(name, 1).id)
    app.add_url_rule('/function', 'function', lambda: queue.enqueue(tasks.sleep, 1).id)
    answer_job_errors(app)
    answer = app.test_client().get('/ad')
    assert answer.status_code == 400
    assert "No task is named 'ad': there is add" in answer.get_json()['detail']
    assert app.test_client().get('/function').status_code == 500


@pytest.mark.parametrize('name', ['', 'a.b', 'a b', 'ä', 'a' * 101, 'a/b', 'a\n', None, tasks.add])
def test_a_name_is_no_path_and_no_function(queue: JobQueue, name: Any) -> None:
    for register in (queue.task, lambda name: queue.add(name, 'tests.support.tasks.add')):
        with pytest.raises(InvalidJobError, match='letters, digits'):
            register(name)


@pytest.mark.parametrize(
    ('options', 'told'),
    [
        ({'job_priority': 1}, 'job_priority is no option of a job'),
        ({'retries': 1}, 'retries is no option of a job'),
        ({'job_queue': 'urgent'}, 'high, default, low'),
        ({'job_timeout': 'soon'}, 'job_timeout must be'),
        ({'job_max_retries': -1}, 'job_max_retries must be'),
        ({'job_id': 'a b'}, 'job_id must be'),
    ],
)
def test_a_bad_option_is_told_where_it_is_written(
    queue: JobQueue, options: dict[str, Any], told: str
) -> None:
    uses: list[Callable[[], object]] = [
        lambda: queue.add('late', 'tests.support.tasks.add', **options),
        lambda: queue.task('late', **options)(tasks.add),
        lambda: queue.using(**options),
    ]
    for use in uses:
        with pytest.raises(InvalidJobError, match=told):
            use()
    with pytest.raises(UnknownTaskError):
        queue.find('late')


def test_options_are_checked_before_any_setting_is_read(settings: pytest.MonkeyPatch) -> None:
    use_redis(settings, '!')
    queue = JobQueue()
    queue.task('add', job_queue='any', job_delay=timedelta(hours=1))(tasks.add)
    with pytest.raises(InvalidJobError):
        queue.task('echo', job_delay=-1)(tasks.echo)


# Functions that no worker would find

NOT_TASKS = {
    'nested': 'def outer():\n    def task(): ...\n    return task\ntask = outer()',
    'lambda': 'task = lambda: None',
    'private': 'def _task(): ...\ntask = _task',
    'method': 'class Holder:\n    def task(self): ...\ntask = Holder.task',
    'class': 'class task: ...',
    'callable': 'import functools\ntask = functools.partial(print)',
}


@pytest.mark.parametrize('kind', NOT_TASKS)
def test_a_function_that_no_worker_finds_is_refused(module: ModuleType, kind: str) -> None:
    exec(NOT_TASKS[kind], vars(module))
    with pytest.raises(UnknownTaskError, match=r'nested, nameless or private|is no function'):
        JobQueue().task('task')(module.task)


@pytest.mark.slow
def test_a_function_of_the_script_itself_is_refused() -> None:
    script = (
        'from qdjobs.extension import JobQueue\n'
        "@JobQueue().task('hello')\n"
        'def hello() -> None: ...\n'
    )
    run = subprocess.run([sys.executable, '-c', script], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert 'UnknownTaskError: hello is defined in the script that was started' in run.stderr


def test_a_module_that_is_not_allowed_is_refused_as_early_as_can_be(queue: JobQueue) -> None:
    # With an application, the settings have been read: at the definition.
    with pytest.raises(UnknownTaskError, match='add its module to JOB_TASK_MODULES'):
        queue.task('here')(test_a_module_that_is_not_allowed_is_refused_as_early_as_can_be)
    # Without, once there is one …
    early = JobQueue()
    early.add('system', 'os.system')
    with pytest.raises(UnknownTaskError, match='add its module to JOB_TASK_MODULES'):
        early.init_app(Flask('an-app'))
    # … or when it is enqueued.
    with pytest.raises(UnknownTaskError, match='add its module to JOB_TASK_MODULES'):
        early.enqueue('system', 'true')


def test_names_are_resolved_when_they_are_needed(queue: JobQueue) -> None:
    queue.add('later', 'workers.written_next_week.task')
    with pytest.raises(UnknownTaskError, match='no module'):
        queue.enqueue('later')


def test_every_task_of_workers_has_a_name(queue: JobQueue) -> None:
    name_tasks(queue)
    paths = {
        f'{module.name}.{name}'
        for module in pkgutil.iter_modules(workers.__path__, 'workers.')
        for name in public_functions(import_module(module.name))
    } - {'workers.check_tasks.exchange_files'}  # which is for the doctor, not for clients
    assert {queue.find(path.rpartition('.')[2]).path for path in paths} == paths
    job = queue.enqueue('generate_postcard_svg', 'Zoë', 'Hello', 'birthday')
    assert job.status == 'queued'


def test_what_is_not_allowed_has_no_name(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_TASK_MODULES', 'workers.svg_tasks')
    environment_config.cache_clear()
    queue = JobQueue(Flask('an-app'))
    name_tasks(queue)
    assert queue.find('generate_complex_svg')
    with pytest.raises(UnknownTaskError, match='send_email'):
        queue.find('send_email')


# Applications


def test_a_queue_is_an_extension_and_there_is_one() -> None:
    app = Flask('an-app')
    queue = JobQueue()
    queue.init_app(app)
    queue.init_app(Flask('another'))
    assert app.extensions['job_queue'] is queue
    with pytest.raises(RuntimeError, match='has a JobQueue'):
        JobQueue(app)


def test_without_a_token_the_api_says_what_to_set_and_hides_nothing_of_the_application() -> None:
    app = Flask('an-app')
    before = list(app.url_map.iter_rules())
    JobQueue(app, url_prefix='/jobs')
    assert list(app.url_map.iter_rules()) == before
    app.add_url_rule('/jobs/mine', view_func=lambda: ('Mine is not there.', 404))
    client = app.test_client()
    for method in ('GET', 'POST', 'DELETE', 'OPTIONS'):
        for path in ('/jobs', '/jobs/', '/jobs/7', '/jobs/7/retry'):
            answer = client.open(path, method=method)
            assert answer.status_code == 401
            assert 'set JOBS_API_TOKEN' in (answer.get_json(force=True)['detail'])
            assert answer.headers['WWW-Authenticate'].startswith('Bearer ')
    assert client.get('/jobs/mine').text == 'Mine is not there.'
    assert [client.get(path).status_code for path in ('/', '/jobsite')] == [404, 404]


def test_without_a_prefix_there_is_none_either(
    settings: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings.setenv('JOBS_API_TOKEN', 's3cret')
    environment_config.cache_clear()
    app = Flask('an-app')
    JobQueue(app, url_prefix=None)
    assert app.blueprints == {}
    assert caplog.records == []


@pytest.mark.parametrize('error', [InvalidJobError, UnknownTaskError])
def test_a_refused_call_leaves_nothing(
    queue: JobQueue, connection: Redis, error: type[JobError]
) -> None:
    call = ('add', 'one') if error is InvalidJobError else ('no_such_name', 1)
    with pytest.raises(error):
        queue.enqueue(*call)
    assert connection.dbsize() == 0
