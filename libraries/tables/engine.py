"""What the process of parquet.py does, by Polars, which only that process imports."""

import os
import sys

import polars
from polars import selectors
from polars.exceptions import PanicException, PolarsError

from libraries.tables.text import TableError, require_within, shown

GROUP = 64 << 20  # about the most bytes of text in a row group


def convert(source: str, format: str, target: str, names: list[str] | None) -> None:
    """Convert a file as parquet.py says. Raises TableError for what cannot be converted."""
    try:
        _convert(source, format, target, names)
    except (PolarsError, PanicException) as error:
        reason = str(error).partition('\n')[0]
        kind = OSError if 'os error' in reason else TableError
        raise kind(
            f'this is not a readable Parquet file, or it cannot become one: {reason}.'
        ) from None


def _convert(source: str, format: str, target: str, names: list[str] | None) -> None:
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


def _count(file: polars.LazyFrame) -> int:
    return int(file.select(polars.len()).collect().item())


def _as_text(file: polars.LazyFrame) -> polars.LazyFrame:
    """Dates, times, decimals and categories as text. Raises TableError for other types."""
    words = selectors.string() | selectors.categorical() | selectors.enum()
    times = selectors.date() | selectors.datetime() | selectors.time()
    plain = selectors.numeric() | selectors.boolean() | selectors.by_dtype(polars.Null)
    for name, kind in file.select(~(words | times | plain)).collect_schema().items():
        raise TableError(f'{shown(name)} is of type {kind}, which has no text form.')
    infinite = ~selectors.float().is_finite().all()
    _refuse(file, infinite, 'NaN or infinity, which is not converted to text')
    exact = words | selectors.decimal()
    return file.with_columns(times.dt.to_string('iso'), exact.cast(polars.String()))


def _refuse(file: polars.LazyFrame, found: polars.Expr, what: str) -> None:
    for name, holds in file.select(found).collect(engine='streaming').to_dict().items():
        if holds.any():
            raise TableError(f'{shown(name)} holds {what}. Write them as text.')
