"""Write Parquet with Polars: text as it is, JSON in the types that all its rows have."""

import queue
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from itertools import chain
from operator import itemgetter
from typing import IO, TYPE_CHECKING, Any

from libraries.tables.json import Column, JsonReader, Number, require_flat
from libraries.tables.parquet import count_rows
from libraries.tables.text import TableError, require_room, shown

if TYPE_CHECKING:
    import polars

ROW_GROUP = 262_144  # most rows in a row group: the default of Polars
GROUP = 64 << 20  # about the most bytes in a row group
_NAMES = {str: 'text', bool: 'true or false', int: 'a whole number', Number: 'a number'}
Frames = Iterator['polars.DataFrame']


def text_frames(names: list[str], batches: Iterator[list[list[str]]]) -> Frames:
    import polars

    for rows in batches:
        yield polars.DataFrame(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))


def typed_frames(reader: JsonReader, names: list[str]) -> tuple[dict[str, Any], Frames]:
    """The Polars types of the columns by name, and frames of these types.

    Raises TableError, naming the column, for mixed types, for lists and objects, and for
    numbers that neither a 64-bit integer nor a 64-bit float holds exactly.
    """
    seen: dict[str, dict[type, int]] = {name: {} for name in names}  # type → its first row
    for columns in reader.columns(names):
        first = reader.rows - len(columns[0][0]) + 1
        for kinds, (values, found) in zip(seen.values(), columns, strict=True):
            for kind in found - kinds.keys():
                kinds[kind] = first + list(map(type, values)).index(kind)
    types = {name: _column_type(name, kinds) for name, kinds in seen.items()}
    frames = (_frame(types, columns) for columns in reader.columns(names))
    return {name: kind for name, (kind, _) in types.items()}, frames


def _column_type(name: str, kinds: dict[type, int]) -> tuple[Any, Callable[[Any], Any] | None]:
    import polars

    require_flat(name, kinds, 'Parquet')
    found = {kind: row for kind, row in kinds.items() if kind is not type(None)}
    for allowed, kind, convert in (
        ({str}, polars.String(), None),
        ({bool}, polars.Boolean(), None),
        ({int}, polars.Int64(), _as_int64),
        ({int, Number}, polars.Float64(), _as_exact_float),
    ):
        if found.keys() <= allowed:
            return kind, convert
    by_row = sorted(found.items(), key=itemgetter(1))
    several = ', '.join(f'{_NAMES[kind]} in row {row}' for kind, row in by_row)
    raise TableError(f'{shown(name)} is {several}: a Parquet column must have one type.')


def _frame(types: dict[str, Any], columns: list[Column]) -> 'polars.DataFrame':
    import polars

    frame = {}
    for (name, (kind, convert)), (values, _) in zip(types.items(), columns, strict=True):
        try:
            made = list(map(convert, values)) if convert else values
            frame[name] = polars.Series(name, made, dtype=kind)
        except (TypeError, OverflowError, ValueError) as error:
            raise TableError(f'{shown(name)}: {error}') from error
    return polars.DataFrame(frame)


def _as_int64(value: int | None) -> int | None:
    if value is not None and not -(2**63) <= value < 2**63:
        raise ValueError(f'{value} needs more than 64 bits. Write such numbers as text.')
    return value


def _as_exact_float(value: int | Number | None) -> float | None:
    if value is None:
        return None
    number = float(value)
    with suppress(InvalidOperation):  # the exponent is out of range for Decimal, too
        if repr(number) == value or Decimal(str(value)) == Decimal(repr(number)):
            return number
    raise ValueError(f'{value} would become {number!r} as a float. Write it as text.')


def write_parquet(output: IO[bytes], schema: dict[str, Any], frames: Frames) -> int:
    """Write frames of one schema as they arrive; return the number of rows, from the file.

    Polars writes in a thread, so that a job's time-out interrupts this one at once. Raises
    OSError if the file cannot be written.
    """
    import polars
    from polars.io.plugins import register_io_source

    first = next(frames, polars.DataFrame(schema=schema))
    row_size = max(1, int(first.estimated_size()) // max(1, first.height))
    to_write: queue.Queue[polars.DataFrame | None] = queue.Queue(maxsize=1)

    def get_all(*_: object) -> Frames:
        while (frame := to_write.get()) is not None:
            yield frame

    def put(frame: 'polars.DataFrame | None', written: Future[Any]) -> None:
        while not written.done():  # after a failure, nothing empties the queue
            with suppress(queue.Full):
                to_write.put(frame, timeout=0.2)
                return

    with ThreadPoolExecutor(1) as pool:
        sink = register_io_source(get_all, schema=schema).sink_parquet
        written = pool.submit(
            sink, output, row_group_size=max(1, min(ROW_GROUP, GROUP // row_size))
        )
        try:
            for frame in chain([first], frames):
                put(frame, written)
                require_room(output)
        finally:
            put(None, written)
        try:
            written.result()
        except polars.exceptions.ComputeError as error:  # the frames are valid: it is the file
            raise OSError(f'the file cannot be written: {error}') from error
    output.flush()
    return count_rows(f'/dev/fd/{output.fileno()}')
