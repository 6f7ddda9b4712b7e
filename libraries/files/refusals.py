"""What makes an uploaded file unusable, as an error that is not tried again."""

from collections.abc import Iterator
from contextlib import contextmanager

from libraries.files.settings import uploads
from qdjobs.errors import PermanentJobError, short_repr


@contextmanager
def permanent_upload_errors(name: str) -> Iterator[None]:
    """Raise PermanentJobError where an uploaded file is missing, closed to the worker or a link.

    A store that refuses is tried again: its credentials may change.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise PermanentJobError(
            f'{short_repr(name)}: there is no such file in {uploads()} (UPLOAD_DIR).'
        ) from error
    except PermissionError as error:
        raise PermanentJobError(
            f'{short_repr(name)}: the worker may not read it: fix its permissions.'
        ) from error
    except ValueError as error:
        raise PermanentJobError(str(error)) from error
