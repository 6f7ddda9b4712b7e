"""The settings that bound what files and clients may cost."""

import os
import re

LIMITS = {
    'IMAGE_MAX_PIXELS': 89_478_485,  # read, or written by a `resize`
    'IMAGE_MAX_SCANS': 100,  # passes over the pixels of a JPEG: about ten if it is progressive
    'IMAGE_MAX_MEMORY': 1000,  # megabytes while an image is decoded
    'TABLE_MAX_COLUMNS': 10_000,  # of a table that is converted
    'TABLE_MAX_CELLS': 1_000_000_000,  # rows × columns
    'TABLE_MAX_OUTPUT': 8000,  # megabytes of the result
    'TABLE_MAX_MEMORY': 2000,  # megabytes while a Parquet file is read
    'OUTPUT_MAX_SIZE': 10_000,  # megabytes of files from which on a drawing is refused
    'DRAWING_KEEP_DAYS': 7,
    'OUTPUT_KEEP_DAYS': 0,  # none: they are kept
    'ARTBOARD_MAX_WAITING': 1000,  # jobs from which on a drawing is refused
}

_LEAST = {'TABLE_MAX_MEMORY': 200}  # with less the engine does not start, or hangs


def read_limits() -> None:
    """Check the settings. Raises ValueError, naming the variable, for an invalid value."""
    for setting in LIMITS:
        limit(setting)


def limit(setting: str) -> int:
    """The bound from the environment, or the default. Raises ValueError as `read_limits` does."""
    text = os.environ.get(setting)
    if not text:
        return LIMITS[setting]
    least = _LEAST.get(setting, 1)
    if not re.fullmatch('[0-9]{1,18}', text) or int(text) < least:
        raise ValueError(f'{setting} must be a whole number from {least} on, not {text[:30]!r}.')
    return int(text)
