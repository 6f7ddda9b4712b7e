"""Convert table files: CSV, TSV, JSON, NDJSON and Parquet, each to any other.

Rows are counted when they are read and again when they are written, both times independently of
the engine. If the counts differ, no file is written.
"""

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import starmap
from pathlib import PurePath
from typing import IO, Literal, get_args

import msgspec

from libraries.files import (
    open_output,
    outputs,
    permanent_upload_errors,
    upload_copy,
    uploads,
)
from libraries.tables.csv import DELIMITERS, CsvReader, encode_columns, write_csv
from libraries.tables.frames import text_frames, typed_frames, write_parquet
from libraries.tables.json import JsonReader, NewKeyError, as_text, object_type, write_json
from libraries.tables.parquet import convert_parquet
from libraries.tables.text import TableError, read_blocks
from qdjobs.errors import PermanentJobError, short_repr

TableFormat = Literal['csv', 'tsv', 'json', 'ndjson', 'parquet']

_EXTENSIONS: dict[str, TableFormat] = {f'.{name}': name for name in get_args(TableFormat)} | {
    '.jsonl': 'ndjson'
}
_encode_lines = msgspec.json.Encoder().encode_lines
ProgressCallback = Callable[[int, int], object]  # called with the bytes read and the file's size


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
    progress = on_progress or (lambda done, size: None)
    try:
        with ExitStack() as stack:
            with permanent_upload_errors(name):
                # JSON is read twice, and Parquet in any order, from one version.
                source = stack.enter_context(upload_copy(name))
            output = _open_target(stack, target)
            kind = _EXTENSIONS.get(PurePath(name).suffix.lower())
            if kind is None:
                raise TableError(f'its name must end in one of {", ".join(_EXTENSIONS)}.')
            if kind == 'parquet':
                size = source.stat().st_size
                read, written = convert_parquet(
                    source,
                    output,
                    format,
                    lambda done, rows: progress(min(size, size * done // rows), size),
                )
            else:
                stack.enter_context(_no_collector())
                file = stack.enter_context(source.open('rb'))
                read, written = _convert(file, kind, output, format, delimiter, encoding, progress)
            if written != read:
                raise TableError(f'{written} of {read} rows would have been written.')
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


@contextmanager
def _no_collector() -> Iterator[None]:
    """Rows are many objects without cycles: looking for cycles takes half of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _convert(
    file: IO[bytes],
    kind: TableFormat,
    output: IO[bytes],
    format: TableFormat,
    delimiter: str | None,
    encoding: str | None,
    progress: ProgressCallback,
) -> tuple[int, int]:
    """Convert text; return the rows read and written, each counted by itself."""
    size = os.fstat(file.fileno()).st_size

    def blocks() -> Iterator[bytes]:
        for block in read_blocks(file, encoding):
            yield block
            progress(file.tell(), size)

    if kind in DELIMITERS:
        table = CsvReader(blocks(), delimiter, prefer_tabs=kind == 'tsv')
        written = _write_table(table, output, format)
        return table.rows, written
    objects = JsonReader(blocks, one_a_line=kind == 'ndjson')
    if format in ('json', 'ndjson'):
        written = write_json(output, objects.lines(), format == 'json')
    else:
        try:
            written = _write_objects(objects, objects.names(blocks=1), output, format)
        except NewKeyError:
            output.seek(0)
            output.truncate()
            written = _write_objects(objects, objects.names(), output, format)
    return objects.rows, written


def _write_table(table: CsvReader, output: IO[bytes], format: TableFormat) -> int:
    if format == 'parquet':
        import polars

        schema = dict.fromkeys(table.names, polars.String())
        return write_parquet(output, schema, text_frames(table.names, table.batches()))
    if format in DELIMITERS:
        blocks = (encode_columns(zip(*rows, strict=True), format) for rows in table.batches())
        return write_csv(output, format, table.names, blocks)
    row_type = object_type(table.names) or (lambda *row: dict(zip(table.names, row, strict=True)))
    lines = (_encode_lines(list(starmap(row_type, rows))) for rows in table.batches())
    return write_json(output, lines, format == 'json')


def _write_objects(
    objects: JsonReader, names: list[str], output: IO[bytes], format: TableFormat
) -> int:
    if not names:
        raise NewKeyError
    if format == 'parquet':
        return write_parquet(output, *typed_frames(objects, names))
    return write_csv(output, format, names, _encode(objects, names, format))


def _encode(objects: JsonReader, names: list[str], format: TableFormat) -> Iterator[bytes]:
    for columns in objects.columns(names):
        before = objects.rows - len(columns[0][0])
        texts = [as_text(name, column, before) for name, column in zip(names, columns, strict=True)]
        yield encode_columns(texts, format)
