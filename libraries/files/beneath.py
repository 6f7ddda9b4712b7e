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
from contextlib import ExitStack, contextmanager, suppress
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
    mode = os.fstat(file).st_mode
    if stat.S_ISREG(mode):
        return file
    os.close(file)
    if stat.S_ISDIR(mode):
        raise ValueError(f'{str(path)!r} is a folder, not a file.')
    raise _no_file(path)


def new_file(folder: int, name: str) -> int:
    """Make a file in an open folder, to write and to read. Raises FileExistsError."""
    return os.open(name, _NEW, 0o666, dir_fd=folder)


def walk(root: Path) -> Iterator[tuple[int, PurePosixPath, os.stat_result]]:
    """All that is beneath a folder, folders before what is in them.

    Gives the descriptor of the folder in which it is, of use until the next one, its path, and what
    the system says of it. Leaves out what disappears meanwhile, and what it may not read, with a
    warning. One folder is open at a time, however deep it is: os.fwalk opens one for each level.
    """
    waiting = [PurePosixPath()]
    folder, path = -1, PurePosixPath('-')  # none is open
    with ExitStack() as stack:
        while waiting:
            above, path = path, waiting.pop()
            with _leaving_out(root / path):
                if path.parent == above:  # the folder that is open
                    entered = _open_folder(folder, path.name, path)
                else:
                    with folder_of(root, path / '-') as again:
                        entered = os.dup(again)
                stack.close()
                stack.callback(os.close, folder := entered)
                os.stat('.', dir_fd=folder)  # a folder that can only be listed is one warning
                with os.scandir(folder) as entries:
                    for entry in entries:
                        with _leaving_out(root / path / entry.name):
                            found = entry.stat(follow_symlinks=False)
                            if stat.S_ISDIR(found.st_mode):
                                waiting.append(path / entry.name)
                            yield folder, path / entry.name, found


@contextmanager
def _leaving_out(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return  # it has gone, or is something else now
    except OSError as error:
        log.warning('Cannot look into %s: %s', path, error)


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
            raise ValueError(
                f'The file name {str(path)!r} cannot be used: {part!r} is a symbolic link, and '
                'links are not followed. Use the name of the file itself.'
            ) from None
        if error.errno == errno.ENXIO:  # a socket
            raise _no_file(path) from None
        raise


def _no_file(path: PurePosixPath) -> FileNotFoundError:
    return FileNotFoundError(errno.ENOENT, 'is no regular file', str(path))
