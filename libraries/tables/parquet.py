"""Read Parquet in a process of its own: a file can make the engine end its process.

    python -m libraries.tables.parquet SOURCE FORMAT

It writes a line of JSON, the number of rows and the names of the columns, and then the rows. It
imports no more than it needs, since it starts for each file.
"""

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, cast

from libraries.limits import limit
from libraries.tables.csv import DELIMITERS, last_record_end, write_csv
from libraries.tables.json import last_line_end, write_json
from libraries.tables.text import BLOCK, TableError, cut, require_room, require_within, shown

if TYPE_CHECKING:
    import polars

BROKEN = 3  # the exit status with a TableError
_CRASHES = {'SIGABRT', 'SIGBUS', 'SIGFPE', 'SIGILL', 'SIGKILL', 'SIGSEGV', 'SIGTRAP'}
_PR_SET_PDEATHSIG = 1


def convert_parquet(
    path: Path, output: IO[bytes], format: str, progress: Callable[[int, int], object]
) -> tuple[int, int]:
    """Convert a file in a child process; return the rows read and written.

    Raises TableError for a file that is damaged or takes more memory than TABLE_MAX_MEMORY.
    """
    handles = [int(path.name)] if path.parent == Path('/dev/fd') else []
    command = [sys.executable, '-m', __name__, str(path), format]
    root = Path(__file__).parents[2]
    with (
        TemporaryFile() as errors,
        subprocess.Popen(  # noqa: S603  # the path is an argument, no shell reads it
            command, stdout=subprocess.PIPE, stderr=errors, cwd=root, pass_fds=handles
        ) as child,
    ):
        try:
            rows = cast('IO[bytes]', child.stdout)
            read, names = json.loads(rows.readline() or '[0, []]')
            blocks = iter(lambda: rows.read(BLOCK), b'')
            written = _write(blocks, names, output, format, lambda done: progress(done, read))
            child.wait()
        except BaseException:  # the job has timed out, or the result is too large
            child.kill()
            raise
        errors.seek(0)
        last = errors.read().decode(errors='replace').strip().rpartition('\n')[2]
    if child.returncode == 0:
        return read, written
    if child.returncode == BROKEN:
        raise TableError(last)
    if child.returncode < 0 and (name := signal.Signals(-child.returncode).name) in _CRASHES:
        raise TableError(
            'this is not a readable Parquet file, or it takes more than '
            f'{limit("TABLE_MAX_MEMORY")} MB (TABLE_MAX_MEMORY): the engine ended with {name}.'
        )
    raise OSError(f'the process that reads it ended with {child.returncode}: {last}')


def _write(
    blocks: Iterator[bytes],
    names: list[str],
    output: IO[bytes],
    format: str,
    progress: Callable[[int], object],
) -> int:
    def texts(find_end: Callable[[bytes], int]) -> Iterator[bytes]:
        for line, text in cut(blocks, find_end):
            yield text
            progress(line - 1)

    if not names:
        return 0
    if format in DELIMITERS:
        return write_csv(output, format, names, texts(last_record_end))
    if format != 'parquet':
        return write_json(output, texts(last_line_end), format == 'json')
    for block in blocks:
        output.write(block)
        require_room(output)
    output.flush()
    return count_rows(f'/dev/fd/{output.fileno()}')


def count_rows(path: str) -> int:
    """The number of rows in a Parquet file's metadata."""
    import polars

    found = polars.scan_parquet(path, glob=False, hive_partitioning=False).select(polars.len())
    return int(found.collect().item())


def _read(path: str, format: str) -> None:
    import polars
    from polars import selectors

    # The path is taken literally: no glob pattern, no partition columns from folder names.
    file = polars.scan_parquet(path, glob=False, hive_partitioning=False)
    schema, rows = file.collect_schema(), count_rows(path)
    if not schema:
        raise TableError('the file has no columns.')
    require_within('TABLE_MAX_COLUMNS', len(schema), 'columns')
    require_within('TABLE_MAX_CELLS', len(schema) * rows, 'cells')
    _refuse(
        file,
        selectors.time().is_null().any(),
        'null or 24:00, which cannot be told apart in a column of times. Write them as text.',
    )  # Polars reads 24:00 as null
    if format != 'parquet':
        words = selectors.string() | selectors.categorical() | selectors.enum()
        times = selectors.date() | selectors.datetime() | selectors.time()
        plain = selectors.numeric() | selectors.boolean() | selectors.by_dtype(polars.Null)
        for name, kind in file.select(~(words | times | plain)).collect_schema().items():
            raise TableError(f'{shown(name)} is of type {kind}, which has no text form.')
        _refuse(
            file,
            ~selectors.float().is_finite().all(),
            'NaN or infinity, which is not converted to text.',
        )
        exact = words | selectors.decimal()
        file = file.with_columns(times.dt.to_string('iso'), exact.cast(polars.String()))
    sys.stdout.write(json.dumps([rows, list(schema)]) + '\n')
    sys.stdout.flush()
    if format == 'parquet':
        file.sink_parquet('/dev/stdout')
    elif format not in DELIMITERS:
        file.sink_ndjson('/dev/stdout')
    elif len(schema) == 1:
        file.sink_csv('/dev/stdout', include_header=False, null_value='""')
    else:  # null and '' are the same, an empty field
        file = file.with_columns(selectors.string().replace('', None))
        file.sink_csv('/dev/stdout', include_header=False, separator=DELIMITERS[format])


def _refuse(file: 'polars.LazyFrame', found: 'polars.Expr', what: str) -> None:
    for name, holds in file.select(found).collect(engine='streaming').to_dict().items():
        if holds.any():
            raise TableError(f'{shown(name)} holds {what}')


def main(path: str, format: str) -> None:
    import polars

    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    most = limit('TABLE_MAX_MEMORY') << 20
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash is expected
    try:
        _read(path, format)
    except TableError as error:
        message = str(error)
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException) as error:
        message = f'this is not a readable Parquet file: {str(error).partition(chr(10))[0]}.'
    except MemoryError:
        os.abort()
    else:
        return
    sys.stderr.write('\n' + message)
    sys.exit(BROKEN)


if __name__ == '__main__':
    main(*sys.argv[1:])
