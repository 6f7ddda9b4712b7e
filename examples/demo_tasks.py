"""Tasks for the demo and the examples that fail always, once, or until a file exists."""

from pathlib import Path


def fail(reason: str) -> None:
    raise ValueError(reason)


def succeed_at_second_attempt(marker: str) -> str:
    """Fail at the first attempt, which creates the file `marker`."""
    first_attempt = not Path(marker).exists()
    Path(marker).touch()
    if first_attempt:
        raise ConnectionError('the first attempt always fails')
    return 'done at the second attempt'


def print_label(cable: str) -> str:
    """Fail until the file `cable` exists, as if a cable were unplugged."""
    if not Path(cable).exists():
        raise ConnectionError('the printer does not answer')
    return 'the label is printed'
