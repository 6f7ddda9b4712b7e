"""The command `flask jobs doctor`."""

import sys
from collections.abc import Iterable
from typing import Any

import click

from qdjobs.cli.invocation import command_line
from qdjobs.cli.parameters import json_option
from qdjobs.cli.text import plain, safe_json
from qdjobs.monitoring.doctor import Finding, Level, examine

_MARKS: dict[Level, tuple[str, str]] = {
    'ok': ('✓', 'green'),
    'note': ('·', 'cyan'),
    'warning': ('!', 'yellow'),
    'error': ('✗', 'red'),
}


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check the set-up, and say how to fix each problem. Changes nothing.

    An application's own checks come last, and may write something that they remove again.

    ✓ is ok, · is a note, ! is a warning, ✗ is an error. A line below is a command that helps. The
    JSON document is {"ok": ..., "findings": [{"level", "text", "remedy"}]}; a remedy is a command
    or null. Exit codes: 0, also with warnings; 1 if there is any ✗, or a setting is wrong; 2 for a
    wrong option.
    """
    findings = examine(command_line)
    has_failed = _print_json(findings) if as_json else _print_lines(findings)
    sys.exit(1 if has_failed else 0)


def _print_lines(findings: Iterable[Finding]) -> bool:
    """Print each finding at once. Returns whether there is an error."""
    has_failed = False
    for finding in findings:
        mark, colour = _MARKS[finding.level]
        click.echo(f'{click.style(mark, fg=colour)} {plain(finding.text)}')
        if finding.remedy:
            click.echo(f'    {plain(finding.remedy)}')
        has_failed |= finding.level == 'error'
    return has_failed


def _print_json(findings: Iterable[Finding]) -> bool:
    shown: list[dict[str, Any]] = [
        {'level': finding.level, 'text': finding.text, 'remedy': finding.remedy}
        for finding in findings
    ]
    has_failed = any(finding['level'] == 'error' for finding in shown)
    click.echo(safe_json({'ok': not has_failed, 'findings': shown}))
    return has_failed
