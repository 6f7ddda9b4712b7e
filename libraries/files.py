"""Names → paths inside the upload and output folders; files that appear whole or not at all."""

import hashlib
import os
import pprint
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from qdjobs.errors import short_repr

MAX_NAME = 255  # bytes, of one part of a path: what Linux and macOS allow


def upload_dir() -> Path:
    """The folder of uploaded files, from `UPLOAD_DIR`."""
    return Path(os.environ.get('UPLOAD_DIR') or 'uploads').resolve()


def output_dir() -> Path:
    """The folder of the files that tasks write, from `OUTPUT_DIR`."""
    return Path(os.environ.get('OUTPUT_DIR') or 'output').resolve()


def upload_path(name: str) -> Path:
    """The absolute path of an uploaded file. ValueError for a name that leaves `UPLOAD_DIR`."""
    return _inside(upload_dir(), name, 'UPLOAD_DIR')


def output_path(name: str) -> Path:
    """The absolute path of an output file. ValueError for a name that leaves `OUTPUT_DIR`."""
    return _inside(output_dir(), name, 'OUTPUT_DIR')


def write_output(name: str, content: str | bytes) -> Path:
    """Write a whole output file, replacing one of that name, and return its path."""
    with open_output(name) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return output_path(name)


def call_digest(*arguments: object) -> str:
    """16 hex digits for the name of a file to which the same call goes again, and no other."""
    # Of what Python would write for them, keys sorted: 7 is not '7'.
    return hashlib.sha256(pprint.saferepr(arguments).encode()).hexdigest()[:16]


@contextmanager
def open_output(name: str) -> Iterator[IO[bytes]]:
    """A binary file to write to, which stands under its name once the block has ended well.

    If the block raises, the disk is full or the process is killed, the name is as it was.
    """
    target = output_path(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Beside the target, since only a rename within one file system is one step.
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
        os.fsync(handle)  # the rename itself must outlive a power cut
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
    # An absolute name stands for itself; resolving follows the links that could lead out.
    try:
        path = (folder / name).resolve()
        is_folder = path.is_dir()
    except (OSError, RuntimeError) as error:  # a path too long as a whole, or links in a ring
        raise ValueError(f'The file name {short_repr(name)} cannot be used: {error}.') from error
    if path == folder or not path.is_relative_to(folder):
        raise ValueError(f'{name!r} lies outside {setting}.')
    if is_folder:
        raise ValueError(f'{name!r} is a folder, not a file.')
    return path
