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
            above, folder = folder, _open(folder, part, path)
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
    folders = [PurePosixPath()]
    while folders:
        above = folders.pop()
        try:
            with folder_of(root, above / '-') as folder, os.scandir(folder) as entries:
                for entry in entries:
                    path = above / entry.name
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(path)
                    yield folder, path, entry
        except (FileNotFoundError, NotADirectoryError, ValueError):
            continue  # it has gone, or is something else now
        except PermissionError as error:
            log.warning('Cannot look into %s: %s', root / above, error)


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
