"""Tasks in the file that was started: the name that a worker has for them, and who allows them."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import click
import pytest
from flask import Flask

from qdjobs import JobQueue, UnknownTaskError, enqueue_background_job, get_job_status
from qdjobs.client.catalogue import read_task_modules
from qdjobs.client.scripts import script_module
from qdjobs.config import environment_config, get_config
from qdjobs.testing import eager_jobs, recorded_jobs

SOURCE = """
from flask import Flask
from qdjobs import JobQueue

app = Flask(__name__)
queue = JobQueue(app)

@queue.task('double')
def double(number):
    return 2 * number
"""

Start = Callable[..., ModuleType]


@pytest.fixture
def start(settings: pytest.MonkeyPatch, tmp_path: Path) -> Start:
    """Run a source as `python <file>` does, without JOB_TASK_MODULES."""
    settings.delenv('JOB_TASK_MODULES')
    environment_config.cache_clear()

    def run(file: str = 'job_queue.py', source: str = SOURCE) -> ModuleType:
        script = ModuleType('__main__')
        script.__file__ = str(tmp_path / file)
        settings.setitem(sys.modules, '__main__', script)
        exec(source, vars(script))
        return script

    return run


def test_a_task_of_the_script_has_the_path_that_a_worker_can_import(start: Start) -> None:
    script = start()
    with script.app.app_context():
        jobs = [
            script.queue.enqueue('double', 4).id,
            script.queue.enqueue(script.double, number=4).id,
            enqueue_background_job(script.double, 4).id,
            enqueue_background_job('job_queue.double', 4).id,
        ]
    jobs.append(script.queue.enqueue('double', 4).id)  # as from a thread
    assert {get_job_status(job)['task'] for job in jobs} == {'job_queue.double'}
    assert 'job_queue' not in sys.modules  # or there would be a second queue
    assert get_config().variables['JOB_TASK_MODULES'] == 'workers,job_queue'


def test_a_script_runs_its_own_jobs_without_a_worker(start: Start) -> None:
    script = start()
    with eager_jobs():
        assert script.queue.enqueue('double', number=4).result == 8
    with script.app.app_context(), recorded_jobs() as jobs:
        script.queue.enqueue('double', number=4)
        jobs.assert_enqueued('job_queue.double', number=4)


def test_tasks_can_be_named_before_there_is_an_application(start: Start) -> None:
    source = SOURCE.replace('queue = JobQueue(app)', 'queue = JobQueue()')
    script = start(source=f'{source}\nqueue.init_app(app)\n')
    assert script.queue.enqueue('double', 4).status == 'queued'


def test_a_list_of_modules_that_is_set_is_the_only_one(
    start: Start, settings: pytest.MonkeyPatch
) -> None:
    settings.setenv('JOB_TASK_MODULES', 'workers')
    environment_config.cache_clear()
    said = (
        'JOB_TASK_MODULES is set, so it must list this file too: JOB_TASK_MODULES=workers,job_queue'
    )
    with pytest.raises(
        UnknownTaskError, match=rf"'job_queue\.double' is outside the allowed.*{said}$"
    ):
        start()
    # On a command line it is one line, which `flask` shows without a traceback.
    with click.Context(click.Command('worker')), pytest.raises(click.ClickException, match=said):
        start()


WITH_VIEWS = f"""{SOURCE}
@queue.task('halve')
def halve(number):
    return number // 2

@app.get('/<job_id>')
def show(job_id): ...

@app.get('/')
def home(): ...
"""


@pytest.mark.parametrize('modules', [None, 'job_queue'])
def test_the_views_of_one_file_are_no_tasks_unless_the_file_is_listed(
    start: Start, settings: pytest.MonkeyPatch, modules: str | None
) -> None:
    if modules is not None:
        settings.setenv('JOB_TASK_MODULES', modules)
    script = start(source=WITH_VIEWS)
    with script.app.app_context():
        *_, module = read_task_modules()
    found = [task.path.removeprefix('job_queue.') for task in module.tasks]
    assert found == ['double', 'halve', *(['home'] if modules else [])]
    assert [str(error)[:14] for error in module.refused] == (['job_queue.show'] if modules else [])


def test_a_task_elsewhere_is_not_allowed_by_its_name(start: Start) -> None:
    start()
    with pytest.raises(UnknownTaskError, match='add its module to JOB_TASK_MODULES'):
        JobQueue(Flask('an-app')).add('add', 'tests.support.tasks.add')


@pytest.mark.usefixtures('start')
def test_a_package_is_not_allowed_as_a_whole() -> None:
    queue = JobQueue(Flask('tests.support'))
    with pytest.raises(UnknownTaskError, match='add its module to JOB_TASK_MODULES'):
        queue.add('missing', 'tests.support.missing_task')


def test_a_file_of_a_package_has_its_name_there(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / 'shop' / 'inner'
    folder.mkdir(parents=True)
    for each in (folder, folder.parent):
        (each / '__init__.py').touch()
    start(f'{folder}/queue.py', '')
    assert script_module() == 'shop.inner.queue'


@pytest.mark.parametrize('file', ['job-queue.py', 'job_queue', '../bin/flask', '<stdin>'])
def test_a_script_that_no_worker_can_import_is_refused_with_what_to_do(
    start: Start, file: str
) -> None:
    with pytest.raises(UnknownTaskError, match=r'put it into a file such as job_queue\.py'):
        start(file)


def test_a_function_without_a_name_in_the_file_is_to_have_one(start: Start) -> None:
    script = start(source=SOURCE.replace("@queue.task('double')", ''))
    with pytest.raises(UnknownTaskError, match=r"put @queue\.task\('…'\) above it"):
        enqueue_background_job(script.double, 4)


@pytest.mark.usefixtures('start')
def test_a_file_that_no_worker_can_import_is_to_be_renamed(
    settings: pytest.MonkeyPatch,
) -> None:
    module = ModuleType('my-queue')  # as `flask --app my-queue` imports it
    settings.setitem(sys.modules, 'my-queue', module)
    with pytest.raises(UnknownTaskError, match=r"double is defined in 'my-queue'.*rename the file"):
        exec(SOURCE, vars(module))


def test_a_script_that_is_imported_a_second_time_says_so(
    start: Start, settings: pytest.MonkeyPatch
) -> None:
    script = start()
    module = ModuleType('job_queue')  # as a module does that the script imports
    settings.setitem(sys.modules, 'job_queue', module)
    exec(SOURCE.replace('double', 'hello'), vars(module))
    said = r"imported a second time, as 'job_queue'.*`flask --app job_queue run`, or put the queue"
    with pytest.raises(UnknownTaskError, match=f'there is hello.*{said}'):
        module.queue.enqueue('double', 4)
    with pytest.raises(UnknownTaskError, match=said):
        module.queue.enqueue(module.hello, 4)
    with script.app.app_context(), pytest.raises(UnknownTaskError, match=said):
        enqueue_background_job(module.hello, 4)
