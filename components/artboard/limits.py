"""Bound what anybody may enqueue: refuse drawings when jobs or files are too many."""

import logging
import os
from collections.abc import Mapping

from flask import current_app
from werkzeug.exceptions import Forbidden, ServiceUnavailable

from libraries.files import NoRoomError, require_room
from libraries.job_manager import count_waiting_jobs
from libraries.limits import limit
from qdjobs.web import has_api_token

RETRY_AFTER = 30  # seconds; jobs go quickly
ROOM_AFTER = 600  # seconds; old files go every hour

log = logging.getLogger(__name__)


def read_urgent(env: Mapping[str, str] | None = None) -> bool | None:
    """Return whether anybody's drawing may be urgent; None if ARTBOARD_URGENT is unset.

    Raises ValueError for an invalid value.
    """
    urgent = (os.environ if env is None else env).get('ARTBOARD_URGENT') or None
    if urgent not in (None, '0', '1'):
        raise ValueError(f'ARTBOARD_URGENT must be 1 or 0, not {urgent[:20]!r}.')
    return None if urgent is None else urgent == '1'


def urgent_for_all() -> bool:
    """Return whether anybody's drawing may be urgent: as the setting says, else in development."""
    urgent = read_urgent()
    return current_app.debug if urgent is None else urgent


def require_urgent() -> None:
    """Raise Forbidden unless this request's drawing may be urgent."""
    if not urgent_for_all() and not has_api_token():
        raise Forbidden(
            'An urgent drawing needs the header "Authorization: Bearer …" with JOBS_API_TOKEN, or '
            'a server with ARTBOARD_URGENT=1: leave "urgent" out to have it drawn in turn.'
        )


def require_queue_room(queue: str) -> None:
    """Raise ServiceUnavailable if as many jobs as may wait are in the queue, whatever they do."""
    most = limit('ARTBOARD_MAX_WAITING')
    if count_waiting_jobs(queue) >= most:
        raise ServiceUnavailable(
            f'{most} jobs are waiting already: try again in half a minute.',
            retry_after=RETRY_AFTER,
        )


def require_disk_room() -> None:
    """Raise ServiceUnavailable if OUTPUT_DIR is full."""
    try:
        require_room()
    except NoRoomError as error:
        log.warning('A drawing is refused: %s', error)
        # The message is for the operator, not for the client.
        detail = 'There is no room for more drawings: repeat the request later.'
        raise ServiceUnavailable(detail, retry_after=ROOM_AFTER) from None
