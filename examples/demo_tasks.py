"""Tasks for the demo and the examples: they fail for good, once, or until something is mended."""

from pathlib import Path


def fail(reason: str) -> None:
    raise ValueError(reason)


def succeed_at_second_attempt(marker: str) -> str:
    """`marker` is a file that remembers the first attempt."""
    first_attempt = not Path(marker).exists()
    Path(marker).touch()
    if first_attempt:
        raise ConnectionError('the first attempt always fails')
    return 'done at the second attempt'


def print_label(cable: str) -> str:
    """`cable` is a file that stands for one."""
    if not Path(cable).exists():
        raise ConnectionError('the printer does not answer')
    return 'the label is printed'
