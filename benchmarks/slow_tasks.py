"""A task whose module takes as long to import as one that imports a data engine."""

import time

_end = time.perf_counter() + 0.08
while time.perf_counter() < _end:  # busy, as an import is
    pass


def empty() -> None:
    return None
