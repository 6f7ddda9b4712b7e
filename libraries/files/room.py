"""Check whether OUTPUT_DIR has room for anonymous drawings: fewer bytes than `OUTPUT_MAX_SIZE`."""

import stat
import threading
import time
from pathlib import Path

from libraries.files.beneath import walk
from libraries.files.folder import Folder
from libraries.files.settings import outputs
from libraries.limits import limit

INTERVAL = 10.0  # seconds between two measurements, at least
SHARE = 20  # and so many times as long as the last one took
BLOCK = 512  # bytes in one of `st_blocks`, on any file system

_measured: dict[Path, tuple[int, float]] = {}  # bytes; when to measure again
_measuring = threading.Lock()


class NoRoomError(Exception):
    """The files in OUTPUT_DIR have `OUTPUT_MAX_SIZE` megabytes or more."""


def require_room() -> None:
    """Raise NoRoomError if OUTPUT_DIR is full. The size of an object store has no limit.

    The size is that of a few seconds ago: a process measures it when it is needed, and not again
    at once.
    """
    place = outputs()
    most = limit('OUTPUT_MAX_SIZE')
    if not isinstance(place, Folder):
        return
    used = _size_of(place.path) / 1e6
    if used >= most:
        raise NoRoomError(
            f'OUTPUT_DIR, {place}, has {used:,.0f} MB of files, and OUTPUT_MAX_SIZE is {most:,}: '
            'remove old files (OUTPUT_KEEP_DAYS does), or set a larger one.'
        )


def _size_of(root: Path) -> int:
    """The bytes of all files in a folder, as last measured."""
    is_first = root not in _measured  # which has to be waited for
    is_due = is_first or time.monotonic() >= _measured[root][1]
    if is_due and _measuring.acquire(blocking=is_first):
        try:
            if not (is_first and root in _measured):  # which another thread has done meanwhile
                begun = time.monotonic()
                size = measure(root)
                ended = time.monotonic()
                _measured[root] = size, ended + max(INTERVAL, SHARE * (ended - begun))
        finally:
            _measuring.release()
    return _measured[root][0]


def measure(root: Path) -> int:
    """The bytes that all files in a folder take on the disk, without what links lead to."""
    found = (found for _, _, found in walk(root) if stat.S_ISREG(found.st_mode))
    return sum(each.st_blocks * BLOCK for each in found)
