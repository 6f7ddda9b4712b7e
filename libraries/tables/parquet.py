"""Parquet by Polars, in a process of its own: a file can make the engine end its process.

    python -m libraries.tables.parquet SOURCE FORMAT TARGET < NAMES

It writes the number of rows of SOURCE as a line, and then the rows, as NDJSON or as CSV with the
delimiter FORMAT. With FORMAT `parquet` it writes them to TARGET, and their number as a second line.
NAMES is JSON: null if SOURCE is Parquet, a list of columns if it is CSV without a header, and an
empty list if it is NDJSON. The module imports no more than it needs, since it starts for each file.
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
from typing import IO, TYPE_CHECKING, cast

from libraries.limits import limit
from libraries.tables.text import BLOCK, TableError, require_room, require_within, shown

if TYPE_CHECKING:
    import polars

GROUP = 64 << 20  # about the most bytes of text in a row group
_REFUSED, _FAILED = 3, 4  # exit statuses: a TableError, an OSError
_CRASHES = {'SIGABRT', 'SIGBUS', 'SIGFPE', 'SIGILL', 'SIGKILL', 'SIGSEGV', 'SIGTRAP'}
_PR_SET_PDEATHSIG = 1


class ParquetTable:
    """A Parquet file; `rows` is the number of rows, by its metadata."""

    def __init__(self, source: Path, progress: Callable[[int, int], object]) -> None:
        """`progress` is called with a number of rows and the number of all."""
        self.rows = 0
        self._source = source
        self._progress = progress

    def records(self, delimiter: str) -> Generator[bytes]:
        """The names of the columns and the rows, as CSV with this delimiter."""
        return self._text(delimiter)

    def objects(self) -> Generator[bytes]:
        """The rows as JSON objects, one per line."""
        return self._text('ndjson')

    def copy(self, output: IO[bytes]) -> int:
        """Write the rows as a new Parquet file; return their number, from that file."""
        self.rows, written = _write(self._source, None, output)
        return written

    def _text(self, format: str) -> Generator[bytes]:
        with _engine(self._source, format) as lines:
            self.rows, done = int(lines.readline() or 0), 0
            while block := lines.read(BLOCK):
                yield block
                done += block.count(b'\n')
                self._progress(min(done, self.rows), self.rows)


def write_parquet(text: IO[bytes], names: list[str], output: IO[bytes]) -> int:
    """Write text as Parquet; return the number of rows, from that file.

    With names the text is CSV without a header, and its fields stay text. Without them it is
    NDJSON, whose columns have the types that the engine finds.
    """
    text.seek(0)
    return _write(Path(f'/dev/fd/{text.fileno()}'), names, output)[1]


def _write(source: Path, names: list[str] | None, output: IO[bytes]) -> tuple[int, int]:
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
    if child.returncode == _REFUSED:
        raise TableError(last)
    if child.returncode < 0 and (name := signal.Signals(-child.returncode).name) in _CRASHES:
        raise TableError(
            'this is not a readable Parquet file, or it takes more than '
            f'{limit("TABLE_MAX_MEMORY")} MB (TABLE_MAX_MEMORY): the engine ended with {name}.'
        )
    if child.returncode:
        raise OSError(f'the process for Parquet ended with {child.returncode}: {last}')


def main(source: str, format: str, target: str) -> None:
    _bound()
    import polars

    status = _REFUSED
    try:
        _convert(source, format, target, json.load(sys.stdin))
    except TableError as error:
        message = str(error)
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException) as error:
        reason = str(error).partition('\n')[0]
        message = f'this is not a readable Parquet file, or it cannot become one: {reason}.'
        if 'os error' in reason:
            status = _FAILED
    except MemoryError:
        os.abort()
    else:
        return
    sys.stderr.write(f'\n{message}')
    sys.exit(status)


def _bound() -> None:
    """Bound this process, and let it end with its parent. Call it before Polars is imported."""
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


def _convert(source: str, format: str, target: str, names: list[str] | None) -> None:
    import polars
    from polars import selectors

    if names is None:
        # The path is taken literally: no glob pattern, no partition columns from folder names.
        file = polars.scan_parquet(source, glob=False, hive_partitioning=False)
    elif names:
        file = polars.scan_csv(
            source,
            has_header=False,
            schema=dict.fromkeys(names, polars.String()),
            empty_string_is_null=False,
            raise_if_empty=False,
            glob=False,
        )
    else:
        file = polars.scan_ndjson(source, infer_schema_length=None)
        for name in file.select(selectors.by_dtype(polars.Int128)).collect_schema():
            raise TableError(f'{shown(name)} needs more than 64 bits. Write such numbers as text.')
    columns = file.collect_schema()
    if not columns:
        raise TableError('the file has no columns.')
    require_within('TABLE_MAX_COLUMNS', len(columns), 'columns')
    rows = _count(file)
    require_within('TABLE_MAX_CELLS', len(columns) * rows, 'cells')
    # Polars reads 24:00 as null.
    found = selectors.time().is_null().any()
    _refuse(file, found, 'null or 24:00, which cannot be told apart in a column of times')
    sys.stdout.write(f'{rows}\n')
    sys.stdout.flush()
    if format == 'parquet':
        group = max(1, min(262_144, GROUP * rows // max(1, os.stat(source).st_size)))
        file.sink_parquet(target, row_group_size=group if names is not None else None)
        sys.stdout.write(f'{_count(polars.scan_parquet(target, glob=False))}\n')
    elif format == 'ndjson':
        _as_text(file).sink_ndjson(target)
    elif '' in columns:
        raise TableError('a column has no name.')
    else:
        # The method `replace` would load all values.
        texts = selectors.string()
        file = _as_text(file).with_columns(polars.when(texts != '').then(texts))
        file.sink_csv(target, separator=format, null_value='' if len(columns) > 1 else '""')


def _count(file: 'polars.LazyFrame') -> int:
    import polars

    return int(file.select(polars.len()).collect().item())


def _as_text(file: 'polars.LazyFrame') -> 'polars.LazyFrame':
    """Dates, times, decimals and categories as text. Raises TableError for other types."""
    import polars
    from polars import selectors

    words = selectors.string() | selectors.categorical() | selectors.enum()
    times = selectors.date() | selectors.datetime() | selectors.time()
    plain = selectors.numeric() | selectors.boolean() | selectors.by_dtype(polars.Null)
    for name, kind in file.select(~(words | times | plain)).collect_schema().items():
        raise TableError(f'{shown(name)} is of type {kind}, which has no text form.')
    infinite = ~selectors.float().is_finite().all()
    _refuse(file, infinite, 'NaN or infinity, which is not converted to text')
    exact = words | selectors.decimal()
    return file.with_columns(times.dt.to_string('iso'), exact.cast(polars.String()))


def _refuse(file: 'polars.LazyFrame', found: 'polars.Expr', what: str) -> None:
    for name, holds in file.select(found).collect(engine='streaming').to_dict().items():
        if holds.any():
            raise TableError(f'{shown(name)} holds {what}. Write them as text.')


if __name__ == '__main__':
    main(*sys.argv[1:])
