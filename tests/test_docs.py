"""What the pages of docs/ show works as it stands there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.newcomer import blocks
from tests.support.processes import ROOT


def save(document: str, folder: Path) -> None:
    """Save the Python of a page under the names that it gives to its files."""
    for block in blocks((ROOT / 'docs' / document).read_text()):
        if block.kind == 'python':
            path, content = block.file
            (folder / path).write_text(content)


@pytest.mark.parametrize(
    ('command', 'says'),
    [
        ('-m pytest -q -W error -p qdjobs.testing.pytest_plugin', '14 passed'),
        ('-W error -m unittest test_with_unittest', '\nOK\n'),
    ],
)
def test_the_tests_of_the_page_about_tests_pass(tmp_path: Path, command: str, says: str) -> None:
    save('testing.md', tmp_path)
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
