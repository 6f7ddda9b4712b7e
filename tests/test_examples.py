"""The examples, run as their first lines say."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from qdjobs.server import free_port
from tests.support.processes import QUICK, ROOT, eventually, kill_group


def start(module: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m module`, until it has ended."""
    return subprocess.run(
        [sys.executable, '-m', module],
        cwd=ROOT,
        env=os.environ | QUICK | environment,
        capture_output=True,
        text=True,
        timeout=250,
    )


def run(module: str, **environment: str) -> str:
    """What `python -m module` writes, once it has ended well."""
    done = start(module, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def job_queue(log: Path) -> Iterator[dict[str, str]]:
    """examples.job_queue, and the variables that it says to export."""
    command = [sys.executable, '-m', 'examples.job_queue', '--port', str(free_port())]
    with log.open('w') as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | QUICK,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        eventually(lambda: 'Running on' in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        first = log.read_text().splitlines()[0]
        yield dict(word.split('=', 1) for word in first.removeprefix('export ').split())
        process.send_signal(signal.SIGINT)  # as Ctrl-C
        assert process.wait(100) in (0, 1, -signal.SIGINT), log.read_text()
    finally:
        kill_group(process.pid)
        process.wait()


@pytest.mark.slow
def test_the_named_tasks_and_a_client_of_a_hundred_jobs(tmp_path: Path) -> None:
    log = tmp_path / 'log'
    with job_queue(log) as variables:
        assert set(variables) == {'JOBS_API_TOKEN', 'JOBS_URL'}
        told = run('examples.http_client', **variables)
        assert '100 jobs are queued' in told
        assert "{'finished': 100}" in told
        assert 'To customer-99@example.com, on 31 January 2030: 2 items, 17.45 euros.' in told

        url = variables['JOBS_URL']
        headers = {'Authorization': f'Bearer {variables["JOBS_API_TOKEN"]}'}
        ordered = requests.post(f'{url.removesuffix("/jobs")}/order', timeout=60)
        job_id = ordered.text.split()[-1].rstrip('.')
        bodies = (
            {'task': 'count_words', 'params': {'text': 'ink on ink'}},
            {'task': 'take_stock', 'params': {'shelves': 2}},
        )
        made = [requests.post(url, json=body, headers=headers, timeout=60) for body in bodies]
        assert [answer.status_code for answer in made] == [201, 201]

        def result(job_id: str) -> object:
            return requests.get(f'{url}/{job_id}', headers=headers, timeout=60).json()['result']

        eventually(lambda: result(made[0].json()['job_id']) == {'ink': 2, 'on': 1})
        eventually(lambda: result(made[1].json()['job_id']) == 24)
        eventually(lambda: '1 items, 12.50 euros' in str(result(job_id)))
        assert requests.get(url, timeout=60).status_code == 401

        refused = start('examples.http_client', **variables | {'JOBS_API_TOKEN': 'wrong'})
        assert refused.returncode == 1
        assert '401' in refused.stderr
        assert 'Send the token' in refused.stderr
    assert 'Traceback' not in log.read_text()


@pytest.mark.slow
def test_the_flaky_task_dies_and_is_brought_back() -> None:
    told = run('examples.flaky_task')
    assert len(re.findall(r'ConnectionError: the printer does not answer', told)) == 3
    assert re.search(r"It is failed, and among the dead letters: \['[-0-9a-f]{36}'\]", told)
    assert re.search(r'jobs retry [-0-9a-f]{36}', told)
    assert 'It is finished: the label is printed' in told
    assert 'Dead letters: [].' in told


@pytest.mark.slow
def test_orders_commit_with_their_jobs_are_summed_up_and_reported() -> None:
    told = run('examples.orders')
    receipts = re.findall(r'  To customer-(\d)@example\.com: order \d, ', told)
    assert receipts == list('12345678')
    assert 'rolled back, so there is no job for it' in told
    assert '8 labels, 8.00 euros of postage.' in told
    assert re.search(r'report +.*0 3 \* \* \* Europe/Berlin', told)
    assert '8 orders, 180.00 euros.' in told
