"""Remove old files from OUTPUT_DIR: a periodic task, so that anonymous drawings do not fill it."""

import logging
import math
import re
import time
from pathlib import PurePosixPath
from typing import TypedDict

from libraries.files import Folder, outputs
from libraries.files.cleaning import remove_old
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
    only after `OUTPUT_KEEP_DAYS`, if that is set, and folders that have been empty for as long.
    """
    place = outputs()
    if not isinstance(place, Folder):
        log.info('%s is no local folder: a rule of the bucket removes old files.', place.setting)
        return Cleaned(files=0, size=0, folders=0)
    now = time.time()
    drawings, others = (_cutoff(now, f'{what}_KEEP_DAYS') for what in ('DRAWING', 'OUTPUT'))

    def is_old(path: PurePosixPath, modified: float) -> bool:
        if _LEFT.fullmatch(path.name):
            return modified < now - DAY
        is_drawing = len(path.parts) == 1 and _DRAWING.fullmatch(path.name) is not None
        return modified < (max(drawings, others) if is_drawing else others)

    removed = remove_old(place.path, is_old, emptied_before=others)
    return Cleaned(files=removed.files, size=removed.size, folders=removed.folders)


def _cutoff(now: float, setting: str) -> float:
    """The time before which files are old; some are dated before 1970."""
    days = limit(setting)
    return now - days * DAY if days else -math.inf
