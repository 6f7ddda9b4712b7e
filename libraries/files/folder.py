"""Files in a local folder: inside it, links included, and whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from libraries.files.names import name_below, parse_name
from qdjobs.errors import short_repr


@dataclass(frozen=True)
class Folder:
    """The local folder that a setting names."""

    setting: str
    path: Path  # absolute, its links resolved

    def __str__(self) -> str:
        return str(self.path)

    def name_of(self, name: str) -> str:
        """The name of a file within the folder, its links resolved.

        Raises ValueError for a name outside the folder or one that cannot be a file's.
        """
        return str(self.find(name).relative_to(self.path))

    def find(self, name: str) -> Path:
        """The absolute path of a file. Raises ValueError as `name_of` does."""
        given = parse_name(name)
        # An absolute name replaces the folder here; resolve() follows links that may lead outside.
        try:
            path = (self.path / given).resolve()
            if not path.is_relative_to(self.path):
                path = (self.path / name_below(given, self.setting)).resolve()
            is_folder = path.is_dir()
        # The whole path is too long, or links form a loop.
        except (OSError, RuntimeError) as error:
            raise ValueError(
                f'The file name {short_repr(name)} cannot be used: {error}.'
            ) from error
        if path == self.path or not path.is_relative_to(self.path):
            raise ValueError(f'{name!r} lies outside {self.setting}.')
        if is_folder:
            raise ValueError(f'{name!r} is a folder, not a file.')
        return path

    def result(self, name: str) -> Path:
        """What a task returns that has written a file: its absolute path."""
        return self.find(name)

    @contextmanager
    def create(self, name: str, patience: float | None = None) -> Iterator[IO[bytes]]:
        """Open a new file that appears when the block ends without error, else leaves no trace.

        A disk is not waited for.
        """
        target = self.find(name)
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

    @contextmanager
    def open(self, name: str, patience: float | None = None) -> Iterator[IO[bytes]]:
        """Open a file for reading; a disk is not waited for. Raises FileNotFoundError."""
        with self.copy(name) as path, path.open('rb') as file:
            yield file

    @contextmanager
    def copy(self, name: str) -> Iterator[Path]:
        """The path of a file, which is the file itself. Raises FileNotFoundError."""
        path = self.find(name)
        if not path.is_file():  # opening a pipe would block
            raise FileNotFoundError(f'There is no file {name!r} in {self} ({self.setting}).')
        yield path

    def state(self, name: str) -> str:
        """Size and modification time of a file, or 'missing'."""
        try:
            found = self.find(name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return 'missing'
        return f'{found.st_size}:{found.st_mtime_ns}'

    def remove(self, name: str, patience: float | None = None) -> None:
        """Remove a file, if it is there; a disk is not waited for."""
        self.find(name).unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)  # makes the rename survive a power failure
    finally:
        os.close(handle)
