"""Reset what a task can change in its process, so that the next job does not find it.

Runs in the horse.
"""

import logging
import os
import random
import resource
import sys
from dataclasses import dataclass

_LIMITS = tuple(getattr(resource, name) for name in dir(resource) if name.startswith('RLIMIT_'))
_PAGE = os.sysconf('SC_PAGE_SIZE')
_MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Surroundings:
    """The state of the horse before its first job."""

    folder: str | None  # None if it was removed before the horse was born
    umask: int
    niceness: int
    limits: tuple[tuple[int, int], ...]
    disabled_logging: int
    files: tuple[tuple[int, int], ...]  # device and inode of standard input, output and error

    @classmethod
    def now(cls) -> 'Surroundings':
        """Return the present state. Some of it can only be read by setting it."""
        umask = os.umask(0)
        os.umask(umask)
        return cls(
            _folder(),
            umask,
            os.getpriority(os.PRIO_PROCESS, 0),
            tuple(map(resource.getrlimit, _LIMITS)),
            logging.root.manager.disable,
            tuple(map(_identity, range(3))),
        )

    def restore(self) -> bool:
        """Undo what a task has changed. Returns False if that is impossible in this process."""
        os.umask(self.umask)
        random.seed()
        if logging.root.manager.disable != self.disabled_logging:
            logging.disable(self.disabled_logging)  # it empties a cache of each logger
        try:
            if self.folder is not None:
                os.chdir(self.folder)
        except OSError:  # a later deploy has removed it: a new horse would not have it either
            pass
        return (
            os.getpriority(os.PRIO_PROCESS, 0) == self.niceness
            and tuple(map(resource.getrlimit, _LIMITS)) == self.limits
            and tuple(map(_identity, range(3))) == self.files
        )


def resident_megabytes() -> float:
    """Return the resident memory of this process; outside of Linux, its peak."""
    try:
        with open('/proc/self/statm') as file:
            return int(file.read().split()[1]) * _PAGE / _MEGABYTE
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / _MEGABYTE if sys.platform == 'darwin' else peak * 1024 / _MEGABYTE


def _folder() -> str | None:
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None


def _identity(file: int) -> tuple[int, int]:
    try:
        found = os.fstat(file)
    except OSError:
        return (-1, -1)
    return found.st_dev, found.st_ino
