"""`flask jobs` where the package is installed: without an application, and with any."""

import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from qdjobs import enqueue_background_job
from tests.support.apps import create_shop
from tests.support.processes import ROOT
from tests.support.shell import FLASK

pytestmark = pytest.mark.slow  # a process for each command

SHOP, OWN = 'tests.support.apps:create_shop', 'tests.support.apps:create_with_own_jobs'


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH in which Python finds the entry points of pyproject.toml."""
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    about = tmp_path / 'site' / 'qdjobs-0.dist-info'
    about.mkdir(parents=True)
    (about / 'METADATA').write_text('Metadata-Version: 2.1\nName: qdjobs\nVersion: 0\n')
    lines = []
    for group, points in project['entry-points'].items():
        lines += [f'[{group}]', *(f'{name} = {target}' for name, target in points.items())]
    (about / 'entry_points.txt').write_text('\n'.join(lines))
    return about.parent


@pytest.fixture
def nowhere(tmp_path: Path) -> Path:
    folder = tmp_path / 'nowhere'
    folder.mkdir()
    return folder


def flask(
    installed: Path, folder: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(installed), str(ROOT)])
    return subprocess.run(
        [FLASK, *arguments],
        cwd=folder,
        env=os.environ | {'PYTHONPATH': path} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize('arguments', [(), ('list',), ('--help',), ('enqueue', 'x', '--json')])
def test_without_an_application_one_sentence_says_what_to_do(
    installed: Path, nowhere: Path, arguments: tuple[str, ...]
) -> None:
    done = flask(installed, nowhere, 'jobs', *arguments)
    assert (done.returncode, done.stdout) == (1, '')
    assert done.stderr == (
        "Error: There is no application here. Change into your project's folder, or name the "
        'application: flask --app MODULE jobs …\n'
    )


def test_the_application_of_the_worker_is_the_one_that_it_names(
    installed: Path, nowhere: Path
) -> None:
    done = flask(installed, nowhere, 'jobs', 'list', JOB_APP=SHOP)
    assert f'name the application: flask --app {SHOP} jobs …' in done.stderr
    assert flask(installed, nowhere, '--app', SHOP, 'jobs', 'list').returncode == 0


@pytest.mark.parametrize(
    ('app', 'says'),
    [
        ('no_such_module', "Could not import 'no_such_module'"),
        ('tests.support.tasks', 'Failed to find Flask application or factory'),
        (
            'tests.support.apps:plain_app',
            "'ready-made' has no background jobs: it needs a JobQueue",
        ),
    ],
)
def test_an_application_that_cannot_be_used_is_one_sentence(
    installed: Path, nowhere: Path, app: str, says: str
) -> None:
    done = flask(installed, nowhere, '--app', app, 'jobs', 'list')
    assert (done.returncode, done.stdout) == (1, '')
    [line] = done.stderr.splitlines()
    assert says in line


def test_a_wrong_declaration_is_one_line_that_says_where_it_is(
    installed: Path, nowhere: Path
) -> None:
    (nowhere / 'app.py').write_text(
        "from qdjobs import JobQueue\n\n@JobQueue().task('t', cron='0 3 * *')\ndef t(): pass\n"
    )
    done = flask(installed, nowhere, 'jobs', 'worker')
    assert (done.returncode, done.stdout) == (1, '')
    [line] = done.stderr.splitlines()
    assert line.startswith('Error: cron must be a line of five fields')
    assert line.endswith(f"not '0 3 * *'. ({nowhere / 'app.py'}, line 3)")


def test_with_an_application_its_own_command_runs_in_its_context(
    installed: Path, nowhere: Path
) -> None:
    with create_shop().app_context():
        job_id = enqueue_background_job('tests.support.tasks.add', 1).id
    done = flask(installed, nowhere, '--app', SHOP, 'jobs', 'list')
    assert (done.returncode, done.stderr) == (0, '')
    assert job_id in done.stdout
    wrong = flask(installed, nowhere, '--app', SHOP, 'jobs', 'list', '--queue', 'default')
    assert wrong.returncode == 2
    assert "'default' is not one of fast, slow" in wrong.stderr


def test_an_application_keeps_a_command_of_that_name(installed: Path, nowhere: Path) -> None:
    done = flask(installed, nowhere, '--app', OWN, 'jobs', 'done')
    assert (done.returncode, done.stdout) == (0, 'own done\n')
    found = flask(installed, nowhere, '--app', OWN, 'qdjobs', 'doctor')
    assert f'    flask --app {OWN} qdjobs worker\n' in found.stdout
    commands = flask(installed, nowhere, '--app', OWN, '--help').stdout
    assert '  jobs    Our own jobs.\n' in commands
    assert '  qdjobs  Enqueue, inspect' in commands


def test_the_list_of_commands_has_it_in_any_case(installed: Path, nowhere: Path) -> None:
    for options in ((), ('--app', 'no_such_module'), ('--app', 'tests.support.apps:create_broken')):
        done = flask(installed, nowhere, *options, '--help')
        assert done.returncode == 0
        assert '  jobs    Enqueue, inspect and control' in done.stdout
