"""Programs that a machine may lack: their tests are skipped, which is said, and fail in CI."""

import os

import pytest


def require(path: str | None, missing: str) -> str:
    """Return where a program is. Without it, the test is skipped, and fails in CI."""
    if path is not None:
        return path
    if os.environ.get('CI') == 'true':
        pytest.fail(missing)
    pytest.skip(missing)


def report(path: str | None, reporter: pytest.TerminalReporter, title: str, advice: str) -> None:
    """Say at the end of the session that a program is missing, if so."""
    if path is None:
        reporter.section(title, red=True, bold=True)
        reporter.line(advice, red=True)
