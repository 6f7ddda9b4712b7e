"""Check names of files that come from a caller; the same for folders and object stores."""

import hashlib
import os
import pprint
from pathlib import Path, PurePosixPath

from qdjobs.errors import short_repr

WEB_UPLOADS = Path('/uploads')  # what web code calls UPLOAD_DIR, wherever that lies
MAX_NAME = 255  # bytes in one part of a path: the limit of Linux and macOS


def parse_name(name: str, setting: str, prefix: str, most: int, *folders: Path) -> PurePosixPath:
    """Return the path of a file below the place of a setting, whose paths are `folders`.

    `/uploads/a.csv` is a.csv in UPLOAD_DIR. Raises ValueError for a name that cannot be a file's,
    goes up or lies outside, or has more than `most` bytes with the `prefix` of its place.
    """
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise ValueError(f'A file name must be printable text, not {short_repr(name)}.')
    path = PurePosixPath(name)
    if '..' in path.parts:
        raise ValueError(f'The file name {name!r} must not contain "..".')
    too_long = [part for part in path.parts if len(os.fsencode(part)) > MAX_NAME]
    if too_long:
        raise ValueError(f'The file name {too_long[0][:40]}… has more than {MAX_NAME} bytes.')
    for folder in (*folders, WEB_UPLOADS) if setting == 'UPLOAD_DIR' else folders:
        if path.is_relative_to(folder):
            path = path.relative_to(folder)
    if path.is_absolute() or not path.parts:
        raise ValueError(f'{name!r} lies outside {setting}.')
    if len(os.fsencode(f'{prefix}/{path}')) > most:
        raise ValueError(
            f'The file name {short_repr(name)} is too long: with the path of {setting} it has more '
            f'than {most} bytes.'
        )
    return path


def call_digest(*arguments: object) -> str:
    """16 hex digits that identify a call's arguments, to name its output file.

    The same arguments give the same digits in every process, different arguments different ones.
    """
    # The repr with sorted keys, in which 7 and '7' differ.
    return hashlib.sha256(pprint.saferepr(arguments).encode()).hexdigest()[:16]
