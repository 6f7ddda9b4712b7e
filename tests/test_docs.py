"""What the pages of docs/ show works as it stands there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qdjobs import get_job_status
from tests.support.newcomer import blocks
from tests.support.processes import ROOT

pytestmark = pytest.mark.slow  # a pytest of its own for each page

PYTEST = '-m pytest -q -W error -p qdjobs.testing.pytest_plugin'


def save(document: str, folder: Path) -> None:
    """Save the Python of a page under the names that it gives to its files."""
    for block in blocks((ROOT / 'docs' / document).read_text()):
        if block.kind == 'python':
            path, content = block.file
            (folder / path).write_text(content)


@pytest.mark.parametrize(
    ('document', 'command', 'says'),
    [
        ('testing.md', PYTEST, '14 passed'),
        ('testing.md', '-W error -m unittest test_with_unittest', '\nOK\n'),
        ('calls.md', PYTEST, '6 passed'),
        ('workflows.md', PYTEST, '9 passed'),
        ('periodic.md', PYTEST, '3 passed'),
        ('transactions.md', PYTEST, '3 passed'),
    ],
)
def test_the_tests_that_a_page_shows_pass(
    tmp_path: Path, document: str, command: str, says: str
) -> None:
    save(document, tmp_path)
    done = subprocess.run(
        [sys.executable, *command.split()],
        cwd=tmp_path,
        env=os.environ | {'PYTHONPATH': str(ROOT), 'REDIS_URL': 'redis://127.0.0.1:1/0'},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert says in done.stdout + done.stderr, done.stdout + done.stderr


def test_the_program_without_flask_enqueues_a_job(tmp_path: Path) -> None:
    save('transactions.md', tmp_path)
    done = subprocess.run(
        [sys.executable, '-W', 'error', 'receipts.py'],
        cwd=tmp_path,
        env=os.environ | {'PYTHONPATH': str(ROOT), 'JOB_TASK_MODULES': 'shop_tasks'},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert get_job_status(done.stdout.strip())['task'] == 'shop_tasks.send_receipt'
