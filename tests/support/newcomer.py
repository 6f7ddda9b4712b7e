"""Somebody who follows a document: types its commands, runs its Python, saves its files."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.documents import Block, blocks, commands

PATIENCE = 300  # seconds

# What runs until somebody ends it, and what it says once it is ready.
_SERVERS = {
    r'python -m qdjobs\.server\b': 'A Valkey listens',
    r'gunicorn\b': 'Listening at',
    r'flask .*\bjobs worker\b(?!.*--burst)': '*** Listening on',
    r'python -m examples\.up\b': '*** Listening on',
}
_PYTHON = Path(__file__).with_name('interpreter.py').read_text()


@dataclass
class Newcomer:
    """One folder, one environment, one Python, and as many terminals as there are servers."""

    folder: Path
    environment: Mapping[str, str]
    replaced: Mapping[str, str]  # in what is typed, such as ports, which are taken elsewhere
    logs: Path
    _servers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _python: subprocess.Popen[str] | None = None

    def follow(self, document: str) -> None:
        for block in blocks(document):
            if 'not run' not in block.notes:
                self.do(block)

    def do(self, block: Block) -> None:
        """Do what a block shows."""
        if 'run with' in block.notes:
            self.type(f'export {block.notes["run with"]}')
        if 'run beside' in block.notes:
            self.type(block.notes['run beside'])
        if block.kind == 'console':
            for command, output in commands(block.body):
                self.type(command, output, 'output not compared' not in block.notes)
        elif block.kind == 'sh':
            self.type(block.body)
        elif block.kind == 'diff':
            self.apply(block.body)
        elif block.kind == 'python' and block.file:
            path, content = block.file
            (self.folder / path).parent.mkdir(exist_ok=True)
            (self.folder / path).write_text(content)
        elif block.kind == 'python':
            self.run_python(block.body)

    def unfollow(self, document: str) -> None:
        """Undo the diffs and the files of a document that has been followed."""
        for block in reversed(blocks(document)):
            if block.kind == 'diff':
                self.apply(block.body, '--reverse')
            elif block.kind == 'python' and block.file:
                path = self.folder / block.file[0]
                path.unlink()
                with suppress(OSError):  # which others are in
                    path.parent.rmdir()

    def run_python(self, body: str) -> None:
        """Run a block as the next input of an interpreter, which checks the values it shows."""
        if self._python is None:
            self._python = subprocess.Popen(
                ['bash', '-c', f'{self._shell}exec {sys.executable} -c "$PROGRAM"'],
                cwd=self.folder,
                env=dict(self.environment) | {'PROGRAM': _PYTHON},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._python.stdin is not None
        assert self._python.stdout is not None
        self._python.stdin.write(json.dumps(self.translate(body)) + '\n')
        self._python.stdin.flush()
        error = json.loads(self._python.stdout.readline())
        assert error is None, f'{body}\n{error}'

    def translate(self, text: str) -> str:
        for old, new in self.replaced.items():
            text = text.replace(old, new)
        return text

    def apply(self, diff: str, *options: str) -> None:
        command = ['git', 'apply', *options, '-']
        # In no repository: git would look for the files at its root.
        environment = dict(self.environment) | {'GIT_CEILING_DIRECTORIES': str(self.folder.parent)}
        subprocess.run(
            command, cwd=self.folder, env=environment, input=diff.encode(), check=True, timeout=60
        )

    def type(self, command: str, output: str = '', is_compared: bool = True) -> None:
        """Run a command, and check that it writes what the document says; `…` is anything."""
        command = self.translate(command)
        for like, ready in _SERVERS.items():
            if re.match(like, command):
                return self.start(command, ready)
        done = self.run(f'{{ {command}\n}} 2>&1')  # as a terminal shows it
        if is_compared or '✗' not in output:
            # Of a job that failed, `flask jobs wait` says so with its exit code too.
            assert (done.returncode != 0) == ('failed' in output), (command, done.stdout)
        if not is_compared:
            return None
        expected = re.escape(output.rstrip()).replace('…', '.*') if output else '.*'
        assert re.fullmatch(expected, done.stdout.rstrip(), re.DOTALL), (output, done.stdout)
        return None

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """A command in the shell, which remembers what it exports."""
        return subprocess.run(
            ['bash', '-c', f'{self._shell}{command}\ncode=$?; {self._remember}; exit $code'],
            cwd=self.folder,
            env=dict(self.environment),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def start(self, command: str, ready: str) -> None:
        """A server in a terminal of its own; the one that it replaces is ended before."""
        self.stop(command)
        log = self.log(command)
        with log.open('wb') as output:
            self._servers[command] = process = subprocess.Popen(
                ['bash', '-c', f'{self._shell}exec {command}'],
                cwd=self.folder,
                env=dict(self.environment),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + PATIENCE
        while ready not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)

    def stop(self, command: str) -> None:
        if (process := self._servers.pop(command, None)) is not None:
            process.terminate()
            process.wait(PATIENCE)

    def log(self, command: str) -> Path:
        return self.logs / f'{re.sub(r"[^a-z]+", "-", command)}.log'

    def leave(self) -> None:
        """End Python and all servers, the youngest first."""
        if self._python is not None:
            self._python.communicate(timeout=PATIENCE)
        for command in reversed(list(self._servers)):
            self.stop(command)

    @property
    def _state(self) -> Path:
        return self.logs / 'state.sh'

    @property
    def _shell(self) -> str:
        return f'. {self._state}\n' if self._state.exists() else ''

    @property
    def _remember(self) -> str:
        return f'export -p > {self._state}'
