"""Remove old files from OUTPUT_DIR: a periodic task, so that anonymous drawings do not fill it."""

import logging
import math
import os
import re
import stat
import time
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TypedDict

from libraries.files import Folder, outputs
from libraries.files.beneath import folder_of, walk
from libraries.limits import limit

DAY = 86_400  # seconds

# What a killed process has left half-way, and a doctor whose OUTPUT_DIR is another.
_LEFT = re.compile(r'\.[0-9a-f]{16}\.part|\.doctor-[0-9a-f]{16}\.txt')
# What the artboard draws for anybody, under the id of the job or one that the client has chosen.
_DRAWING = re.compile(
    r'([0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}'
    r'|artboard_[A-Za-z0-9_-]{1,64})\.svg'
)

log = logging.getLogger(__name__)


class Cleaned(TypedDict):
    """What has been removed."""

    files: int
    size: int  # bytes
    folders: int


def clean_outputs() -> Cleaned:
    """Remove old files from OUTPUT_DIR, if that is a local folder; return what has been removed.

    Drawings of the artboard go after `DRAWING_KEEP_DAYS`, unfinished files after a day, all others
    only after `OUTPUT_KEEP_DAYS`, if that is set, and folders that have been empty for as long: a
    younger one may be about to get its first file. Links and what they lead to stay.
    """
    place = outputs()
    cleaned = Cleaned(files=0, size=0, folders=0)
    if not isinstance(place, Folder):
        log.info('%s is no local folder: a rule of the bucket removes old files.', place.setting)
        return cleaned
    now = time.time()
    drawings, others = (_cutoff(now, f'{what}_KEEP_DAYS') for what in ('DRAWING', 'OUTPUT'))

    def is_old(path: PurePosixPath, modified: float) -> bool:
        if _LEFT.fullmatch(path.name):
            return modified < now - DAY
        is_drawing = len(path.parts) == 1 and _DRAWING.fullmatch(path.name) is not None
        return modified < (max(drawings, others) if is_drawing else others)

    folders = []
    for folder, path, found in walk(place.path):
        if stat.S_ISDIR(found.st_mode):
            if found.st_mtime < others:
                folders.append(path)
        elif stat.S_ISREG(found.st_mode) and is_old(path, found.st_mtime):
            try:
                os.unlink(path.name, dir_fd=folder)
            except FileNotFoundError:  # somebody else has removed it
                continue
            except OSError as error:
                log.warning('Cannot remove the old file %s in %s: %s', path, place, error)
            else:
                cleaned['files'] += 1
                cleaned['size'] += found.st_size
    for path in reversed(folders):  # those in a folder before itself
        # It has files, or is something else by now.
        with suppress(OSError, ValueError), folder_of(place.path, path) as above:
            os.rmdir(path.name, dir_fd=above)
            cleaned['folders'] += 1
    return cleaned


def _cutoff(now: float, setting: str) -> float:
    """The time before which files are old; some are dated before 1970."""
    days = limit(setting)
    return now - days * DAY if days else -math.inf
