"""Send output files, from a folder or from an object store: with the same headers and ranges."""

import errno
import logging
from collections.abc import Iterator
from typing import Any, cast

from flask import Response, request, send_file
from werkzeug.exceptions import ServiceUnavailable
from werkzeug.utils import send_file as send_stream

from libraries.files import Folder, StorageError, Store, outputs

PATIENCE = 5.0  # seconds for each answer of an object store
RETRY_AFTER = 5  # seconds

log = logging.getLogger(__name__)


def send_output(name: str, mimetype: str, **options: Any) -> Response:
    """Answer with an output file; `options` are those of Flask's send_file.

    Raises FileNotFoundError, ValueError for a name that is none in OUTPUT_DIR, and
    ServiceUnavailable if an object store does not answer, or it or the folder refuses.
    """
    place = outputs(PATIENCE)
    try:
        if isinstance(place, Folder):
            return _send_file(place, name, mimetype=mimetype, **options)
        return _send_object(place, name, mimetype=mimetype, **options)
    except (StorageError, PermissionError) as error:
        log.error('%s', error)
        # The message is for the operator, not for the client.
        detail = 'The file cannot be read now: repeat the request later.'
        raise ServiceUnavailable(detail, retry_after=RETRY_AFTER) from None


def _send_file(folder: Folder, name: str, **options: Any) -> Response:
    with folder.copy(name) as path:  # which Flask opens once more
        found = path.stat()
        # Flask's own tag would contain the path, which has another number each time.
        return send_file(path, etag=f'{found.st_mtime_ns:x}-{found.st_size:x}', **options)


def _send_object(store: Store, name: str, **options: Any) -> Response:
    """Answer with an object in blocks, of which one is in memory at a time."""
    found = store.look(name)
    # gunicorn's wrapper of files cannot seek: a range would read all that is before it.
    environ = {key: request.environ[key] for key in request.environ if key != 'wsgi.file_wrapper'}
    answer = send_stream(
        store.open(name, found),
        environ,
        etag=found.version,
        last_modified=found.modified,
        conditional=False,  # which would not know the size
        response_class=Response,
        **options,
    )
    answer.content_length = found.size
    answer.make_conditional(environ, accept_ranges=True, complete_length=found.size)
    if request.method == 'GET' and answer.status_code in (200, 206):
        blocks = cast(Iterator[bytes], iter(answer.response))
        # The first now, while an error still has an answer.
        answer.response = _go_on(next(blocks, b''), blocks, name)
    return cast(Response, answer)


def _go_on(first: bytes, blocks: Iterator[bytes], name: str) -> Iterator[bytes]:
    yield first
    try:
        yield from blocks
    except (StorageError, FileNotFoundError) as error:
        log.error('Sending %s has ended early: %s', name, error)
        # The length has been sent. gunicorn closes the connection, without a traceback.
        raise ConnectionResetError(errno.ECONNRESET, 'The file has ended early.') from None
