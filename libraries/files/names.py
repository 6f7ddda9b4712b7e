"""Check names of files that come from a caller; the same for folders and object stores."""

import hashlib
import os
import pprint
from pathlib import PurePosixPath

from qdjobs.errors import short_repr

WEB_UPLOADS = PurePosixPath('/uploads')  # what web code calls UPLOAD_DIR, wherever that lies
MAX_NAME = 255  # bytes in one part of a path: the limit of Linux and macOS


def parse_name(name: str) -> PurePosixPath:
    """Return a name as a path. Raises ValueError for one that cannot be a file's or goes up."""
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise ValueError(f'A file name must be printable text, not {short_repr(name)}.')
    path = PurePosixPath(name)
    if '..' in path.parts:
        raise ValueError(f'The file name {name!r} must not contain "..".')
    too_long = [part for part in path.parts if len(os.fsencode(part)) > MAX_NAME]
    if too_long:
        raise ValueError(f'The file name {too_long[0][:40]}… has more than {MAX_NAME} bytes.')
    return path


def name_below(path: PurePosixPath, setting: str) -> PurePosixPath:
    """Return the name of a file in the folder of a setting: `/uploads/a.csv` is a.csv."""
    is_web_name = setting == 'UPLOAD_DIR' and path.is_relative_to(WEB_UPLOADS)
    return path.relative_to(WEB_UPLOADS) if is_web_name else path


def call_digest(*arguments: object) -> str:
    """16 hex digits that identify a call's arguments, to name its output file.

    The same arguments give the same digits in every process, different arguments different ones.
    """
    # The repr with sorted keys, in which 7 and '7' differ.
    return hashlib.sha256(pprint.saferepr(arguments).encode()).hexdigest()[:16]
