"""What the README tells people to write works as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

from libraries.files import output_dir
from tests.support.processes import ROOT, Worker

README = (ROOT / 'README.md').read_text()


def blocks(section: str) -> list[str]:
    """The Python of one section, without those inside it."""
    text = README.split(f'\n## {section}\n')[1].split('\n##')[0]
    return re.findall(r'```python\n(.*?)```', text, re.DOTALL)


def test_write_your_own_task(tmp_path: Path, own_worker: Worker) -> None:
    task, call = blocks('Write your own task')
    own = tmp_path / 'own'  # beside `workers`, since tests write nothing into the tree
    own.mkdir()
    (own / 'greeting_tasks.py').write_text(task)
    call = call.replace('workers.greeting_tasks', 'own.greeting_tasks')
    environment = {'JOB_TASK_MODULES': 'own', 'PYTHONPATH': f'{ROOT}:{tmp_path}'}
    with own_worker(**environment):
        done = run(call, environment)
    assert (done.stderr, done.returncode) == ('', 0)
    assert (output_dir() / 'greetings.txt').read_text() == 'Hello, Ada!\nHello, Zoë!'
    refused = run(call.replace("['Ada', 'Zoë']", "'Ada'"), environment)
    assert 'InvalidJobError' in refused.stderr


def run(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, '-c', code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
