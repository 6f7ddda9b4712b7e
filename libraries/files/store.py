"""Files in an object store, by fsspec: whole or not at all, and errors that contain no secret.

What is written is a local file first, and uploaded when it is complete; what needs a path gets a
local copy. So tasks and their libraries meet a local file in both directions.
"""

import asyncio
import errno
import hashlib
import io
import math
import os
import secrets
import tempfile
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any

from libraries.files.names import name_below, parse_name

TURN = 0.2  # seconds
BLOCK = 1 << 20  # bytes that a reader requests at a time
PART = 8 << 20  # bytes of a large object in one request
MOST_AT_ONCE = 4  # parts, which are in memory
MOST_PARTS = 10_000  # of one upload, in S3
MAX_KEY = 1024  # bytes in the name of an object, its prefix included: the limit of S3
UNSEEN = ('?versionId=', '://')  # which s3fs, and fsspec, cut out of a name

# Where an upload appears as a whole. Elsewhere, as on a server of files, a rename makes it so.
WHOLE = {'s3', 's3a', 'gs', 'gcs', 'abfs', 'abfss', 'az', 'oss'}
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

    def __str__(self) -> str:
        return self.url

    def name_of(self, name: str) -> str:
        """The name of an object below the URL, in its plainest form.

        Raises ValueError for an absolute name or one that cannot be an object's.
        """
        path = name_below(parse_name(name), self.setting)
        if path.is_absolute() or not path.parts:
            raise ValueError(f'{name!r} lies outside {self.setting}.')
        if unseen := [text for text in UNSEEN if text in name]:
            raise ValueError(f'The file name {name!r} must not contain "{unseen[0]}".')
        # Without the scheme and its slashes.
        if len(os.fsencode(f'{self.url.partition("://")[2]}/{path}')) > MAX_KEY:
            raise ValueError(
                f'The file name {name[:40]}… is too long: with the prefix of {self.setting} it '
                f'has more than {MAX_KEY} bytes.'
            )
        return str(path)

    def result(self, name: str) -> PurePosixPath:
        """What a task returns that has written a file: its name, the same on every machine."""
        return PurePosixPath(self.name_of(name))

    @contextmanager
    def create(self, name: str, patience: float | None = None) -> Iterator[IO[bytes]]:
        """Open a local file that is uploaded when the block ends without error.

        The object appears as a whole at the end of the upload. If the block or the upload fails,
        or the process is killed, an existing object of that name is unchanged. `patience` is
        seconds for the upload.
        """
        name = self.name_of(name)
        with _scratch(name) as path:
            with path.open('x+b') as file:
                yield file
                file.flush()
            self._upload(path, name, patience)

    def _upload(self, path: Path, name: str, patience: float | None) -> None:
        target = self._locate(name)
        if self._scheme in WHOLE:
            try:
                bounds = self._bounds(path.stat().st_size)
                self._call('put_file', str(path), target, patience=patience, **bounds)
            except FileNotFoundError:
                raise self._no_bucket() from None
            return
        folder, _, _ = target.rpartition('/')
        part = f'{folder}/.{secrets.token_hex(8)}.part'
        self._call('makedirs', folder, exist_ok=True, patience=patience)
        try:
            self._call('put_file', str(path), part, patience=patience)
            self._call('mv', part, target, patience=patience)
        except BaseException:
            self._remove(part, patience)
            raise

    def _bounds(self, size: int) -> dict[str, Any]:
        """Bounds the memory of an upload: s3fs would take 500 MB."""
        if self._scheme not in ('s3', 's3a'):
            return {}
        part = max(PART, size // (MOST_PARTS - 1))
        return {'chunksize': part, 'max_concurrency': MOST_AT_ONCE}

    @contextmanager
    def open(self, name: str, patience: float | None = None) -> Iterator[IO[bytes]]:
        """Open an object for reading, in blocks. Raises FileNotFoundError.

        `patience` is seconds for the answer to each request.
        """
        with self.reader(name, self.look(name, patience), patience) as file:
            yield file

    def reader(self, name: str, found: Found, patience: float | None = None) -> IO[bytes]:
        """The object that has been found, as a file. Requests nothing before it is read."""
        return io.BufferedReader(_Reader(self, name, found, patience), BLOCK)

    @contextmanager
    def copy(self, name: str) -> Iterator[Path]:
        """Download an object to a local file, which is removed after the block.

        Raises FileNotFoundError, and StorageError if the object changes meanwhile.
        """
        found = self.look(name)  # a prefix of other objects is not one
        with _scratch(name) as path:
            with path.open('xb') as file:
                for start in range(0, found.size, MOST_AT_ONCE * PART):
                    end = min(start + MOST_AT_ONCE * PART, found.size)
                    file.writelines(self._read_parts(name, start, end))
                is_whole = file.tell() == found.size
            self.require_version(name, found, is_whole)
            yield path

    def look(self, name: str, patience: float | None = None) -> Found:
        """What the store says of an object. Raises FileNotFoundError."""
        info = self._call('info', self._locate(name), patience=patience)
        if info.get('type') != 'file':
            raise FileNotFoundError(f'There is no such file in {self} ({self.setting}).')
        marks = [str(info.get(mark)) for mark in MARKS]
        modified = next((info[key] for key in MARKS if isinstance(info.get(key), datetime)), None)
        version = hashlib.sha256('\n'.join(marks).encode()).hexdigest()[:32]
        return Found(int(info['size']), version, modified)

    def require_version(
        self, name: str, found: Found, is_whole: bool, patience: float | None = None
    ) -> None:
        """Raise StorageError if what has been read is not of the version that has been found.

        Called after reading: a replacement before or meanwhile is found too.
        """
        if not is_whole or self.look(name, patience).version != found.version:
            raise StorageError(f'{name!r} in {self} has changed while it was read.')

    def read(self, name: str, start: int, end: int, patience: float | None = None) -> bytes:
        """The bytes of an object from `start` to before `end`. Raises FileNotFoundError."""
        content: bytes = self._call(
            'cat_file', self._locate(name), start=start, end=end, patience=patience
        )
        return content

    def _read_parts(self, name: str, start: int, end: int) -> list[bytes]:
        """The same in parts, at once if the client can do so."""
        filesystem, _ = connect(self.url)
        ranges = [(each, min(each + PART, end)) for each in range(start, end, PART)]
        if not filesystem.async_impl:
            return [self.read(name, *each) for each in ranges]
        path = self._locate(name)
        parts = [filesystem._cat_file(path, start=first, end=last) for first, last in ranges]
        read: list[bytes] = self._await(all_or_none(parts), filesystem.loop, None)
        return read

    def remove(self, name: str, patience: float | None = None) -> None:
        """Remove an object, if it is there."""
        self._remove(self._locate(name), patience)

    def _remove(self, path: str, patience: float | None) -> None:
        try:
            self._call('rm_file', path, patience=patience)
        except FileNotFoundError:
            return

    @property
    def _scheme(self) -> str:
        return self.url.partition('://')[0]

    def _locate(self, name: str) -> str:
        _, root = connect(self.url)
        return f'{root}/{self.name_of(name)}'

    def _call(
        self, method: str, path: str, *arguments: Any, patience: float | None = None, **more: Any
    ) -> Any:
        """Call a method of the file system, and translate its errors."""
        filesystem, _ = connect(self.url)
        if filesystem.async_impl and hasattr(filesystem, f'_{method}'):
            coroutine = getattr(filesystem, f'_{method}')(path, *arguments, **more)
            return self._await(coroutine, filesystem.loop, patience)
        try:
            return getattr(filesystem, method)(path, *arguments, **more)
        # Not Exception: a job's time-out is raised in this thread too.
        except (OSError, ValueError, NotImplementedError) as error:
            raise self._translate(error) from None

    def _await(self, coroutine: Any, loop: Any, patience: float | None) -> Any:
        """Run a coroutine in the thread of fsspec. Raises StorageError after `patience` seconds."""
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        deadline = math.inf if patience is None else time.monotonic() + patience
        try:
            # In turns: a signal, such as a job's time-out, just before a wait does not end it.
            while not wait([future], TURN).done:
                if time.monotonic() >= deadline:
                    raise StorageError(
                        f'{self.setting}: {self} has not answered within {patience:g} s.'
                    )
        except BaseException:  # nothing goes on without its caller
            future.cancel()
            raise
        failure = future.exception()
        if failure is not None:
            raise self._translate(failure) from None
        return future.result()

    def _translate(self, error: BaseException) -> OSError:
        """One sentence of our own: the texts of a store's client may have addresses and keys."""
        code = _code(error)
        if code == 'NoSuchBucket':
            return self._no_bucket()
        if code == 'InvalidRange':  # none is requested beyond the size that was found
            return StorageError(f'{self.setting}: a file in {self} has changed while it was read.')
        if isinstance(error, FileNotFoundError):
            return FileNotFoundError(f'There is no such file in {self} ({self.setting}).')
        if isinstance(error, PermissionError) or 'Credentials' in code:
            return StorageError(
                f'{self.setting}: {self} refuses access ({code}): check the credentials of this '
                'process and what they permit.'
            )
        return StorageError(f'{self.setting}: {self} cannot be reached or used ({code}).')

    def _no_bucket(self) -> StorageError:
        return StorageError(f'{self.setting}: the bucket of {self} does not exist.')


class _Reader(io.RawIOBase):
    """The bytes of one version of an object, as a file that can seek."""

    def __init__(self, store: Store, name: str, found: Found, patience: float | None) -> None:
        self._store, self._name, self._found, self._patience = store, name, found, patience
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._found.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readall(self) -> bytes:
        # Python's own would ask for 8 KB at a time.
        return b''.join(iter(lambda: self.read(BLOCK) or b'', b''))

    def readinto(self, buffer: Any) -> int:
        end = min(self._position + len(buffer), self._found.size)
        if self._position >= end:
            return 0
        block = self._store.read(self._name, self._position, end, self._patience)
        is_whole = len(block) == end - self._position
        self._store.require_version(self._name, self._found, is_whole, self._patience)
        buffer[: len(block)] = block
        self._position = end
        return len(block)


async def all_or_none(reads: list[Coroutine[Any, Any, bytes]]) -> list[bytes]:
    """What all of them read. If one fails, none of the others goes on, as they do in s3fs."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(each) for each in reads]
    except ExceptionGroup as errors:
        first = errors.exceptions[0]
        raise first from first.__cause__  # which has the code of the store
    return [task.result() for task in tasks]


def _code(error: BaseException) -> str:
    """What a store or the system calls an error."""
    response = getattr(error.__cause__, 'response', None)  # of botocore
    if isinstance(response, dict) and response.get('Error', {}).get('Code'):
        return str(response['Error']['Code'])
    number = getattr(error, 'errno', None) or 0
    return errno.errorcode.get(number, type(error).__name__)


@contextmanager
def _scratch(name: str) -> Iterator[Path]:
    """A path for a local file; its ending is that of the name, which tells its type."""
    with tempfile.TemporaryDirectory(prefix='qdjobs-') as folder:
        yield Path(folder, f'file{PurePosixPath(name).suffix}')


def connect(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path there."""
    from fsspec import get_filesystem_class

    scheme = url.partition('://')[0]
    kind = get_filesystem_class(scheme)
    options = tuple(sorted(kind._get_kwargs_from_urls(url).items()))
    return _filesystem(scheme, options, os.getpid()), kind._strip_protocol(url).rstrip('/')


@lru_cache(maxsize=8)
def _filesystem(scheme: str, options: tuple[tuple[str, Any], ...], pid: int) -> Any:
    """One for each process, for all its threads; fsspec has one for each of them, which is slow."""
    from fsspec import filesystem

    return filesystem(scheme, **dict(options), skip_instance_cache=True, use_listings_cache=False)


def disconnect() -> None:
    """Read the settings of the clients again when one is next needed; for tests."""
    _filesystem.cache_clear()
