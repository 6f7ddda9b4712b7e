"""Remove old files from a local folder, and folders that are empty."""

import logging
import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from libraries.files.beneath import folder_of, walk

log = logging.getLogger(__name__)


class Removed(NamedTuple):
    """What has been removed."""

    files: int
    size: int  # bytes
    folders: int


def remove_old(
    root: Path, is_old: Callable[[PurePosixPath, float], bool], emptied_before: float
) -> Removed:
    """Remove files, of whose path and modification time `is_old` decides, and empty folders.

    Folders only if nothing has changed in them since `emptied_before`: a younger one may be about
    to get its first file. Links and what they lead to stay. What cannot be removed is logged.
    """
    files = size = 0
    folders = []
    for folder, path, entry in walk(root):
        try:
            found = entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                if found.st_mtime < emptied_before:
                    folders.append(path)
            elif entry.is_file(follow_symlinks=False) and is_old(path, found.st_mtime):
                os.unlink(entry.name, dir_fd=folder)
                files, size = files + 1, size + found.st_size
        except FileNotFoundError:  # somebody else has removed it
            continue
        except OSError as error:
            log.warning('Cannot remove the old file %s in %s: %s', path, root, error)
    # The walk meets a folder before those in it.
    removed = [path for path in reversed(folders) if _remove_folder(root, path)]
    return Removed(files, size, len(removed))


def _remove_folder(root: Path, path: PurePosixPath) -> bool:
    try:
        with folder_of(root, path) as above:
            os.rmdir(path.name, dir_fd=above)
    except (OSError, ValueError):  # it has files, or is something else by now
        return False
    return True
