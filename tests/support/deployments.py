"""What the files of each deployment say, in the form in which tests compare and run it."""

import json
import re
import shlex
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.missing import report, require
from tests.support.processes import ROOT

COMPOSE = ROOT / 'deploy/compose.yaml'
KUBERNETES = ROOT / 'deploy/kubernetes'
SYSTEMD = ROOT / 'deploy/systemd'
INSTALLED = '/srv/plotter/.venv/bin/'  # where the units expect it


_ANALYZE = shutil.which('systemd-analyze')


def require_systemd_analyze() -> str:
    """Where the program is that checks units. Without it, the test is skipped, and fails in CI."""
    return require(_ANALYZE, 'There is no systemd-analyze: the units are not checked.')


def report_missing_systemd(reporter: pytest.TerminalReporter) -> None:
    """Say at the end of the session that the units have not been checked, if so."""
    title = 'NO SYSTEMD-ANALYZE, SO THE UNITS ARE NOT CHECKED'
    report(_ANALYZE, reporter, title, "Install Debian's `systemd` to check them; CI does.")


def procfile() -> dict[str, str]:
    """The shell's command of each process."""
    lines = (ROOT / 'Procfile').read_text().splitlines()
    return {name: command for name, _, command in (line.partition(': ') for line in lines)}


class Image:
    """What `docker build` makes of the Dockerfile, as far as it makes no difference to it."""

    def __init__(self) -> None:
        text = re.sub(r'\\\n\s*', ' ', (ROOT / 'Dockerfile').read_text())
        lines = [line.split(maxsplit=1) for line in text.splitlines() if line[:1].isupper()]
        self._lines = [(name, rest) for name, rest in lines]
        self.command: list[str] = json.loads(self._one('CMD'))
        self.health_check: list[str] = json.loads(self._one('HEALTHCHECK').partition('CMD ')[2])
        self.environment = dict(word.split('=', 1) for word in shlex.split(self._one('ENV')))

    def _one(self, name: str) -> str:
        [rest] = [rest for each, rest in self._lines if each == name]
        return rest

    def copy(self, folder: Path) -> None:
        """Copy the files of the image into a folder: those that .dockerignore lets through."""
        rules = (ROOT / '.dockerignore').read_text().splitlines()
        kept = [rule[1:] for rule in rules if rule.startswith('!')]
        for *sources, target in (rest.split() for name, rest in self._lines if name == 'COPY'):
            for source in sources:
                assert source in kept, f'.dockerignore leaves {source} out'
                if (ROOT / source).is_dir():
                    ignored = shutil.ignore_patterns('__pycache__')
                    shutil.copytree(ROOT / source, folder / target, ignore=ignored)
                else:
                    shutil.copy(ROOT / source, folder / target)


def compose() -> dict[str, Any]:
    """The services of compose.yaml."""
    services: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())['services']
    return services


def unit(name: str) -> dict[str, list[str]]:
    """The values of each key of a unit."""
    found: dict[str, list[str]] = {}
    for line in (SYSTEMD / name).read_text().splitlines():
        if '=' in line and not line.startswith('#'):
            key, _, value = line.partition('=')
            found.setdefault(key, []).append(value)
    return found


def unit_command(name: str) -> list[str]:
    """The command of a unit, without where it is installed."""
    [command] = unit(name)['ExecStart']
    assert command.startswith(INSTALLED)
    return command.removeprefix(INSTALLED).split()


def manifests() -> dict[tuple[str, str], dict[str, Any]]:
    """The resources for Kubernetes, by kind and name; the example of a secret too."""
    files = [file for file in KUBERNETES.iterdir() if fnmatch(file.name, '*.yaml*')]
    resources = [each for file in files for each in yaml.safe_load_all(file.read_text())]
    return {(each['kind'], each['metadata']['name']): each for each in resources}


def pod(name: str) -> dict[str, Any]:
    """The pod of a Deployment."""
    found: dict[str, Any] = manifests()['Deployment', name]['spec']['template']['spec']
    return found


def seconds(duration: str) -> int:
    """A duration of compose.yaml."""
    assert duration.endswith('s')
    return int(duration[:-1])
