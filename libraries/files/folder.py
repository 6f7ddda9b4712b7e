"""Files in a local folder: beneath it and through no link, and whole or not at all."""

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from libraries.files.beneath import folder_of, new_file, open_file
from libraries.files.names import parse_name

MAX_PATH = os.pathconf('/', 'PC_PATH_MAX') - 1  # bytes
_MISSING = (FileNotFoundError, NotADirectoryError)  # a file can be where a folder would be


@dataclass(frozen=True)
class Folder:
    """The local folder that a setting names."""

    setting: str
    path: Path  # absolute, its links resolved
    given: Path  # absolute, as it was written

    def __str__(self) -> str:
        return str(self.path)

    def name_of(self, name: str) -> str:
        """The name of a file within the folder, in its plainest form.

        Raises ValueError for a name outside the folder or one that cannot be a file's, and for
        one that is now a link, leads through one, or is a folder.
        """
        path = self._path_of(name)
        with suppress(OSError):  # which opening the file raises, if it is still so
            os.close(open_file(self.path, path))
        return str(path)

    def _path_of(self, name: str) -> PurePosixPath:
        """The path of a file below the folder, by its name alone."""
        return parse_name(name, self.setting, str(self.path), MAX_PATH, self.path, self.given)

    def result(self, name: str) -> Path:
        """What a task returns that has written a file: its absolute path."""
        return self.path / self._path_of(name)

    @contextmanager
    def create(self, name: str) -> Iterator[IO[bytes]]:
        """Open a new file that appears when the block ends without error, else leaves no trace."""
        path = PurePosixPath(self.name_of(name))
        # In the folder of the file: a rename is atomic only within one file system.
        part = f'.{secrets.token_hex(8)}.part'
        with ExitStack() as stack:
            try:
                folder, handle = self._begin(stack, path, part)
            except FileNotFoundError:  # a folder was old and empty, and clean_outputs removed it
                folder, handle = self._begin(stack, path, part)
            try:
                with os.fdopen(handle, 'w+b') as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                os.rename(part, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(part, dir_fd=folder)
                raise
            os.fsync(folder)  # makes the rename survive a power failure

    def _begin(self, stack: ExitStack, path: PurePosixPath, part: str) -> tuple[int, int]:
        """Make the folder of a new file, and the file as `part` there; return both, open."""
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            folder = stack.enter_context(folder_of(self.path, path, make=True))
        except NotADirectoryError as error:
            raise ValueError(f'The file name cannot be used: {error}') from None
        return folder, new_file(folder, part)

    def open(self, name: str) -> IO[bytes]:
        """Open a file for reading. Raises FileNotFoundError."""
        try:
            handle = open_file(self.path, self._path_of(name))
        except _MISSING:
            raise FileNotFoundError(
                f'There is no file {name!r} in {self} ({self.setting}).'
            ) from None
        except PermissionError as error:
            raise PermissionError(
                f'The file {name!r} in {self} ({self.setting}) may not be read by this process, '
                f'of user {os.geteuid()}: fix its permissions.'
            ) from error
        return os.fdopen(handle, 'rb')

    @contextmanager
    def copy(self, name: str) -> Iterator[Path]:
        """The path of a file that is open: whatever its name is for meanwhile.

        Raises FileNotFoundError.
        """
        with self.open(name) as file:
            yield Path(f'/dev/fd/{file.fileno()}')

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        path = PurePosixPath(self.name_of(name))
        with suppress(*_MISSING), folder_of(self.path, path) as folder:
            os.unlink(path.name, dir_fd=folder)
