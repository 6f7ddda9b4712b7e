"""What `make up` runs: Procfile.dev, with the settings of .env, on ports that are free."""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import click
from honcho.environ import parse

from qdjobs.server import HOST, is_taken

PORTS = {  # the variable, its default, and what listens there
    'REDIS_PORT': (6399, 'Valkey'),
    'WEB_PORT': (8000, 'the web application'),
    'MAIL_PORT': (8025, 'the mail server'),
}
# Whatever the shell and .env say: development writes to no customer, and to no other Redis.
OURS = ('REDIS_URL', 'RQ_REDIS_URL', 'SMTP_URL')


def read_ports(settings: Mapping[str, str]) -> dict[str, int]:
    """Return the port of each variable. Raises ValueError, naming it, for what is none."""
    ports = {}
    for name, (default, _) in PORTS.items():
        text = settings.get(name) or str(default)
        if not text.isdecimal() or not 1 <= int(text) <= 65_535:
            raise ValueError(f'{name} must be a number from 1 to 65535, not {text!r}.')
        ports[name] = int(text)
    return ports


def find_problems(ports: Mapping[str, int]) -> Iterator[str]:
    """Yield a line for each port that is not free, which names the variable."""
    of: dict[int, str] = {}
    for name, port in ports.items():
        if of.setdefault(port, name) != name:
            problem = f'{of[port]} and {name} are both {port}'
        elif is_taken(port):
            problem = f'Port {port}, for {PORTS[name][1]}, is in use by another program'
        else:
            continue
        free = next(p for p in range(port, 65_536) if p not in ports.values() and not is_taken(p))
        yield f'{problem}: make up {name}={free}, or write that into .env.'


def environment_for(settings: Mapping[str, str], ports: Mapping[str, int]) -> dict[str, str]:
    """Return the environment of all processes."""
    kept = {name: text for name, text in settings.items() if name not in OURS}
    return (
        kept
        | {name: str(port) for name, port in ports.items()}
        | {
            'REDIS_URL': f'redis://{HOST}:{ports["REDIS_PORT"]}/0',
            'SMTP_URL': f'smtp://{HOST}:{ports["MAIL_PORT"]}',
        }
    )


def main() -> None:
    """Become `honcho start`, once all ports are known to be free."""
    file = Path('.env')
    written: dict[str, str] = parse(file.read_text()) if file.exists() else {}
    settings = written | os.environ  # the shell takes precedence, and `make up WEB_PORT=…`
    try:
        ports = read_ports(settings)
    except ValueError as error:
        sys.exit(f'Error: {error}')
    if problems := list(find_problems(ports)):
        sys.exit('\n'.join(f'Error: {problem}' for problem in problems))
    for name in OURS:
        if name in written:
            click.echo(f'{name} of .env is not used: `make up` has servers of its own.')
    environment = environment_for(settings, ports)
    shown = ' '.join(f'{name}={environment[name]}' for name in ('REDIS_URL', 'SMTP_URL'))
    click.echo('In a second terminal, here:\n    source .venv/bin/activate')
    # Flask would recommend a package for .env at each command.
    click.echo(f'    export {shown}{" FLASK_SKIP_DOTENV=1" if written else ""}')
    sys.stdout.flush()
    # Its own reading of .env would take precedence over what is decided here.
    command = ['honcho', 'start', '--env', os.devnull, '--procfile', 'Procfile.dev']
    os.execvpe(command[0], command, environment)  # noqa: S606


if __name__ == '__main__':
    main()
