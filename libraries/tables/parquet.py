"""Parquet by Polars, in a process of its own: a file can make the engine end its process.

    python -m libraries.tables.parquet SOURCE FORMAT TARGET < NAMES

It writes the number of rows of SOURCE as a line, and then the rows, as NDJSON or as CSV with the
delimiter FORMAT. With FORMAT `parquet` it writes them to TARGET, and their number as a second line.
NAMES is JSON: null if SOURCE is Parquet, a list of columns if it is CSV without a header, and an
empty list if it is NDJSON. An error is the last line that it writes to stderr; the exit status is 3
for a TableError.
"""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, cast

from libraries.limits import limit
from libraries.tables.text import BLOCK, TableError, require_room

_REFUSED = 3  # an exit status
_CRASHES = {'SIGABRT', 'SIGBUS', 'SIGFPE', 'SIGILL', 'SIGKILL', 'SIGSEGV', 'SIGTRAP'}
_PR_SET_PDEATHSIG = 1


class ParquetTable:
    """A Parquet file; `rows` is the number of rows, by its metadata."""

    def __init__(self, source: Path, progress: Callable[[int, int], object]) -> None:
        """`progress` is called with a number of rows and the number of all."""
        self.rows = 0
        self._source = source
        self._progress = progress

    def records(self, format: str) -> Generator[bytes]:
        """The rows in a format of the process: as CSV, for a delimiter, with the columns' names."""
        with _engine(self._source, format) as lines:
            self.rows, done = int(lines.readline() or 0), 0
            while block := lines.read(BLOCK):
                yield block
                done += block.count(b'\n')
                self._progress(min(done, self.rows), self.rows)

    def objects(self) -> Generator[bytes]:
        """The rows as JSON objects, one per line."""
        return self.records('ndjson')

    def copy(self, output: IO[bytes]) -> int:
        """Write the rows as a new Parquet file; return their number, from that file."""
        self.rows, written = write_parquet(self._source, None, output)
        return written


def write_parquet(source: Path, names: list[str] | None, output: IO[bytes]) -> tuple[int, int]:
    """Write a file as Parquet; return its number of rows, and that of the new file.

    `names` is None for Parquet, the columns of CSV without a header, whose fields stay text, and
    empty for NDJSON, whose columns have the types that the engine finds.
    """
    try:
        with _engine(source, 'parquet', names, output) as lines:
            counts = lines.read().split()
    except OSError:
        require_room(output)  # the process may not write a larger file
        raise
    return int(counts[0]), int(counts[1])


@contextmanager
def _engine(
    source: Path, format: str, names: list[str] | None = None, output: IO[bytes] | None = None
) -> Iterator[IO[bytes]]:
    """Run this module as a process; yield what it writes.

    Raises TableError for a file that is damaged or takes more memory than TABLE_MAX_MEMORY.
    """
    target = Path(f'/dev/fd/{output.fileno()}' if output else '/dev/stdout')
    handles = [int(path.name) for path in (source, target) if path.parent == Path('/dev/fd')]
    with TemporaryFile() as request, TemporaryFile() as errors:
        request.write(json.dumps(names).encode())
        request.seek(0)
        with subprocess.Popen(  # noqa: S603  # the paths are arguments, no shell reads them
            [sys.executable, '-m', __name__, source, format, target],
            stdin=request,
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=Path(__file__).parents[2],
            pass_fds=handles,
        ) as child:
            try:
                yield cast('IO[bytes]', child.stdout)
                child.wait()
            except BaseException:  # the job has timed out, or the result is too large
                child.kill()
                raise
        errors.seek(0)
        last = errors.read().decode(errors='replace').strip().rpartition('\n')[2]
    if child.returncode < 0 and (name := signal.Signals(-child.returncode).name) in _CRASHES:
        raise TableError(
            'this is not a readable Parquet file, or it takes more than '
            f'{limit("TABLE_MAX_MEMORY")} MB (TABLE_MAX_MEMORY): the engine ended with {name}.'
        )
    if child.returncode == _REFUSED:
        raise TableError(last)
    if child.returncode:
        raise OSError(f'the process for Parquet ended with {child.returncode}: {last}')


def main(source: str, format: str, target: str) -> None:
    """Bound this process, let it end with its parent, and convert."""
    os.environ['POLARS_ROW_GROUP_PREFETCH_SIZE'] = '1'  # it reads ahead as many as it can
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for what, most in (
        (resource.RLIMIT_DATA, limit('TABLE_MAX_MEMORY') << 20),
        (resource.RLIMIT_FSIZE, limit('TABLE_MAX_OUTPUT') << 20),
        (resource.RLIMIT_CORE, 0),  # a crash is expected
    ):
        now, hard = resource.getrlimit(what)
        resource.setrlimit(what, (most if now == resource.RLIM_INFINITY else min(now, most), hard))
    from libraries.tables.engine import convert  # Polars, which the environment above is for

    try:
        convert(source, format, target, json.load(sys.stdin))
    except TableError as error:
        sys.stderr.write(f'\n{error}')  # after what the engine says of its panics
        sys.exit(_REFUSED)
    except MemoryError:
        os.abort()


if __name__ == '__main__':
    main(*sys.argv[1:])
