"""A job queue in one file, which `python job_queue.py` starts, far from this repository's tasks."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from qdjobs.server import free_port, wait_for_port
from tests.support.processes import QUICK, ROOT, eventually, kill_group

TOKEN = {'Authorization': 'Bearer only-for-a-test'}
PATIENCE = 120.0  # seconds for a process to start on a busy machine


@contextmanager
def running(log: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python in the folder of `log`, which ends as SIGTERM has it end."""
    # The modules of this repository, without its `workers`.
    if not (log.parent / 'qdjobs').exists():
        (log.parent / 'qdjobs').symlink_to(ROOT / 'qdjobs')
    own = {name: text for name, text in os.environ.items() if name != 'JOB_TASK_MODULES'}
    with log.open('wb') as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=log.parent,
            env=own | QUICK | {'PYTHONPATH': str(log.parent)} | environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
        process.terminate()
        process.wait(PATIENCE)
    finally:
        kill_group(process.pid)
        process.wait()


@pytest.mark.slow
def test_the_file_works_as_it_is_written(tmp_path: Path) -> None:
    web, redis = free_port(), free_port()
    source = (ROOT / 'examples' / 'job_queue.py').read_text()
    assert '\nqueue = JobQueue(app)\n' in source
    assert "\n@queue.task('send_email')\n" in source
    assert source.count('    app.run(port=5004)') == 1
    (tmp_path / 'job_queue.py').write_text(source.replace('port=5004', f'port={web}'))
    address = f'http://127.0.0.1:{web}'
    settings = {'REDIS_URL': f'redis://127.0.0.1:{redis}/0', 'JOBS_API_TOKEN': 'only-for-a-test'}
    server = ('-m', 'qdjobs.server', '--port', str(redis), '--app', 'job_queue')
    with (
        running(tmp_path / 'server.log', *server) as valkey,
        running(tmp_path / 'web.log', 'job_queue.py', **settings),
    ):
        wait_for_port(redis, PATIENCE)
        wait_for_port(web, PATIENCE)

        def status(url: str) -> dict[str, Any]:
            shown: dict[str, Any] = requests.get(url, headers=TOKEN, timeout=60).json()
            return shown

        made = requests.post(f'{address}/order', {'to': 'zoe@example.com'}, timeout=60).json()
        assert made['status'] in ('queued', 'started', 'finished')
        own = f'{address}/order/{made["job_id"]}'
        eventually(lambda: status(own)['status'] == 'finished', PATIENCE)
        assert status(own)['result'] == {'to': 'zoe@example.com', 'characters': 17}

        body = {'task': 'count', 'params': {'a': 'x', 'b': 'y'}}
        jobs = f'{address}/api/jobs'
        job_id = requests.post(jobs, json=body, headers=TOKEN, timeout=60).json()['job_id']
        eventually(lambda: status(f'{jobs}/{job_id}')['result'] == 2, PATIENCE)
        listed = status(f'{jobs}?status=completed')['jobs']
        assert {job['task'] for job in listed} == {'send_email', 'count'}
        assert valkey.poll() is None
    assert b'To zoe@example.com: Your order' in (tmp_path / 'server.log').read_bytes()
    assert valkey.returncode == 0


@pytest.mark.slow
def test_a_worker_that_cannot_start_ends_its_valkey_too(tmp_path: Path) -> None:
    log = tmp_path / 'server.log'
    with running(log, '-m', 'qdjobs.server', '--port', str(free_port()), '--app', 'none') as server:
        assert server.wait(PATIENCE) == 1
    assert b'Error: The worker of none has ended, and with it the Valkey.' in log.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    ('source', 'says'),
    [
        ("JobQueue(app)\nraise SystemExit(app.extensions['qdjobs'].redis_url)", '{url}\n'),
        (
            "app.config['REDIS_URL'] = 'redis://:hush@127.0.0.1:1/0'\nJobQueue(app)",
            'Error: app.config has the application use the Redis at 127.0.0.1:1, not the Valk',
        ),
        ('', "Error: The application 'shop' has no background jobs: it needs a JobQueue(app).\n"),
    ],
    ids=['.env', 'app.config', 'no queue'],
)
def test_the_worker_uses_the_valkey_beside_it_or_says_why_not(
    tmp_path: Path, source: str, says: str
) -> None:
    start = 'from flask import Flask\nfrom qdjobs import JobQueue\napp = Flask(__name__)\n'
    (tmp_path / 'shop.py').write_text(start + source)
    (tmp_path / '.env').write_text('RQ_REDIS_URL=redis://127.0.0.1:1/0\nFLASK_RUN_PORT=1\n')
    log, port = tmp_path / 'server.log', free_port()
    server = ('-m', 'qdjobs.server', '--port', str(port), '--app', 'shop')
    with running(log, *server, FLASK_SKIP_DOTENV='') as process:
        assert process.wait(PATIENCE) == 1
    assert says.format(url=f'redis://127.0.0.1:{port}/0') in log.read_text()
    assert 'hush' not in log.read_text()
