"""Convert table files: CSV, TSV, JSON, NDJSON and Parquet, each to any other.

Rows are counted when they are read and again when they are written, both times independently of
the engine. If the counts differ, no file is written.
"""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path, PurePath
from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar, get_args

from libraries.files import (
    open_output,
    outputs,
    permanent_upload_errors,
    upload_copy,
    uploads,
)
from libraries.tables.columns import text_frames, typed_frames
from libraries.tables.csv import CsvForm, CsvReader
from libraries.tables.json import JsonReader
from libraries.tables.parquet import ParquetReader, count_rows, write_parquet
from libraries.tables.text import TableError, one_ahead, read_blocks
from qdjobs.errors import PermanentJobError, short_repr

if TYPE_CHECKING:
    import polars

TableFormat = Literal['csv', 'tsv', 'json', 'ndjson', 'parquet']
Reader = CsvReader | JsonReader | ParquetReader
T = TypeVar('T')

_EXTENSIONS: dict[str, TableFormat] = {f'.{name}': name for name in get_args(TableFormat)} | {
    '.jsonl': 'ndjson'
}
ProgressCallback = Callable[[int, int], None]  # called with the bytes read and the file's size


def convert_upload(
    file_path: str,
    format: TableFormat,
    delimiter: str | None = None,
    encoding: str | None = None,
    on_progress: ProgressCallback | None = None,
) -> PurePath:
    """Convert an uploaded table to `converted/<its name>.<format>`; return where that is.

    The extension of `file_path` decides how it is read. Raises PermanentJobError, with the place
    in the file and the remedy, for anything that would be lost, changed or guessed; an existing
    output file is then unchanged.
    """
    try:
        name = uploads().name_of(file_path)
        # The name keeps its extension: a.csv and a.tsv do not overwrite each other.
        target = outputs().name_of(f'converted/{name}.{format}')
    except ValueError as error:
        raise PermanentJobError(f'{short_repr(file_path)}: {error}') from error
    try:
        with ExitStack() as stack:
            with permanent_upload_errors(name):
                # JSON is read twice, and Parquet in any order, from one version.
                source = stack.enter_context(upload_copy(name))
            file = stack.enter_context(source.open('rb'))
            output = _open_target(stack, target)
            reader = _open_reader(name, source, file, delimiter, encoding)
            size = os.fstat(file.fileno()).st_size
            written = _write(
                reader,
                output,
                format,
                after_block=lambda: on_progress and on_progress(file.tell(), size),
            )
            if written != reader.rows:
                raise TableError(f'{written} of {reader.rows} rows would have been written.')
    except TableError as error:
        raise PermanentJobError(f'{name}: {error}') from error
    return outputs().result(target)


def _open_target(stack: ExitStack, target: str) -> IO[bytes]:
    try:
        return stack.enter_context(open_output(target))
    except ValueError as error:
        raise TableError(
            f'{error} If the result of another file is in the way, rename one of the two.'
        ) from error


def _open_reader(
    name: str, source: Path, file: IO[bytes], delimiter: str | None, encoding: str | None
) -> Reader:
    format = _EXTENSIONS.get(PurePath(name).suffix.lower())
    if format is None:
        raise TableError(f'its name must end in one of {", ".join(_EXTENSIONS)}.')
    if format == 'parquet':
        return ParquetReader(source)
    if format in ('csv', 'tsv'):
        return CsvReader(read_blocks(file, encoding), delimiter, prefer_tabs=format == 'tsv')
    return JsonReader(lambda: read_blocks(file, encoding), one_a_line=format == 'ndjson')


def _write(
    reader: Reader, output: IO[bytes], format: TableFormat, after_block: Callable[[], object]
) -> int:
    """Write all rows; return their number, counted in the output."""
    if format == 'parquet':
        schema, frames = _typed_frames(reader)
        write_parquet(output, schema, _call_after_each(frames, after_block))
        output.flush()
        return count_rows(Path(f'/dev/fd/{output.fileno()}'))
    if format in ('json', 'ndjson'):
        lines = _call_after_each(_json_lines(reader), after_block)
        return _write_lines(output, lines, as_array=format == 'json')
    names, frames = _text_frames(reader)
    form = CsvForm(b',' if format == 'csv' else b'\t', len(names))
    return form.write_all(output, names, _call_after_each(frames, after_block))


def _typed_frames(reader: Reader) -> tuple[dict[str, Any], Iterator['polars.DataFrame']]:
    import polars

    if isinstance(reader, JsonReader):
        return typed_frames(reader)
    if isinstance(reader, ParquetReader):
        return reader.schema, reader.frames()
    return dict.fromkeys(reader.names, polars.String()), reader.frames()


def _text_frames(reader: Reader) -> tuple[list[str], Iterator['polars.DataFrame']]:
    if isinstance(reader, JsonReader):
        return text_frames(reader)
    if isinstance(reader, ParquetReader):
        return list(reader.schema), reader.plain_frames()
    return reader.names, reader.frames()


def _json_lines(reader: Reader) -> Iterator[bytes]:
    if isinstance(reader, JsonReader):
        return reader.lines()
    frames = reader.plain_frames() if isinstance(reader, ParquetReader) else reader.frames()
    return one_ahead(_to_lines, frames)


def _to_lines(frame: 'polars.DataFrame') -> bytes:
    buffer = io.BytesIO()
    frame.write_ndjson(buffer)
    return buffer.getvalue()


def _write_lines(output: IO[bytes], blocks: Iterator[bytes], as_array: bool) -> int:
    """Write objects, one per line, as NDJSON or as an array; return their number."""
    rows = 0
    if as_array:
        output.write(b'[')
    for block in blocks:
        if not block:
            continue
        if as_array:
            output.write(b',\n' if rows else b'\n')
            output.write(block[:-1].replace(b'\n', b',\n'))
        else:
            output.write(block)
        rows += block.count(b'\n')
    if as_array:
        output.write(b'\n]\n')
    return rows


def _call_after_each(items: Iterator[T], callback: Callable[[], object]) -> Iterator[T]:
    for item in items:
        yield item
        callback()
