"""Run RQ's own tests of its worker with JobWorker in its place, and check which of them fail.

The tests are those of the source release of the installed version. `expected.toml` lists the tests
that must fail, with the reason. It is an error if another test fails, or if a listed one passes.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

from qdjobs.server import embedded_redis, free_port

ROOT = Path(__file__).parent.parent.parent
CACHE = ROOT / '.venv' / 'upstream'
RELEASE = f'rq-{version("rq")}'
SHA256 = 'b41e39b3c36ec3faf9e2402c638a0b25fe18ebb93a1cb15193bc69694f054618'  # of rq-3.0.0.tar.gz

# The files with tests that run a worker, and what they import. Workers import the whole package.
FILES = (
    '__init__', 'fixtures', 'test_callbacks', 'test_cli', 'test_commands', 'test_dependencies',
    'test_executions', 'test_group', 'test_intermediate_queue', 'test_job', 'test_job_dependency',
    'test_queue', 'test_rate_limit', 'test_registry', 'test_repeat', 'test_results', 'test_retry',
    'test_scheduler', 'test_timeouts', 'test_webhooks', 'test_worker', 'test_worker_pool',
    'test_worker_registration',
)  # fmt: skip
DATA = ('config_files/', 'cron_config.py', 'test.json')  # of test_cli

ENVIRONMENT = {
    'RUN_SLOW_TESTS_TOO': '1',
    'JOB_TASK_MODULES': 'tests,rq',
    'JOB_UNKNOWN_TASK_GRACE': '1',
    'JOB_IDLE_WAIT': '0.2',
    'JOB_DUE_INTERVAL': '0.05',
    'JOB_HEARTBEAT_INTERVAL': '0.5',
    'JOB_TIDY_INTERVAL': '0.5',
}
TEST_TIMEOUT = 40  # seconds; the longest test that passes takes 21


def main() -> int:
    """Run the tests. Returns 0 if those of the list fail, and no other."""
    with tempfile.TemporaryDirectory(prefix='rq-tests-') as scratch:
        folder = Path(scratch)
        _extract(_download(), folder)
        outcomes = _run(folder)
    failed = {test for test, outcome in outcomes.items() if outcome == 'failed'}
    expected = _read_list('differences')
    for test in sorted(failed - expected.keys()):
        print(f'fails, but is not in expected.toml: {test}')  # noqa: T201
    for test in sorted(expected.keys() - failed):
        state = outcomes.get(test, 'does not exist')
        print(f'is in expected.toml, but does not fail ({state}): {test}')  # noqa: T201
    counts = Counter(outcomes.values())
    print(f'{RELEASE}: {", ".join(f"{counts[each]} {each}" for each in sorted(counts))}')  # noqa: T201
    return int(failed != expected.keys())


def _read_list(name: str) -> dict[str, str]:
    """Return the tests of one list in expected.toml, each with the reason."""
    listed = tomllib.loads(Path(__file__).with_name('expected.toml').read_text())
    return {test: each['reason'] for each in listed[name] for test in each['tests']}


def _download() -> Path:
    """Return the source release, from the cache or from PyPI. Raises if it is another file."""
    archive = CACHE / f'{RELEASE}.tar.gz'
    if not archive.exists():
        pip = [sys.executable, '-m', 'pip', 'download', '--quiet', '--disable-pip-version-check']
        # Without a build environment: what builds it is installed.
        source = ['--no-deps', '--no-binary', 'rq', '--no-build-isolation']
        subprocess.run([*pip, *source, '--dest', CACHE, RELEASE.replace('-', '==')], check=True)
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(f'{archive} has the SHA-256 {found}: is it a new version of RQ?')
    return archive


def _extract(archive: Path, folder: Path) -> None:
    prefix = f'{RELEASE}/tests/'
    wanted = tuple(f'{name}.py' for name in FILES) + DATA
    with tarfile.open(archive) as release:
        for member in release.getmembers():
            path = member.name.removeprefix(prefix)
            if member.name.startswith(prefix) and path.startswith(wanted):
                member.name = f'tests/{path}'
                release.extract(member, folder, filter='data')


def _run(folder: Path) -> dict[str, str]:
    """Return the outcome of each test: 'passed', 'failed' or 'skipped'."""
    report = folder / 'report.xml'
    port = free_port()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_CLEARED)}
    paths = (Path(__file__).with_name('site'), folder, ROOT)
    own = {
        'UPSTREAM_REDIS_PORT': str(port),
        'PYTHONPATH': os.pathsep.join(map(str, paths)),
        'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',
    }
    options = ['-p', 'sitecustomize', '-p', 'no:cacheprovider', '-c', os.devnull, '-W', 'ignore']
    options += [f'--rootdir={folder}', f'--timeout={TEST_TIMEOUT}', f'--junitxml={report}']
    for test in _read_list('not_run'):
        options += ['--deselect', f'tests/{"::".join(test.split(".")).replace("::", ".py::", 1)}']
    command = [sys.executable, '-m', 'pytest', '-q', '--tb=short', *options, 'tests']
    with embedded_redis(port):
        subprocess.run(command, cwd=folder, env=kept | ENVIRONMENT | own, check=False)
    outcomes = {}
    for case in ElementTree.parse(report).iter('testcase'):
        test = f'{case.attrib["classname"].removeprefix("tests.")}.{case.attrib["name"]}'
        kinds = {child.tag for child in case}
        failed = kinds & {'failure', 'error'}
        outcomes[test] = 'failed' if failed else 'skipped' if 'skipped' in kinds else 'passed'
    return outcomes


_CLEARED = ('RQ_', 'REDIS_', 'JOB_', 'JOBS_', 'PYTEST_')

if __name__ == '__main__':
    sys.exit(main())
