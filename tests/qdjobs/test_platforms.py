"""What a platform says on which nothing here runs."""

import subprocess
import sys

import pytest

from tests.support.processes import ROOT

# What Python lacks on Windows, of what a worker needs.
WINDOWS = """
import os, signal, sys
for name in ('fork', 'sysconf', 'killpg', 'setpgid'):
    delattr(os, name)
for name in ('SIGHUP', 'SIGALRM'):
    delattr(signal, name)
for name in ('resource', 'fcntl', 'pwd', 'termios'):
    sys.modules[name] = None
"""


@pytest.mark.slow
def test_windows_is_one_sentence_that_says_what_to_do() -> None:
    code = f'{WINDOWS}\nfrom qdjobs import JobWorker'
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stderr.splitlines()[-1] == (
        'ImportError: qdjobs needs Linux or macOS, since its workers fork: on Windows, run Python '
        'inside WSL.'
    )
