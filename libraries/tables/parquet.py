"""Read and write Parquet with Polars."""

import queue
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from libraries.tables.text import TableError
from qdjobs.errors import short_repr

if TYPE_CHECKING:
    import polars

VALUES = 400_000  # most values in one slice, all columns together
FIRST_ROWS = 16  # rows in the first slice, to estimate their size; also the slices' growth factor
SLICE = 64 << 20  # about the most bytes in a slice; each slice reads its row group again
ROW_GROUP = 262_144  # most rows in a row group: the default of Polars
GROUP = 64 << 20  # about the most bytes in a row group


class ParquetReader:
    """Reads a Parquet file; `rows` is the number of rows in its metadata."""

    def __init__(self, path: Path) -> None:
        import polars

        # The path is taken literally: no glob pattern, no partition columns from folder names.
        self._file = polars.scan_parquet(path, glob=False, hive_partitioning=False)
        with _translate_errors():
            self.schema: dict[str, Any] = dict(self._file.collect_schema())
            self.rows = count_rows(path)
        if not self.schema:
            raise TableError('the file has no columns.')

    def frames(self) -> Iterator['polars.DataFrame']:
        """The rows as data frames with the types of the file."""
        most = max(1, VALUES // len(self.schema))
        start, rows = 0, min(most, FIRST_ROWS)
        # Slice by slice: Polars' own streaming reads ahead and needs 600 MB for a 1 GB file.
        while start < self.rows:
            with _translate_errors():
                frame = self._file.slice(start, rows).collect()
            _reject_null_times(frame)
            yield frame
            start += rows
            rows = min(most, rows * FIRST_ROWS, _rows_in(SLICE, frame))

    def plain_frames(self) -> Iterator['polars.DataFrame']:
        """The rows as data frames of text, numbers and booleans.

        Dates and times become ISO 8601, decimals their digits. Raises TableError, naming the
        column, for a type without an unambiguous text form.
        """
        import polars

        known: tuple[type[polars.DataType], ...] = (polars.String, polars.Categorical, polars.Enum)
        known += (polars.Boolean, polars.Null, polars.Date, polars.Datetime, polars.Time)
        for name, kind in self.schema.items():
            if not kind.is_numeric() and not isinstance(kind, known):
                raise TableError(f'{short_repr(name)} is of type {kind}, which has no text form.')
        for frame in self.frames():
            with _translate_errors():
                columns = {column.name: _plain(column) for column in frame.get_columns()}
                # A dict, since from a list Polars gives a name to a column whose name is empty.
                plain = polars.DataFrame(columns)
            yield plain


def _rows_in(size: int, frame: 'polars.DataFrame') -> int:
    """The number of rows like those of the frame that fit in `size` bytes, at least 1."""
    return max(1, size * max(1, frame.height) // max(1, int(frame.estimated_size())))


def _reject_null_times(frame: 'polars.DataFrame') -> None:
    import polars

    for column in frame.select(polars.selectors.time()).get_columns():
        if column.has_nulls():  # Polars reads 24:00 as null
            raise TableError(
                f'{short_repr(column.name)} holds null or 24:00, which cannot be told apart in a '
                'column of times. Write them as text.'
            )


def _plain(column: 'polars.Series') -> 'polars.Series':
    import polars

    kind = column.dtype
    if isinstance(kind, (polars.Date, polars.Datetime, polars.Time)):
        return column.dt.to_string('iso')
    if kind.is_float() and not column.drop_nulls().is_finite().all():
        raise TableError(
            f'{short_repr(column.name)} holds NaN or infinity, which is not converted to text.'
        )
    if kind.is_float() or kind.is_integer() or isinstance(kind, (polars.Boolean, polars.String)):
        return column
    return column.cast(polars.String)


def write_parquet(
    file: IO[bytes], schema: dict[str, Any], frames: Iterator['polars.DataFrame']
) -> None:
    """Write frames of one schema as they arrive.

    Polars writes in a thread, so that a job's time-out interrupts this one at once. Raises
    OSError if the file cannot be written.
    """
    import polars
    from polars.io.plugins import register_io_source

    first = next(frames, None)
    rows = ROW_GROUP if first is None else min(ROW_GROUP, _rows_in(GROUP, first))
    to_write: queue.Queue[polars.DataFrame | None] = queue.Queue(maxsize=1)

    def put(frame: 'polars.DataFrame | None', written: Future[Any]) -> None:
        while not written.done():  # after a failure, nothing empties the queue
            try:
                to_write.put(frame, timeout=0.2)
            except queue.Full:
                continue
            return

    def get_all(*_: object) -> Iterator['polars.DataFrame']:
        while (frame := to_write.get()) is not None:
            yield frame

    source = register_io_source(get_all, schema=schema)
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(source.sink_parquet, file, row_group_size=rows)
        try:
            for frame in chain([first] if first is not None else [], frames):
                put(frame, written)
                if written.done():
                    break
        finally:
            put(None, written)
        try:
            written.result()
        except polars.exceptions.ComputeError as error:  # the frames are valid: it is the file
            raise OSError(f'the file cannot be written: {error}') from error


def count_rows(path: Path) -> int:
    """The number of rows in a file's metadata."""
    import polars

    found = polars.scan_parquet(path, glob=False, hive_partitioning=False).select(polars.len())
    return int(found.collect().item())


@contextmanager
def _translate_errors() -> Iterator[None]:
    """Raise errors of Polars as a TableError of one line."""
    import polars

    try:
        yield
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException) as error:
        first = str(error).partition('\n')[0]
        raise TableError(f'this is not a readable Parquet file: {first}.') from error
