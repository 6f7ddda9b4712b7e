"""Read uploaded files and write output files, by names: in local folders or in an object store.

`UPLOAD_DIR` and `OUTPUT_DIR` say where. All that a task needs is here: `write_output` and
`open_output` write a file whole or not at all, `open_upload` reads one as a file object,
`upload_copy` is a local path for libraries that need one. docs/files.md has the rest.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path, PurePath
from typing import IO

from libraries.files.folder import Folder
from libraries.files.names import call_digest
from libraries.files.room import NoRoomError, require_room
from libraries.files.settings import Place, check_names, outputs, read_file_settings, uploads
from libraries.files.store import StorageError, Store
from qdjobs.errors import PermanentJobError, short_repr

__all__ = [
    'Folder',
    'NoRoomError',
    'Place',
    'StorageError',
    'Store',
    'call_digest',
    'check_names',
    'open_output',
    'open_upload',
    'output_dir',
    'outputs',
    'permanent_upload_errors',
    'read_file_settings',
    'require_room',
    'upload_copy',
    'upload_dir',
    'uploads',
    'write_output',
]


def write_output(name: str, content: str | bytes) -> PurePath:
    """Write an output file as a whole, replacing any file of that name; return where it is.

    That is the absolute path in a local folder, and the name itself in an object store: `str` of
    it is what a task returns.
    """
    with open_output(name) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return outputs().result(name)


def open_output(name: str) -> AbstractContextManager[IO[bytes]]:
    """Open a binary output file that appears under its name when the block ends without error.

    It is a local file until then: it can seek, be read, and has a `fileno()`, of which
    `/dev/fd/<fileno>` is a path. If the block raises, the disk is full, an upload fails or the
    process is killed, an existing file of that name is unchanged. Raises ValueError for a name that
    cannot be used.
    """
    return outputs().create(name)


def open_upload(name: str) -> AbstractContextManager[IO[bytes]]:
    """Open an uploaded file for reading; it can seek. Raises FileNotFoundError or ValueError."""
    return uploads().open(name)


def upload_copy(name: str) -> AbstractContextManager[Path]:
    """A path of an uploaded file, or of a copy, until the end of the block.

    Of a local file it is `/dev/fd/<n>`, since the file under its name may be exchanged: it has no
    ending, and a child process needs the descriptor (`pass_fds`). Raises FileNotFoundError or
    ValueError.
    """
    return uploads().copy(name)


@contextmanager
def permanent_upload_errors(name: str) -> Iterator[None]:
    """Raise PermanentJobError where an uploaded file is missing, closed to the worker or a link.

    A store that refuses is tried again: its credentials may change.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise PermanentJobError(
            f'{short_repr(name)}: there is no such file in {uploads()} (UPLOAD_DIR).'
        ) from error
    except PermissionError as error:
        raise PermanentJobError(
            f'{short_repr(name)}: the worker may not read it: fix its permissions.'
        ) from error
    except ValueError as error:
        raise PermanentJobError(str(error)) from error


def upload_dir() -> Path:
    """The local folder of uploaded files. Raises ValueError if `UPLOAD_DIR` is none."""
    return uploads().path


def output_dir() -> Path:
    """The local folder of the files that tasks write. Raises ValueError if `OUTPUT_DIR` is none."""
    return outputs().path
