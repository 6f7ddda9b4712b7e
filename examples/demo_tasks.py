"""Two tasks for the demo: one that fails for good, one that fails once."""

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
