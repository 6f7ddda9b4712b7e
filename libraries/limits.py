"""The bounds on what hostile files may cost, as settings: honest files never meet the defaults."""

import os
import re

LIMITS = {
    'IMAGE_MAX_PIXELS': 89_478_485,  # read, or written by a `resize`
    'IMAGE_MAX_SCANS': 100,  # passes over the pixels of a JPEG: about ten if it is progressive
    'IMAGE_MAX_MEMORY': 1000,  # megabytes while an image is decoded
}


def read_limits() -> None:
    """Check the settings. Raises ValueError, naming the variable, for an invalid value."""
    for setting in LIMITS:
        limit(setting)


def limit(setting: str) -> int:
    """The bound from the environment, or the default. Raises ValueError as `read_limits` does."""
    text = os.environ.get(setting) or str(LIMITS[setting])
    if not re.fullmatch('[1-9][0-9]{0,17}', text):
        raise ValueError(f'{setting} must be a whole number from 1 on, not {text!r}.')
    return int(text)
