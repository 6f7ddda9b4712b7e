"""Somebody who follows a document: types its commands, saves its files, applies its diffs."""

import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

PATIENCE = 300  # seconds

# What runs until somebody ends it, and what it says once it is ready.
_SERVERS = {
    r'python -m qdjobs\.server\b': 'A Valkey listens',
    r'gunicorn\b': 'Listening at',
    r'flask .*\bjobs worker\b': '*** Listening on',
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    kind: str
    body: str

    @property
    def file(self) -> tuple[str, str]:
        """The path that a block of Python names in its first line, and what is in that file."""
        first, _, content = self.body.partition('\n')
        return first.removeprefix('# '), content


def blocks(document: str) -> list[Block]:
    found = re.findall(r'^```(\w+)\n(.*?)^```$', document, re.DOTALL | re.MULTILINE)
    return [Block(kind, body) for kind, body in found]


def commands(body: str) -> Iterator[tuple[str, str]]:
    """The commands of a `console` block, each with what it is said to write."""
    for part in re.split(r'^\$ ', body, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition('\n')
        yield command, output


@dataclass
class Newcomer:
    """One folder, one environment, and as many terminals as there are servers."""

    folder: Path
    environment: Mapping[str, str]
    replaced: Mapping[str, str]  # in what is typed, such as ports, which are taken elsewhere
    logs: Path
    _servers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def follow(self, document: str) -> None:
        for block in blocks(document):
            if block.kind == 'console':
                for command, output in commands(block.body):
                    self.type(command, output)
            elif block.kind == 'diff':
                self.apply(block.body)
            elif block.kind == 'python':
                path, content = block.file
                (self.folder / path).parent.mkdir(exist_ok=True)
                (self.folder / path).write_text(content)

    def unfollow(self, document: str) -> None:
        """Undo the diffs and the files of a document that has been followed."""
        for block in reversed(blocks(document)):
            if block.kind == 'diff':
                self.apply(block.body, '--reverse')
            elif block.kind == 'python':
                path = self.folder / block.file[0]
                path.unlink()
                with suppress(OSError):  # which others are in
                    path.parent.rmdir()

    def apply(self, diff: str, *options: str) -> None:
        command = ['git', 'apply', *options, '-']
        # In no repository: git would look for the files at its root.
        environment = dict(self.environment) | {'GIT_CEILING_DIRECTORIES': str(self.folder.parent)}
        subprocess.run(
            command, cwd=self.folder, env=environment, input=diff.encode(), check=True, timeout=60
        )

    def type(self, command: str, output: str = '') -> None:
        """Run a command, and check that it writes what the document says; `…` is anything."""
        for old, new in self.replaced.items():
            command = command.replace(old, new)
        for like, ready in _SERVERS.items():
            if re.match(like, command):
                return self.start(command, ready)
        done = self.run(command)
        # Of a job that failed, `flask jobs wait` says so with its exit code too.
        assert (done.returncode != 0) == ('failed' in output), (command, done.stdout, done.stderr)
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
        """End all servers, the youngest first."""
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
