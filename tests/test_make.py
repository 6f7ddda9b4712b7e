"""The commands of the README, as a newcomer types them."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from examples.up import PORTS, environment_for, find_problems, read_env, read_ports
from libraries.job_manager import enqueue_background_job, wait_for_job
from qdjobs.server import embedded_redis, free_port
from tests.support.applications import use_redis
from tests.support.processes import ROOT, eventually, kill_group


def demo() -> subprocess.Popen[str]:
    return subprocess.Popen(
        ['make', 'demo'], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def processes_with(text: str) -> list[str]:
    """The command lines of running processes that carry the text in their environment."""
    found = []
    for folder in Path('/proc').glob('[0-9]*'):
        try:
            if text.encode() in (folder / 'environ').read_bytes():
                found.append((folder / 'cmdline').read_text().replace('\0', ' '))
        except (OSError, UnicodeDecodeError):
            continue  # it has just ended, or is somebody else's
    return [line for line in found if line]


@pytest.mark.slow  # 15 CPU-seconds each
def test_the_demo_shows_each_state_twice_at_once_and_beside_another_redis() -> None:
    with embedded_redis(), demo() as first, demo() as second:
        for run in (first, second):
            output = run.communicate(timeout=250)[0]
            assert run.returncode == 0, output
            assert re.search(
                r'spiral on A4 +high +finished +\d+\.\d\d +\S*demo/spiral-A4.svg', output
            )
            assert re.search(r'fails +default +failed +\d+\.\d\d +ValueError: width', output)
            assert re.search(r'tried twice +default +scheduled', output)
            assert re.search(r'tried twice +default +finished', output)
            assert re.search(r'CSV to JSON +default +finished .*pens.csv.json', output)
            assert re.search(r'one file fails +default +failed .*broken.csv: line 3', output)
            assert re.search(r'PDF +default +finished .*\.pdf', output)
            assert 'Subject: Your drawings are complete' in output
            assert re.search(r'finished +\[#{30}\] 100%  16/16', output)


def test_make_up_shows_mails_and_ctrl_c_leaves_no_process_behind(
    settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mark = f'MAKE_UP_TEST_{os.getpid()}'
    ports = {name: str(free_port()) for name in ('WEB_PORT', 'REDIS_PORT', 'MAIL_PORT')}
    # What the shell happens to say of other servers is not to be believed.
    environment = os.environ | ports | {mark: '1', 'SMTP_URL': 'smtp://127.0.0.1:1'}
    environment['REDIS_DATA'] = str(tmp_path / 'redis')  # somebody may be at work here
    environment |= dict.fromkeys(('REDIS_URL', 'RQ_REDIS_URL'), 'redis://127.0.0.1:1/0')
    web, shown = ports['WEB_PORT'], tmp_path / 'shown'
    with shown.open('wb') as output:
        up = subprocess.Popen(
            ['make', 'up'], cwd=ROOT, env=environment, stdout=output, start_new_session=True
        )
    try:
        eventually(lambda: answers(f'http://127.0.0.1:{web}/readyz'))
        eventually(lambda: any('rq worker' in line for line in processes_with(mark)))
        use_redis(settings, f'redis://127.0.0.1:{ports["REDIS_PORT"]}/0')
        job = enqueue_background_job(
            'workers.email_tasks.send_email',
            to='zoe@example.com',
            subject='Hello',
            body='Schöne Grüße from make up',
        )
        assert wait_for_job(job.id, 60)['error'] is None
        eventually(lambda: 'Schöne Grüße from make up' in shown.read_text())
        [token] = re.findall(r'JOBS_API_TOKEN=(\S+)', shown.read_text())
        [jobs] = re.findall(r'JOBS_URL=(\S+)', shown.read_text())
        body = {'task_name': 'flaky_api_call', 'payload': {'endpoint': '/users'}, 'max_retries': 3}
        headers = {'Authorization': f'Bearer {token}'}
        assert requests.post(jobs, json=body, headers=headers, timeout=60).status_code == 201
        assert requests.post(jobs, json=body, timeout=60).status_code == 401
    finally:
        os.killpg(up.pid, signal.SIGINT)  # what it runs has sessions of its own: it alone stops it
        try:
            up.wait(60)
        finally:
            kill_group(up.pid)
    eventually(lambda: not processes_with(mark))


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_make_up_on_taken_ports_starts_nothing_and_names_the_variable_of_each(
    tmp_path: Path,
) -> None:
    with contextlib.ExitStack() as stack:
        ports = {name: str(stack.enter_context(taken_port())) for name in PORTS}
        done = up(tmp_path, **ports)
        *problems, remedy = done.stderr.splitlines()
        proposed = dict(re.findall(r'(\w+)=(\d+)', remedy))
        assert list(find_problems(read_ports(proposed))) == []
    assert (done.returncode, done.stdout) == (1, '')
    for line, (name, port) in zip(problems, ports.items(), strict=True):
        assert line == f'Error: Port {port}, for {PORTS[name][1]}, is in use by another program.'
    command = r'make up REDIS_PORT=\d+ WEB_PORT=\d+ MAIL_PORT=\d+ '  # as it is pasted
    assert re.search(rf'{command}\(or write that into \.env\)\.$', remedy)


@pytest.mark.parametrize(
    ('settings', 'port', 'data'),
    [
        ({}, 6399, 'var/redis'),
        ({}, 6400, 'var/redis-6400'),
        ({'REDIS_DATA': ''}, 6400, 'var/redis-6400'),
        ({'REDIS_DATA': 'mine'}, 6400, 'mine'),
    ],
)
def test_make_up_on_another_port_has_another_folder(
    settings: dict[str, str], port: int, data: str
) -> None:
    ports = {name: default for name, (default, _) in PORTS.items()} | {'REDIS_PORT': port}
    assert environment_for(settings, ports)['REDIS_DATA'] == data


def test_make_up_reads_env_but_for_where_redis_and_mails_are(tmp_path: Path) -> None:
    (tmp_path / '.env').write_text(
        'SMTP_URL=smtps://user:hush-hush@customer.example\nREDIS_URL=redis://production\n'
        'WEB_PORT=1\nMAIL_PORT=2\nMETRICS_TOKEN="a b"\nREDIS_DATA=data\n'
    )
    (tmp_path / 'Procfile.dev').write_text('show: env\n')
    store, port = str(free_port()), str(free_port())
    done = up(tmp_path, REDIS_PORT=store, MAIL_PORT=port, RQ_REDIS_URL='redis://production')
    shown = {line.partition('| ')[2] for line in done.stdout.splitlines()}
    redis, mail = f'REDIS_URL=redis://127.0.0.1:{store}/0', f'SMTP_URL=smtp://127.0.0.1:{port}'
    assert {redis, mail, 'WEB_PORT=1', 'METRICS_TOKEN=a b', 'REDIS_DATA=data'} <= shown
    assert f"    export {redis} RQ_REDIS_URL='' {mail} JOBS_API_TOKEN=" in done.stdout
    assert 'SMTP_URL of .env is not used' in done.stdout
    assert not re.search('production|customer', done.stdout)


def test_flask_beside_make_up_reads_env_but_for_where_redis_and_mails_are(tmp_path: Path) -> None:
    (tmp_path / '.env').write_text(
        'SMTP_URL=smtps://customer\nREDIS_URL=redis://production\n'
        'RQ_REDIS_URL=redis://production\nJOB_LOG_FORMAT=json\n'
    )
    (tmp_path / 'Procfile.dev').write_text('show: true\n')
    (tmp_path / 'show.py').write_text(
        'import os, flask\napp = flask.Flask("show")\n'
        'app.cli.command("env")(lambda: os.execvp("env", ["env"]))\n'
    )
    ports = {name: str(free_port()) for name in PORTS}
    [export] = re.findall(r'^    (export .*)$', up(tmp_path, **ports).stdout, re.MULTILINE)
    shell = {name: text for name, text in os.environ.items() if name != 'FLASK_SKIP_DOTENV'}
    flask = f'{export}; {sys.executable} -m flask --app show env'
    shown = subprocess.check_output(['sh', '-c', flask], cwd=tmp_path, env=shell, text=True)
    redis, mail = (f'127.0.0.1:{ports[name]}' for name in ('REDIS_PORT', 'MAIL_PORT'))
    own = {f'REDIS_URL=redis://{redis}/0', f'SMTP_URL=smtp://{mail}', 'RQ_REDIS_URL='}
    assert {*own, 'JOB_LOG_FORMAT=json'} <= set(shown.splitlines())


@pytest.mark.parametrize(
    ('line', 'value'),
    [
        (b'\xef\xbb\xbfA=x\r\n', 'x'),
        (b'export A=x\n', 'x'),
        (b' A = x y # why\n', 'x y'),
        (b'A="x # y"\n', 'x # y'),
        (b"A='$x ${y}'\n", '$x ${y}'),
        (b'A=${y}#z\n', '${y}#z'),
        (b'A=\n', ''),
        ('A=Zoë\n'.encode(), 'Zoë'),
    ],
)
def test_make_up_reads_env_as_people_write_it(tmp_path: Path, line: bytes, value: str) -> None:
    (tmp_path / '.env').write_bytes(line + b'\r\n# why\nB=1')
    assert read_env(tmp_path / '.env') == {'A': value, 'B': '1'}


@pytest.mark.parametrize(
    'line',
    [
        b'A: 3',
        *(
            pytest.param(line, marks=pytest.mark.slow)
            for line in (
                b'this is none',
                b'A',
                b'A="open',
                b'A="x" y',
                b'=x',
                b'A=\0',
                b'A=caf\xe9',
            )
        ),
    ],
)
def test_make_up_names_a_line_of_env_that_is_none_and_starts_nothing(
    tmp_path: Path, line: bytes
) -> None:
    (tmp_path / '.env').write_bytes(b'# why\r\nB=1\r\n\r\n' + line + b'\r\nC=1\r\n')
    done = up(tmp_path)
    assert (done.returncode, done.stdout) == (1, '')
    [said] = done.stderr.splitlines()
    assert said.startswith('Error: .env, line 4, ')


def test_make_up_says_that_env_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / '.env').mkdir()
    done = up(tmp_path)
    assert (done.returncode, done.stdout) == (1, '')
    assert done.stderr == 'Error: .env cannot be read as a file: Is a directory.\n'


@pytest.mark.parametrize(
    ('ports', 'says'),
    [
        ({'WEB_PORT': 'http'}, "WEB_PORT must be a number from 1 to 65535, not 'http'."),
        ({'WEB_PORT': '9' * 5000}, 'WEB_PORT must be a number from 1 to 65535, not '),
        ({'MAIL_PORT': '0'}, "MAIL_PORT must be a number from 1 to 65535, not '0'."),
        ({'WEB_PORT': '7', 'MAIL_PORT': '7'}, 'WEB_PORT and MAIL_PORT are both 7.'),
    ],
)
def test_make_up_says_which_port_is_none(ports: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        raise ValueError(*find_problems(read_ports(ports)))


@pytest.mark.parametrize('port', [65_535, 80, 20_000])
def test_make_up_proposes_ports_that_work_together(port: int) -> None:
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # another program has it, or it is the system's
            stack.enter_context(socket.create_server(('127.0.0.1', port)))
        *_, remedy = find_problems(dict.fromkeys(PORTS, port))
        found = re.findall(r'(\w+)=(\d+)', remedy)
        proposed = {name: int(text) for name, text in found}
        assert list(find_problems(proposed)) == []
        assert min(proposed.values()) >= 1024


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    """A port of 127.0.0.1 on which something listens."""
    with socket.create_server(('127.0.0.1', 0)) as server:
        yield server.getsockname()[1]


def up(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """What the target `up` runs, in a folder with a Procfile.dev of its own."""
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    own = {name: text for name, text in os.environ.items() if name not in (*PORTS, 'REDIS_DATA')}
    return subprocess.run(
        [sys.executable, '-m', 'examples.up'],
        cwd=folder,
        env=own | {'PATH': path, 'PYTHONPATH': str(ROOT)} | environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
