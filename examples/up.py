"""What `make up` runs: Procfile.dev, with the settings of .env, on ports that are free."""

import io
import os
import re
import reprlib
import secrets
import shlex
import sys
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

import click
from dotenv.parser import parse_stream

from qdjobs.server import HOST, is_taken

PORTS = {  # the variable, its default, and what listens there
    'REDIS_PORT': (6399, 'Valkey'),
    'WEB_PORT': (8000, 'the web application'),
    'MAIL_PORT': (8025, 'the mail server'),
}
DATA = 'var/redis'
# Whatever the shell and .env say: development writes to no customer, and to no other Redis.
OURS = ('REDIS_URL', 'RQ_REDIS_URL', 'SMTP_URL')
API = ('JOBS_API_TOKEN', 'JOBS_URL')  # what a client of the HTTP API needs


def read_env(file: Path) -> dict[str, str]:
    """Return the settings of the file; none without one. Raises ValueError, naming the line."""
    if not file.exists():
        return {}
    try:
        text = file.read_text('utf-8-sig')
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b'\n') + 1
        raise ValueError(f'{file}, line {line}, is not UTF-8: save the file as that.') from None
    except OSError as error:
        raise ValueError(f'{file} cannot be read as a file: {error.strerror}.') from None
    written = {}
    for binding in parse_stream(io.StringIO(text)):
        string, line = binding.original
        if binding.error or '\0' in string or (binding.key and binding.value is None):
            line += string[: -len(string.lstrip())].count('\n')  # it begins with empty lines
            raise ValueError(f'{file}, line {line}, must be KEY=value, quoted as a whole or not.')
        if binding.key:
            written[binding.key] = binding.value or ''
    return written


def read_ports(settings: Mapping[str, str]) -> dict[str, int]:
    """Return the port of each variable. Raises ValueError, naming it, for what is none."""
    ports = {}
    for name, (default, _) in PORTS.items():
        text = settings.get(name) or str(default)
        if not re.fullmatch('[0-9]{1,5}', text) or not 1 <= int(text) <= 65_535:
            raise ValueError(f'{name} must be a number from 1 to 65535, not {reprlib.repr(text)}.')
        ports[name] = int(text)
    return ports


def find_problems(ports: Mapping[str, int]) -> Iterator[str]:
    """Yield a line for each port that is not free, and one that proposes ports for all of them."""
    of: dict[int, str] = {}
    named = set(ports.values())
    proposed: list[str] = []
    for name, port in ports.items():
        if of.setdefault(port, name) != name:
            problem = f'{of[port]} and {name} are both {port}'
        elif is_taken(port):
            problem = f'Port {port}, for {PORTS[name][1]}, is in use by another program'
        else:
            continue
        first = max(port, 1024)  # those below are the system's
        candidates = chain(range(first, 65_536), range(first - 1, 1023, -1))
        free = next(each for each in candidates if each not in named and not is_taken(each))
        named.add(free)
        proposed.append(f'{name}={free}')
        yield f'{problem}.'
    if proposed:
        yield f'Choose others: make up {" ".join(proposed)} (or write that into .env).'


def environment_for(settings: Mapping[str, str], ports: Mapping[str, int]) -> dict[str, str]:
    """Return the environment of all processes."""
    kept = {name: text for name, text in settings.items() if name not in OURS}
    port = ports['REDIS_PORT']
    # Another `make up` of this clone has another port, and with it another folder.
    data = DATA if port == PORTS['REDIS_PORT'][0] else f'{DATA}-{port}'
    return (
        kept
        | {name: str(port) for name, port in ports.items()}
        | {
            'REDIS_DATA': settings.get('REDIS_DATA') or data,
            'REDIS_URL': f'redis://{HOST}:{port}/0',
            'SMTP_URL': f'smtp://{HOST}:{ports["MAIL_PORT"]}',
            'JOBS_API_TOKEN': settings.get('JOBS_API_TOKEN') or secrets.token_urlsafe(16),
            'JOBS_URL': f'http://{HOST}:{ports["WEB_PORT"]}/api/jobs',
        }
    )


def main() -> None:
    """Become `honcho start`, once all ports are known to be free."""
    try:
        written = read_env(Path('.env'))
        settings = written | os.environ  # the shell takes precedence, and `make up WEB_PORT=…`
        ports = read_ports(settings)
    except ValueError as error:
        sys.exit(f'Error: {error}')
    if problems := list(find_problems(ports)):
        *each, remedy = problems
        sys.exit('\n'.join([*(f'Error: {problem}' for problem in each), remedy]))
    for name in OURS:
        if name in written:
            click.echo(f'{name} of .env is not used: `make up` has servers of its own.')
    environment = environment_for(settings, ports)
    # Flask reads .env there by itself, but for what the shell has: an empty RQ_REDIS_URL is none.
    names = [name for name in (*OURS, *API) if name in environment or name in settings]
    shown = ' '.join(f'{name}={shlex.quote(environment.get(name, ""))}' for name in names)
    click.echo('In a second terminal, here:\n    source .venv/bin/activate')
    click.echo(f'    export {shown}')
    sys.stdout.flush()
    # Its own reading of .env would take precedence over what is decided here.
    command = ['honcho', 'start', '--env', os.devnull, '--procfile', 'Procfile.dev']
    os.execvpe(command[0], command, environment)  # noqa: S606


if __name__ == '__main__':
    main()
