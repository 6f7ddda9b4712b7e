"""Turn JSON objects into columns: of text for CSV, typed for Parquet."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal, InvalidOperation
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from libraries.tables.json import JsonReader, Number, Row
from libraries.tables.text import TableError
from qdjobs.errors import short_repr

if TYPE_CHECKING:
    import polars

# A Polars type, and the function that converts our values for it, if one is needed.
Column = tuple[Any, Callable[[Any], Any] | None]
Seen = dict[str, dict[type, int]]  # column → type of a value → number of the first row with it

_TYPE_NAMES: dict[type, str] = {
    str: 'text',
    bool: 'true or false',
    int: 'a whole number',
    Number: 'a number',
    list: 'a list',
    dict: 'an object',
}


def find_types(batches: Iterable[list[Row]]) -> Seen:
    """Every key, in order of first appearance, with the types of its values.

    Raises TableError if there is no key.
    """
    seen: Seen = {}
    before = 0
    for rows in batches:
        for name, values in _columns(rows).items():
            kinds = seen.setdefault(name, {})
            for kind in set(map(type, values)) - kinds.keys():
                kinds[kind] = before + 1 + [type(value) for value in values].index(kind)
        before += len(rows)
    if not seen:
        raise TableError('there is no row with a key, so the columns are not known.')
    return seen


def _columns(rows: list[Row]) -> dict[str, Sequence[Any]]:
    """The values by key; None where an object lacks the key."""
    if len(set(map(tuple, rows))) == 1:  # fast path: the same keys in the same order
        return dict(zip(rows[0], zip(*map(dict.values, rows), strict=True), strict=True))
    names = dict.fromkeys(chain.from_iterable(rows))
    return {name: [row.get(name) for row in rows] for name in names}


def text_frames(reader: JsonReader) -> tuple[list[str], Iterator['polars.DataFrame']]:
    """The names of the columns, and text frames in which null and missing values are null.

    Raises TableError, naming the row and the column, for a list or an object.
    """
    import polars

    seen = find_types(reader.batches())
    for name, kinds in seen.items():
        for kind in (list, dict):
            if kind in kinds:
                raise TableError(
                    f'row {kinds[kind]}: {short_repr(name)} is {_TYPE_NAMES[kind]}, which CSV '
                    'cannot hold. Flatten it, or convert to JSON or NDJSON.'
                )
    schema: dict[str, Column] = {
        name: (polars.String(), None if kinds.keys() <= {str, type(None)} else _as_text)
        for name, kinds in seen.items()
    }
    return list(seen), _frames(reader, schema)


def typed_frames(reader: JsonReader) -> tuple[dict[str, Any], Iterator['polars.DataFrame']]:
    """The Polars types of the columns by name, and frames of these types.

    Raises TableError, naming the column, for mixed types, for lists and objects, and for
    numbers that neither a 64-bit integer nor a 64-bit float holds exactly.
    """
    seen = find_types(reader.batches())
    schema = {name: _column_type(name, kinds) for name, kinds in seen.items()}
    return {name: kind for name, (kind, _) in schema.items()}, _frames(reader, schema)


def _frames(reader: JsonReader, schema: dict[str, Column]) -> Iterator['polars.DataFrame']:
    import polars

    for rows in reader.batches_again():
        found = _columns(rows)
        columns = {}
        for name, (kind, convert) in schema.items():
            values = found.get(name) or [None] * len(rows)
            try:
                if convert is not None:
                    values = list(map(convert, values))
                columns[name] = polars.Series(name, values, dtype=kind)
            except (TypeError, OverflowError, ValueError) as error:
                raise TableError(f'{short_repr(name)}: {error}') from error
        yield polars.DataFrame(columns)


def _column_type(name: str, kinds: dict[type, int]) -> Column:
    import polars

    found = {kind: row for kind, row in kinds.items() if kind is not type(None)}
    if not found or found.keys() == {str}:
        return polars.String(), None
    if found.keys() == {bool}:
        return polars.Boolean(), None
    if found.keys() == {int}:
        return polars.Int64(), _as_int64
    if found.keys() <= {int, Number}:
        return polars.Float64(), _as_exact_float
    for kind in (list, dict):
        if kind in found:
            raise TableError(
                f'row {found[kind]}: {short_repr(name)} is {_TYPE_NAMES[kind]}, which is not '
                'converted to Parquet. Flatten it, or convert to JSON or NDJSON.'
            )
    types = ', '.join(
        f'{_TYPE_NAMES[kind]} in row {row}'
        for kind, row in sorted(found.items(), key=itemgetter(1))
    )
    raise TableError(f'{short_repr(name)} is {types}: a Parquet column must have one type.')


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return 'true' if value else 'false'
    return str(value)


def _as_int64(value: int | None) -> int | None:
    if value is not None and not -(2**63) <= value < 2**63:
        raise ValueError(f'{value} needs more than 64 bits. Write such numbers as text.')
    return value


def _as_exact_float(value: int | Number | None) -> float | None:
    if value is None:
        return None
    number = float(value)
    try:
        exact = Decimal(str(value)) == Decimal(repr(number))
    except InvalidOperation:  # the exponent is out of range for Decimal, too
        exact = False
    if not exact:
        raise ValueError(f'{value} would become {number!r} as a float. Write it as text.')
    return number
