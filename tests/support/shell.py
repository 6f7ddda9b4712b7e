"""`flask jobs` in this process, in a process of its own, and on a terminal."""

import os
import pty
import subprocess
import sys
from pathlib import Path

from click.testing import Result

from app import create_app
from tests.support.applications import shared_app
from tests.support.processes import ROOT

FLASK = str(Path(sys.executable).with_name('flask'))


def run(*arguments: str) -> Result:
    """What a command of the application in this repository does with the settings of the test."""
    result = shared_app(create_app).test_cli_runner().invoke(args=['jobs', *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def flask(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FLASK, 'jobs', *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def refused(result: Result, *words: str) -> None:
    """One line on stderr, and exit code 1."""
    assert (result.exit_code, result.stdout) == (1, '')
    [line] = result.stderr.splitlines()
    assert line.startswith('Error: ')
    for word in words:
        assert word in line


class Terminal:
    """A command on a terminal."""

    def __init__(self, *arguments: str, columns: int = 60) -> None:
        self.output = ''
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(ROOT)
            os.execve(FLASK, [FLASK, 'jobs', *arguments], os.environ | {'COLUMNS': str(columns)})

    def read(self) -> bool:
        """Take what there is; False once it has ended."""
        try:
            self.output += os.read(self._fd, 65536).decode(errors='replace')
        except OSError:
            return False
        return True

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def finish(self) -> int:
        """Its exit code."""
        while self.read():
            continue
        os.close(self._fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
