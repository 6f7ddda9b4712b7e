"""Open files beneath a folder, by descriptors and through no symbolic link.

Each part of a path is opened in the folder that is open already, so what has been checked is what
is used: a file or folder that somebody exchanges for a link meanwhile is an error. openat2 could do
it in one call, on Linux alone.
"""

import errno
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

# Opening a pipe would block without O_NONBLOCK, which says nothing to files and folders.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW

log = logging.getLogger(__name__)


@contextmanager
def folder_of(root: Path, path: PurePosixPath, make: bool = False) -> Iterator[int]:
    """The descriptor of the folder in which `path` is; only `root` may be a link.

    With `make`, folders that are missing are made. Raises ValueError for a link.
    """
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in path.parent.parts:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=folder)
            above, folder = folder, _open_folder(folder, part, path)
            os.close(above)
        yield folder
    finally:
        os.close(folder)


def open_file(root: Path, path: PurePosixPath) -> int:
    """Open a file for reading. Raises FileNotFoundError, and ValueError for a link or folder."""
    with folder_of(root, path) as folder:
        file = _open(folder, path.name, path)
    try:
        require_file(os.fstat(file), path)
    except BaseException:
        os.close(file)
        raise
    return file


def new_file(folder: int, name: str) -> int:
    """Make a file in an open folder, to write and to read. Raises FileExistsError."""
    return os.open(name, _NEW, 0o666, dir_fd=folder)


def look(root: Path, path: PurePosixPath) -> os.stat_result:
    """What the system says of a file. Raises as `open_file` does."""
    with folder_of(root, path) as folder:
        found = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
    require_file(found, path)
    return found


def require_file(found: os.stat_result, path: PurePosixPath) -> None:
    """Raise ValueError for a link or folder, FileNotFoundError for a pipe, socket or device."""
    if stat.S_ISLNK(found.st_mode):
        raise _link_error(path.name, path)
    if stat.S_ISDIR(found.st_mode):
        raise ValueError(f'{str(path)!r} is a folder, not a file.')
    if not stat.S_ISREG(found.st_mode):
        raise FileNotFoundError(errno.ENOENT, 'is no regular file', str(path))


def walk(root: Path) -> Iterator[tuple[int, PurePosixPath, 'os.DirEntry[str]']]:
    """All that is beneath a folder, folders before what is in them.

    Gives the descriptor of the folder in which it is, its path and its entry, both of use until
    the next one. Leaves out what disappears meanwhile, and what it may not read, with a warning.
    """
    try:
        place = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return
    except PermissionError as error:
        log.warning('Cannot look into %s: %s', root, error)
        return
    walker = _Walker(root, place)
    try:
        yield from walker.entries()
        while walker.go_on():
            yield from walker.entries()
    finally:
        os.close(walker.place)


@dataclass
class _Level:
    """A folder between the root and the place of a walk, that included."""

    identity: tuple[int, int]
    path: PurePosixPath
    folders: list[str] = field(default_factory=list)  # in it, where the walk has not been


class _Walker:
    """A walk with one open folder, however deep it is: os.fwalk holds one for each level."""

    def __init__(self, root: Path, place: int) -> None:
        self.root = root
        self.place = place
        self._levels = [_Level(_identity(place), PurePosixPath())]

    def entries(self) -> Iterator[tuple[int, PurePosixPath, 'os.DirEntry[str]']]:
        """What is in the place."""
        level = self._levels[-1]
        try:
            os.stat('.', dir_fd=self.place)  # a folder that can only be listed is one warning
            with os.scandir(self.place) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        level.folders.append(entry.name)
                    yield self.place, level.path / entry.name, entry
        except FileNotFoundError:
            return  # it has gone
        except PermissionError as error:
            self._warn(level.path, error)

    def go_on(self) -> bool:
        """Go to the next folder, if there is one."""
        while self._levels:
            level = self._levels[-1]
            while level.folders:
                if self._enter(level, level.folders.pop()):
                    return True
            self._levels.pop()
            if self._levels:
                self._leave()
        return False

    def _enter(self, above: _Level, name: str) -> bool:
        path = above.path / name
        try:
            folder = _open_folder(self.place, name, path)
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return False  # it has gone, or is something else now
        except PermissionError as error:
            self._warn(path, error)
            return False
        self._move(folder)
        self._levels.append(_Level(_identity(folder), path))
        return True

    def _leave(self) -> None:
        """Go to the folder above, or leave out what is in it if it has gone."""
        level = self._levels[-1]
        with suppress(OSError):  # as if the place has gone, or may be listed only
            self._move(os.open('..', _READ, dir_fd=self.place))
        if _identity(self.place) == level.identity:
            return
        try:
            with folder_of(self.root, level.path / '-') as folder:
                self._move(os.dup(folder))
        except (OSError, ValueError) as error:
            self._warn(level.path, error)
            level.folders.clear()

    def _move(self, folder: int) -> None:
        os.close(self.place)
        self.place = folder

    def _warn(self, path: PurePosixPath, error: Exception) -> None:
        log.warning('Cannot look into %s: %s', self.root / path, error)


def _identity(folder: int) -> tuple[int, int]:
    found = os.fstat(folder)
    return found.st_dev, found.st_ino


def _open_folder(above: int, part: str, path: PurePosixPath) -> int:
    """Open a folder, `part` of a path. With O_DIRECTORY a link would be an error like a file."""
    folder = _open(above, part, path)
    if stat.S_ISDIR(os.fstat(folder).st_mode):
        return folder
    os.close(folder)
    raise NotADirectoryError(f'{str(path)!r}: {part!r} is a file, not a folder.')


def _open(folder: int, part: str, path: PurePosixPath) -> int:
    try:
        return os.open(part, _READ, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _link_error(part, path) from None
        if error.errno == errno.ENXIO:  # a socket
            raise FileNotFoundError(errno.ENOENT, 'is no regular file', str(path)) from None
        raise


def _link_error(part: str, path: PurePosixPath) -> ValueError:
    return ValueError(
        f'The file name {str(path)!r} cannot be used: {part!r} is a symbolic link, and links are '
        'not followed. Use the name of the file itself.'
    )
