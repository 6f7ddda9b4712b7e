"""The task of this benchmark: each run writes a line into a file that all workers share."""

import os
import time

LOG = 'GROWTH_LOG'  # the variable that names the file


def note(seconds: float = 0.0, word: str = '-') -> None:
    """Write when the run has started, and wait as a task does that waits for a network."""
    log = os.open(os.environ[LOG], os.O_WRONLY | os.O_APPEND)
    os.write(log, f'{time.time():.6f} {word}\n'.encode())  # one write: lines do not mix
    os.close(log)
    time.sleep(seconds)


def empty() -> None:
    return None
