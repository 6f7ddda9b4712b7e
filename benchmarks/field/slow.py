"""A task whose module takes 0.2 s to import, as one that imports a data engine."""

import time

from benchmarks.field.tasks import count

_end = time.perf_counter() + 0.2
while time.perf_counter() < _end:  # busy, as an import is
    pass


def slow() -> int:
    return count()
