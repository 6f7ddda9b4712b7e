"""Resolve file names inside the upload and output folders; write files atomically."""

import hashlib
import os
import pprint
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from qdjobs.errors import short_repr

MAX_NAME = 255  # bytes in one part of a path: the limit of Linux and macOS


def upload_dir() -> Path:
    """The folder of uploaded files: `UPLOAD_DIR`, or `uploads`."""
    return Path(os.environ.get('UPLOAD_DIR') or 'uploads').resolve()


def output_dir() -> Path:
    """The folder of the files that tasks write: `OUTPUT_DIR`, or `output`."""
    return Path(os.environ.get('OUTPUT_DIR') or 'output').resolve()


def upload_path(name: str) -> Path:
    """The absolute path of an uploaded file.

    Raises ValueError for a name outside `UPLOAD_DIR` or one that cannot be a file's.
    """
    return _inside(upload_dir(), name, 'UPLOAD_DIR')


def output_path(name: str) -> Path:
    """The absolute path of an output file.

    Raises ValueError for a name outside `OUTPUT_DIR` or one that cannot be a file's.
    """
    return _inside(output_dir(), name, 'OUTPUT_DIR')


def write_output(name: str, content: str | bytes) -> Path:
    """Write an output file atomically, replacing any file of that name; return its path."""
    with open_output(name) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return output_path(name)


def call_digest(*arguments: object) -> str:
    """16 hex digits that identify a call's arguments, to name its output file.

    The same arguments give the same digits in every process, different arguments different ones.
    """
    # The repr with sorted keys, in which 7 and '7' differ.
    return hashlib.sha256(pprint.saferepr(arguments).encode()).hexdigest()[:16]


@contextmanager
def open_output(name: str) -> Iterator[IO[bytes]]:
    """Open a binary output file that appears under its name when the block ends without error.

    If the block raises, the disk is full or the process is killed, an existing file of that
    name is unchanged.
    """
    target = output_path(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    # In the target's folder: a rename is atomic only within one file system.
    part = target.with_name(f'.{secrets.token_hex(8)}.part')
    try:
        with part.open('xb') as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)  # makes the rename survive a power failure
    finally:
        os.close(handle)


def _inside(folder: Path, name: str, setting: str) -> Path:
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise ValueError(f'A file name must be printable text, not {short_repr(name)}.')
    parts = Path(name).parts
    if '..' in parts:
        raise ValueError(f'The file name {name!r} must not contain "..".')
    too_long = [part for part in parts if len(os.fsencode(part)) > MAX_NAME]
    if too_long:
        raise ValueError(f'The file name {too_long[0][:40]}… has more than {MAX_NAME} bytes.')
    # An absolute name replaces the folder here; resolve() follows links that may lead outside.
    try:
        path = (folder / name).resolve()
        is_folder = path.is_dir()
    except (OSError, RuntimeError) as error:  # the whole path is too long, or links form a loop
        raise ValueError(f'The file name {short_repr(name)} cannot be used: {error}.') from error
    if path == folder or not path.is_relative_to(folder):
        raise ValueError(f'{name!r} lies outside {setting}.')
    if is_folder:
        raise ValueError(f'{name!r} is a folder, not a file.')
    return path
