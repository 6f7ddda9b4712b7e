"""Parquet in and out, by Polars."""

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

VALUES = 400_000  # read at a time at most, all columns together
FIRST_ROWS = 16  # read at first, to learn how large they are; then at most so many times more
SLICE = 64 << 20  # bytes after that, about; each slice costs reading its row group once more
ROW_GROUP = 262_144  # rows at most, which is Polars' own
GROUP = 64 << 20  # bytes of a row group at most, about


class ParquetReader:
    """The rows of a file; `rows` is their number as its own records tell it."""

    def __init__(self, path: Path) -> None:
        import polars

        # Nothing in its name, nor in those of its folders, is a pattern or a column.
        self._file = polars.scan_parquet(path, glob=False, hive_partitioning=False)
        with _reading():
            self.schema: dict[str, Any] = dict(self._file.collect_schema())
            self.rows = count_rows(path)
        if not self.schema:
            raise TableError('the file has no columns.')

    def frames(self) -> Iterator['polars.DataFrame']:
        """Data frames of the file's own types."""
        most = max(1, VALUES // len(self.schema))
        start, rows = 0, min(most, FIRST_ROWS)
        # One slice after the other: left to itself Polars reads ahead, and 1 GB takes 600 MB.
        while start < self.rows:
            with _reading():
                frame = self._file.slice(start, rows).collect()
            _require_times(frame)
            yield frame
            start += rows
            rows = min(most, rows * FIRST_ROWS, _rows_of(SLICE, frame))

    def plain_frames(self) -> Iterator['polars.DataFrame']:
        """Data frames of text, numbers and booleans: moments in ISO 8601, decimals in their digits.

        Raises TableError, naming the column, for what no text stands for without doubt.
        """
        import polars

        known: tuple[type[polars.DataType], ...] = (polars.String, polars.Categorical, polars.Enum)
        known += (polars.Boolean, polars.Null, polars.Date, polars.Datetime, polars.Time)
        for name, kind in self.schema.items():
            if not kind.is_numeric() and not isinstance(kind, known):
                raise TableError(
                    f'{short_repr(name)} is of type {kind}, which has no form as text.'
                )
        for frame in self.frames():
            with _reading():
                columns = {column.name: _plain(column) for column in frame.get_columns()}
                plain = polars.DataFrame(columns)  # of a list it would name what has no name
            yield plain


def _rows_of(size: int, frame: 'polars.DataFrame') -> int:
    """How many rows like those of the frame take so many bytes."""
    return max(1, size * max(1, frame.height) // max(1, int(frame.estimated_size())))


def _require_times(frame: 'polars.DataFrame') -> None:
    import polars

    for column in frame.select(polars.selectors.time()).get_columns():
        if column.has_nulls():  # which is what Polars makes of 24:00
            raise TableError(
                f'{short_repr(column.name)} holds null or 24:00, and of times these cannot be told '
                'apart. Write them as text.'
            )


def _plain(column: 'polars.Series') -> 'polars.Series':
    import polars

    kind = column.dtype
    if isinstance(kind, (polars.Date, polars.Datetime, polars.Time)):
        return column.dt.to_string('iso')
    if kind.is_float() and not column.drop_nulls().is_finite().all():
        raise TableError(
            f'{short_repr(column.name)} holds NaN or infinity, which is no number in text.'
        )
    if kind.is_float() or kind.is_integer() or isinstance(kind, (polars.Boolean, polars.String)):
        return column
    return column.cast(polars.String)


def write_parquet(
    file: IO[bytes], schema: dict[str, Any], frames: Iterator['polars.DataFrame']
) -> None:
    """Write frames of one schema, as they come.

    The engine writes in a thread, so that a time-out reaches this one at once.
    """
    import polars
    from polars.io.plugins import register_io_source

    first = next(frames, None)
    rows = ROW_GROUP if first is None else min(ROW_GROUP, _rows_of(GROUP, first))
    handed: queue.Queue[polars.DataFrame | None] = queue.Queue(maxsize=1)

    def hand(frame: 'polars.DataFrame | None', written: Future[Any]) -> None:
        while not written.done():  # it may have failed, and nobody take what is put here
            try:
                handed.put(frame, timeout=0.2)
            except queue.Full:
                continue
            return

    def take(*_: object) -> Iterator['polars.DataFrame']:
        while (frame := handed.get()) is not None:
            yield frame

    source = register_io_source(take, schema=schema)
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(source.sink_parquet, file, row_group_size=rows)
        try:
            for frame in chain([first] if first is not None else [], frames):
                hand(frame, written)
                if written.done():
                    break
        finally:
            hand(None, written)
        try:
            written.result()
        except polars.exceptions.ComputeError as error:  # of frames that are as they should be
            raise OSError(f'the file cannot be written: {error}') from error


def count_rows(path: Path) -> int:
    """The number of rows that the file's own records tell."""
    import polars

    found = polars.scan_parquet(path, glob=False, hive_partitioning=False).select(polars.len())
    return int(found.collect().item())


@contextmanager
def _reading() -> Iterator[None]:
    import polars

    try:
        yield
    except (polars.exceptions.PolarsError, polars.exceptions.PanicException) as error:
        first = str(error).partition('\n')[0]
        raise TableError(f'this is no Parquet that can be read: {first}.') from error
