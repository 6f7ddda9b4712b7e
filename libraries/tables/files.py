"""Convert table files: CSV, TSV, JSON, NDJSON and Parquet, each to any other.

Rows are counted when they are read and again when they are written, both times independently of
the engine. If the counts differ, no file is written.
"""

import gc
import os
from collections.abc import Callable
from contextlib import ExitStack, closing
from itertools import islice
from pathlib import Path, PurePath
from tempfile import TemporaryFile
from typing import IO, Literal, get_args

from libraries.files import (
    open_output,
    outputs,
    permanent_upload_errors,
    upload_copy,
    uploads,
)
from libraries.tables.csv import CsvTable
from libraries.tables.json import JsonTable, ReadAgainError
from libraries.tables.output import DELIMITERS, write_csv, write_json
from libraries.tables.parquet import ParquetTable, write_parquet
from libraries.tables.text import Blocks, TableError, read_text
from qdjobs.errors import PermanentJobError, short_repr

TableFormat = Literal['csv', 'tsv', 'json', 'ndjson', 'parquet']

_EXTENSIONS: dict[str, TableFormat] = {f'.{name}': name for name in get_args(TableFormat)} | {
    '.jsonl': 'ndjson'
}
Table = CsvTable | JsonTable | ParquetTable
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
    try:
        with ExitStack() as stack:
            with permanent_upload_errors(name):
                # JSON may be read twice, and Parquet in any order, from one version.
                source = stack.enter_context(upload_copy(name))
            output = _open_target(stack, target)
            # Rows are many objects without cycles: looking for some takes half of the time.
            if gc.isenabled():
                gc.disable()
                stack.callback(gc.enable)
            file = stack.enter_context(source.open('rb'))
            table = _open_table(name, source, file, delimiter, encoding, on_progress)
            written = _write(table, output, format)
            if written != table.rows:
                raise TableError(f'{written} of {table.rows} rows would have been written.')
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


def _open_table(
    name: str,
    source: Path,
    file: IO[bytes],
    delimiter: str | None,
    encoding: str | None,
    on_progress: ProgressCallback | None,
) -> Table:
    kind = _EXTENSIONS.get(PurePath(name).suffix.lower())
    size = os.fstat(file.fileno()).st_size
    progress = on_progress or (lambda done, size: None)

    def blocks() -> Blocks:
        for block in read_text(file, encoding):
            yield block
            progress(file.tell(), size)

    if kind == 'parquet':
        return ParquetTable(source, lambda done, rows: progress(size * done // max(1, rows), size))
    if kind in ('json', 'ndjson'):
        return JsonTable(blocks, one_a_line=kind == 'ndjson')
    if kind in DELIMITERS:
        return CsvTable(blocks(), delimiter, prefer_tabs=kind == 'tsv')
    raise TableError(f'its name must end in one of {", ".join(_EXTENSIONS)}.')


def _write(table: Table, output: IO[bytes], format: TableFormat) -> int:
    """Write the table; return the number of rows, counted in what is written."""
    try:
        if format in DELIMITERS:
            with closing(table.records(DELIMITERS[format])) as blocks:
                return write_csv(output, blocks)
        if format != 'parquet':
            with closing(table.objects()) as blocks:
                return write_json(output, blocks, format == 'json')
        if isinstance(table, ParquetTable):
            return table.copy(output)
        with TemporaryFile() as text:
            if isinstance(table, CsvTable):
                write_csv(text, islice(table.records(','), 1, None))  # without the header
            else:
                table.find_names()  # the engine is slow to refuse many
                write_json(text, table.objects(), as_array=False)
            text.seek(0)
            return write_parquet(Path(f'/dev/fd/{text.fileno()}'), table.names, output)[1]
    except ReadAgainError:
        output.seek(0)
        output.truncate()
        return _write(table, output, format)
