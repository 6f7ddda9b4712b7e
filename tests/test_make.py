"""The commands of the README, as a newcomer types them."""

import os
import re
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest

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
        eventually(lambda: answers(f'http://127.0.0.1:{web}/readyz'), timeout=60)
        eventually(lambda: any('rq worker' in line for line in processes_with(mark)), timeout=60)
        use_redis(settings, f'redis://127.0.0.1:{ports["REDIS_PORT"]}/0')
        job = enqueue_background_job(
            'workers.email_tasks.send_email',
            to='zoe@example.com',
            subject='Hello',
            body='Schöne Grüße from make up',
        )
        assert wait_for_job(job.id, 60)['error'] is None
        eventually(lambda: 'Schöne Grüße from make up' in shown.read_text())
    finally:
        os.killpg(up.pid, signal.SIGINT)  # what it runs has sessions of its own: it alone stops it
        try:
            up.wait(60)
        finally:
            kill_group(up.pid)
    eventually(lambda: not processes_with(mark))


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
