"""Files in an object store, by fsspec: whole or not at all, and errors that contain no secret.

What is written is a local file first, and uploaded when it is complete; what needs a path gets a
local copy. So tasks and their libraries meet a local file in both directions.
"""

import asyncio
import errno
import hashlib
import math
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from libraries.files.names import parse_name

TURN = 0.2  # seconds
BLOCK = 1 << 20  # bytes that a reader requests at a time
PART = 8 << 20  # bytes of a large object in one request of an upload
MOST_AT_ONCE = 4  # parts, which are in memory
MOST_PARTS = 10_000  # of one upload, in S3
MAX_KEY = 1024  # bytes in the name of an object, its prefix included: the limit of S3
UNSEEN = ('?versionId=', '://')  # which s3fs, and fsspec, cut out of a name

S3 = {'s3', 's3a'}
# Where an upload appears as a whole. Elsewhere, as on a server of files, a rename makes it so.
WHOLE = {'gs', 'gcs', 'abfs', 'abfss', 'az', 'oss'}
# What identifies the content of an object; each store has some of them.
MARKS = (
    'size', 'ETag', 'etag', 'md5Hash', 'LastModified', 'last_modified', 'updated', 'mtime',
    'created',
)  # fmt: skip


class StorageError(OSError):
    """An object store does not answer, or refuses: one sentence that names the setting."""


@dataclass(frozen=True)
class Found:
    """What a store says of an object."""

    size: int
    version: str  # changes with the content
    modified: datetime | None


@dataclass(frozen=True)
class Store:
    """The place in an object store that a setting names."""

    setting: str
    url: str  # without a slash at its end, and without secrets
    patience: float = math.inf  # seconds for each answer

    def __str__(self) -> str:
        return self.url

    @property
    def path(self) -> Path:
        """The local folder that this is not: raises ValueError."""
        raise ValueError(f'{self.setting} is no local folder: use the functions that open a file.')

    def name_of(self, name: str) -> str:
        """The name of an object below the URL, in its plainest form.

        Raises ValueError for an absolute name or one that cannot be an object's.
        """
        path = parse_name(name, self.setting, self.url.partition('://')[2], MAX_KEY)
        if unseen := [text for text in UNSEEN if text in name]:
            raise ValueError(f'The file name {name!r} must not contain "{unseen[0]}".')
        return str(path)

    def result(self, name: str) -> PurePosixPath:
        """What a task returns that has written a file: its name, the same on every machine."""
        return PurePosixPath(self.name_of(name))

    @contextmanager
    def create(self, name: str) -> Iterator[IO[bytes]]:
        """Open a local file that is uploaded when the block ends without error.

        The object appears as a whole at the end of the upload. If the block or the upload fails,
        or the process is killed, an existing object of that name is unchanged.
        """
        target = self._locate(name)
        with _scratch(name) as scratch:
            yield scratch.file
            scratch.flush()
            self._upload(scratch.name, target)

    def _upload(self, path: str, target: str) -> None:
        if self._scheme in S3:  # which would take 500 MB of memory
            part = max(PART, os.stat(path).st_size // (MOST_PARTS - 1))
            self._call('put_file', path, target, chunksize=part, max_concurrency=MOST_AT_ONCE)
        elif self._scheme in WHOLE:
            self._call('put_file', path, target)
        else:
            folder, _, _ = target.rpartition('/')
            part_path = f'{folder}/.{secrets.token_hex(8)}.part'
            self._call('makedirs', folder, exist_ok=True)
            try:
                self._call('put_file', path, part_path)
                self._call('mv', part_path, target)
            except BaseException:
                with suppress(FileNotFoundError):
                    self._call('rm_file', part_path)
                raise

    def open(self, name: str, found: Found | None = None) -> IO[bytes]:
        """Open an object, as it has been found, for reading in blocks. Raises FileNotFoundError."""
        from fsspec.caching import ReadAheadCache
        from fsspec.spec import AbstractBufferedFile

        found = found or self.look(name)
        file = AbstractBufferedFile(None, name, size=found.size)
        file.cache = ReadAheadCache(BLOCK, partial(self._read, name, found), found.size)
        return cast(IO[bytes], file)

    @contextmanager
    def copy(self, name: str) -> Iterator[Path]:
        """Download an object to a local file, which is removed after the block.

        Raises FileNotFoundError, and StorageError if the object changes meanwhile.
        """
        found = self.look(name)  # a prefix of other objects is not one
        # In one request: if one of several fails, s3fs lets the others go on.
        at_once = {'max_concurrency': 1} if self._scheme in S3 else {}
        with _scratch(name) as scratch:
            self._call('get_file', self._locate(name), scratch.name, **at_once)
            self._require_version(name, found, os.stat(scratch.name).st_size == found.size)
            yield Path(scratch.name)

    def look(self, name: str) -> Found:
        """What the store says of an object. Raises FileNotFoundError."""
        info = self._call('info', self._locate(name))
        if info.get('type') != 'file':
            raise FileNotFoundError(f'There is no such file in {self} ({self.setting}).')
        marks = [str(info.get(mark)) for mark in MARKS]
        modified = next((info[key] for key in MARKS if isinstance(info.get(key), datetime)), None)
        version = hashlib.sha256('\n'.join(marks).encode()).hexdigest()[:32]
        return Found(int(info['size']), version, modified)

    def _read(self, name: str, found: Found, start: int, end: int) -> bytes:
        """The bytes of an object, as it has been found, from `start` to before `end`."""
        content: bytes = self._call('cat_file', self._locate(name), start=start, end=end)
        self._require_version(name, found, len(content) == end - start)
        return content

    def _require_version(self, name: str, found: Found, is_whole: bool) -> None:
        """Raise StorageError if what has been read is not of the version that has been found.

        Called after reading: a replacement before or meanwhile is found too.
        """
        if not is_whole or self.look(name).version != found.version:
            raise StorageError(f'{name!r} in {self} has changed while it was read.')

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        with suppress(FileNotFoundError):
            self._call('rm_file', self._locate(name))

    @property
    def _scheme(self) -> str:
        return self.url.partition('://')[0]

    def _locate(self, name: str) -> str:
        _, root = connect(self.url)
        return f'{root}/{self.name_of(name)}'

    def _call(self, method: str, path: str, *arguments: Any, **more: Any) -> Any:
        """Call a method of the file system, and translate its errors."""
        filesystem, _ = connect(self.url)
        if not (filesystem.async_impl and hasattr(filesystem, f'_{method}')):
            try:
                return getattr(filesystem, method)(path, *arguments, **more)
            # Not Exception: a job's time-out is raised in this thread too.
            except (OSError, ValueError, NotImplementedError) as error:
                raise self._translate(error, method) from None
        coroutine = getattr(filesystem, f'_{method}')(path, *arguments, **more)
        future = asyncio.run_coroutine_threadsafe(coroutine, filesystem.loop)
        deadline = time.monotonic() + self.patience
        try:
            # In turns: a signal, such as a job's time-out, just before a wait does not end it.
            while not wait([future], TURN).done:
                if time.monotonic() >= deadline:
                    raise StorageError(
                        f'{self.setting}: {self} has not answered within {self.patience:g} s.'
                    )
        finally:
            future.cancel()  # nothing goes on without its caller
        failure = future.exception()
        if failure is not None:
            raise self._translate(failure, method) from None
        return future.result()

    def _translate(self, error: BaseException, method: str) -> OSError:
        """One sentence of our own: the texts of a store's client may have addresses and keys."""
        code = _code(error)
        is_missing = isinstance(error, FileNotFoundError)
        if code == 'NoSuchBucket' or (is_missing and method == 'put_file'):
            return StorageError(f'{self.setting}: the bucket of {self} does not exist.')
        if code == 'InvalidRange':  # none is requested beyond the size that was found
            return StorageError(f'{self.setting}: a file in {self} has changed while it was read.')
        if is_missing:
            return FileNotFoundError(f'There is no such file in {self} ({self.setting}).')
        if isinstance(error, PermissionError) or 'Credentials' in code:
            return StorageError(
                f'{self.setting}: {self} refuses access ({code}): check the credentials of this '
                'process and what they permit.'
            )
        return StorageError(f'{self.setting}: {self} cannot be reached or used ({code}).')


def _code(error: BaseException) -> str:
    """What a store or the system calls an error."""
    response = getattr(error.__cause__, 'response', None)  # of botocore
    if isinstance(response, dict) and response.get('Error', {}).get('Code'):
        return str(response['Error']['Code'])
    number = getattr(error, 'errno', None) or 0
    return errno.errorcode.get(number, type(error).__name__)


def _scratch(name: str) -> 'tempfile._TemporaryFileWrapper[bytes]':
    """A local file; its ending is that of the name, which tells its type, if it is that short."""
    ending = PurePosixPath(name).suffix
    return tempfile.NamedTemporaryFile(prefix='qdjobs-', suffix=ending if len(ending) < 20 else '')


def connect(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path there."""
    bucket = '/'.join(url.split('/')[:3])
    filesystem = file_system(bucket, os.getpid())
    return filesystem, filesystem._strip_protocol(url).rstrip('/')


@lru_cache(maxsize=8)
def file_system(bucket: str, pid: int) -> Any:
    """One for each process, for all its threads; fsspec has one for each of them, which is slow."""
    from fsspec.core import url_to_fs

    return url_to_fs(bucket, skip_instance_cache=True, use_listings_cache=False)[0]
