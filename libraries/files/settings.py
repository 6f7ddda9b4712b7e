"""Read UPLOAD_DIR and OUTPUT_DIR: each is a local folder or the URL of a store."""

import errno
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from libraries.files.folder import Folder
from libraries.files.store import Store

Place = Folder | Store

DEFAULTS = {'UPLOAD_DIR': 'uploads', 'OUTPUT_DIR': 'output'}
PACKAGES = {
    's3': 's3fs', 's3a': 's3fs', 'gs': 'gcsfs', 'gcs': 'gcsfs', 'abfs': 'adlfs', 'abfss': 'adlfs',
    'az': 'adlfs', 'oss': 'ossfs', 'memory': 'fsspec',
}  # fmt: skip

_URL = re.compile(r'([a-z][a-z0-9+.-]*)://(.*)', re.DOTALL)
_LIKE_URL = re.compile(r'[A-Za-z][A-Za-z0-9+.:-]*:')  # also s3:/bucket and simplecache::s3://bucket
# What any place can have. Others are compared with the path of the place, which takes longer.
_COMMON_NAME = re.compile(r'(?!.*\.\.)\w[\w./-]{0,59}')  # has less than 255 bytes


def read_file_settings(env: Mapping[str, str] | None = None) -> None:
    """Check all settings. Raises ValueError, naming the variable, for an invalid value."""
    for setting in DEFAULTS:
        place = read_place(setting, env=env)
        if isinstance(place, Folder):  # later that is worth another attempt
            above = next(filter(os.path.exists, (place.path, *place.path.parents)))
            if not above.is_dir():
                raise ValueError(
                    f'{setting} must name a folder: {place} is a file, or lies below one.'
                )


def uploads(patience: float = math.inf) -> Place:
    """Where uploaded files are: `UPLOAD_DIR`, or the folder `uploads`.

    A store has `patience` seconds for each answer.
    """
    return read_place('UPLOAD_DIR', patience)


def outputs(patience: float = math.inf) -> Place:
    """Where tasks write files: `OUTPUT_DIR`, or the folder `output`; `patience` as in uploads."""
    return read_place('OUTPUT_DIR', patience)


def read_place(
    setting: str, patience: float = math.inf, env: Mapping[str, str] | None = None
) -> Place:
    """What a setting names. Raises ValueError, naming it, for what is neither folder nor URL."""
    text = (os.environ if env is None else env).get(setting) or DEFAULTS[setting]
    if _LIKE_URL.match(text) is None and '://' not in text:
        return _local(setting, Path(text).absolute())
    url = _URL.fullmatch(text)
    if url is None or text != text.strip():
        raise ValueError(  # without the text, which may have a password
            f'{setting} looks like a URL and is none: write s3://bucket/prefix, without quotes or '
            'spaces around it, the scheme in lower case. The path of a folder with a colon begins '
            'with ./ or /.'
        )
    scheme, rest = url.groups()
    if scheme != 'file':
        return Store(setting, _store_url(setting, scheme, rest.rstrip('/')), patience)
    if not rest.startswith('/') or not rest.strip('/'):
        raise ValueError(f'{setting} must name a folder of this machine: file:///path/to/folder.')
    return _local(setting, Path(rest))


def check_names(setting: str, names: Iterable[str]) -> None:
    """Raise ValueError for a name that no file at the place of a setting can have.

    For checks at enqueue: it looks at no file, and leaves a wrong setting to the worker. So it does
    with paths and URLs, if only the worker has the setting.
    """
    names = [name for name in names if not _COMMON_NAME.fullmatch(name)]
    if not os.environ.get(setting):
        names = [name for name in names if not name.startswith('/') and '://' not in name]
    if not names:
        return
    try:
        place = read_place(setting)
    except (OSError, ValueError):
        return
    for name in names:
        place.result(name)


def _local(setting: str, path: Path) -> Folder:
    try:
        path.stat()
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            raise ValueError(f'{setting} cannot be a folder: {path}: {error.strerror}.') from None
    return Folder(setting, path.resolve(), path)


def _store_url(setting: str, scheme: str, path: str) -> str:
    if ':' in path.partition('@')[0] and '@' in path:
        raise ValueError(
            f'{setting} must contain no password: pass credentials as the {scheme} client expects '
            'them, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.'
        )
    if scheme != 'memory' and not path:
        raise ValueError(f'{setting} names no bucket: write {scheme}://bucket/prefix.')
    if not path.isprintable() or {'.', '..'} & set(path.split('/')) or '?' in path or '#' in path:
        raise ValueError(f'{setting} must be a plain URL: no "..", "?" or "#" in {scheme}://…')
    if path and '' in path.split('/'):
        raise ValueError(f'{setting} has two slashes in a row after {scheme}://.')
    try:
        from fsspec import get_filesystem_class

        get_filesystem_class(scheme)
    except ImportError as error:  # fsspec, or what it needs for this store
        advice = f'pip install {PACKAGES[scheme]}' if scheme in PACKAGES else error
        raise ValueError(f'{setting} is a URL, for which a package is missing: {advice}') from None
    except ValueError:
        raise ValueError(
            f'{setting} begins with {scheme}://, which is not known: use s3://, gs://, abfs:// or '
            'another scheme of fsspec, or a local folder.'
        ) from None
    return f'{scheme}://{path}'
