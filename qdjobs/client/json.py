"""Encode plain data as JSON, in the same way for HTTP, the shell and the dashboard."""

from typing import Any

import msgspec

from qdjobs.client.payload import check_plain


def to_json(value: Any) -> str:
    """Encode plain data as JSON. Raises InvalidJobError for other data.

    ISO 8601 for dates and durations, base64 for bytes, strings for Decimal and UUID, arrays for
    tuples and sets, null for NaN and infinities.
    """
    try:
        return msgspec.json.encode(value).decode()
    except (TypeError, ValueError, RecursionError):
        check_plain(value)
        return msgspec.json.encode(_jsonable(value)).decode()


def _jsonable(value: Any) -> Any:
    """Replace what msgspec cannot encode: unusual keys, lone surrogates, huge integers."""
    if isinstance(value, dict):
        return {_json_key(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_jsonable(item) for item in value]
    if isinstance(value, str):
        return value.encode(errors='backslashreplace').decode()
    if isinstance(value, int) and value.bit_length() > 4096:
        return hex(value)  # converting a huge integer to decimal takes quadratic time
    return value


def _json_key(key: Any) -> str:
    return (
        key.encode(errors='backslashreplace').decode()
        if isinstance(key, str)
        else to_json(key).strip('"')
    )
