"""What mypy and pyright say of the calls in calls.py is what its marks say: no more, no less."""

import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.processes import ROOT

CALLS = Path(__file__).with_name('calls.py')
MARK = re.compile(r'# error: ([\w-]+)(?:, (\w+))?$')

Found = dict[int, set[str]]  # codes of errors by line


def mypy_errors() -> Found:
    output = output_of(sys.executable, '-m', 'mypy', '--output', 'json', str(CALLS))
    found: Found = defaultdict(set)
    for error in map(json.loads, output.splitlines()):
        found[error['line']].add(error['code'])
    return found


def pyright_errors() -> Found:
    """Those of basedpyright as pyright has them, in the standard mode that pyproject.toml sets."""
    command = str(Path(sys.executable).with_name('basedpyright'))
    output = output_of(command, '--outputjson', '--pythonpath', sys.executable, str(CALLS))
    found: Found = defaultdict(set)
    for error in json.loads(output)['generalDiagnostics']:
        found[error['range']['start']['line'] + 1].add(error['rule'])
    return found


def output_of(*command: str) -> str:
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (1, ''), run.stdout + run.stderr
    return run.stdout


def marks(group: int) -> dict[int, str]:
    lines = enumerate(CALLS.read_text().splitlines(), start=1)
    found = {number: mark for number, line in lines if (mark := MARK.search(line))}
    return {number: mark[group] for number, mark in found.items() if mark[group]}


@pytest.mark.slow
@pytest.mark.parametrize(('errors', 'group'), [(mypy_errors, 1), (pyright_errors, 2)])
def test_a_type_checker_refuses_the_marked_lines_and_no_others(
    errors: Callable[[], Found], group: int
) -> None:
    found, marked = errors(), marks(group)
    # pyright has two errors for a call that fits no overload: that, and the argument.
    missing = {line: code for line, code in marked.items() if code not in found.get(line, ())}
    assert missing == {}
    assert {line: codes for line, codes in found.items() if line not in marked} == {}
