"""Bound what the open API queues: its settings, and what is refused."""

import logging
import os
from collections.abc import Mapping

from flask import current_app
from werkzeug.exceptions import Forbidden, ServiceUnavailable

from libraries.files import NoRoomError, require_room
from libraries.job_manager import count_waiting_jobs
from qdjobs.web import has_api_token

MAX_WAITING = 1000  # the default of ARTBOARD_MAX_WAITING
RETRY_AFTER = 30  # seconds; jobs go quickly
ROOM_AFTER = 600  # seconds; old files go every hour

log = logging.getLogger(__name__)


def read_limits(env: Mapping[str, str] | None = None) -> tuple[int, bool | None]:
    """Return how many jobs may wait, and whether anybody's drawing may be urgent; None if unset.

    Raises ValueError, naming the variable, for an invalid value.
    """
    env = os.environ if env is None else env
    most = env.get('ARTBOARD_MAX_WAITING') or str(MAX_WAITING)
    if not most.isdecimal() or not 1 <= int(most[:10]) <= 1_000_000:
        raise ValueError(f'ARTBOARD_MAX_WAITING must be 1 to 1000000 jobs, not {most[:20]!r}.')
    urgent = env.get('ARTBOARD_URGENT') or None
    if urgent not in (None, '0', '1'):
        raise ValueError(f'ARTBOARD_URGENT must be 1 or 0, not {urgent[:20]!r}.')
    return int(most), None if urgent is None else urgent == '1'


def urgent_for_all() -> bool:
    """Return whether anybody's drawing may be urgent: as the setting says, else in development."""
    _, urgent = read_limits()
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
    most, _ = read_limits()
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
