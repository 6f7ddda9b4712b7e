"""The check of `flask jobs doctor` that web and workers read what the other writes."""

import logging
import platform
import secrets
from collections.abc import Iterator
from typing import Any

from libraries.files import Place, outputs, uploads
from libraries.job_manager import (
    UnknownTaskError,
    delete_job,
    enqueue_background_job,
    wait_for_job,
)
from qdjobs import JobQueue

EXCHANGE = 'workers.check_tasks.exchange_files'
QUEUE = 'high'
PATIENCE = 10.0  # seconds for a worker to run it

log = logging.getLogger(__name__)


def check_files(queue: JobQueue) -> None:
    """Have the doctor check the folders of this application."""
    queue.doctor_check(queue=QUEUE)(find_faults)


def find_faults() -> Iterator[str]:
    """Web and workers read each other's files in UPLOAD_DIR and OUTPUT_DIR."""
    # The same for each run: a worker on another disk leaves its file there.
    name = f'.doctor-{platform.node()}.txt'
    content = secrets.token_hex(16)
    try:
        with uploads().create(name) as file:
            file.write(content.encode())
    except (OSError, ValueError) as error:
        yield f'This process cannot write to UPLOAD_DIR: {_line(error)}.'
        return
    try:
        yield from _compare(name, content, _run(name, content))
    except _NotRunError as error:
        yield str(error)
    finally:
        _remove(uploads(), name)
        _remove(outputs(), name)


class _NotRunError(Exception):
    """No worker has made the exchange; the message is one sentence."""


def _run(name: str, content: str) -> dict[str, Any]:
    """What a worker has seen. Raises _NotRunError."""
    try:
        job = enqueue_background_job(EXCHANGE, name, content, job_queue=QUEUE, job_timeout='10s')
    except UnknownTaskError as error:
        raise _NotRunError(f'Not checked whether workers share the files: {error}') from None
    try:
        status = wait_for_job(job.id, PATIENCE)
    finally:
        if delete_job(job.id) == 'canceled':
            delete_job(job.id)
    if status['error']:
        raise _NotRunError(f'The job that checks the files has failed: {status["error"]}')
    if status['status'] != 'finished':
        raise _NotRunError(
            f'No worker has run {EXCHANGE} within {PATIENCE:g} s: they are busy, or older than '
            'this process. Look again later.'
        )
    seen: dict[str, Any] = status['result']
    return seen


def _remove(place: Place, name: str) -> None:
    try:
        place.remove(name)
    except OSError as error:
        log.warning('The file %s of the check is left in %s: %s', name, place.setting, error)


def _line(error: Exception) -> str:
    return ' '.join(str(error).split()).rstrip('.')


def _compare(name: str, content: str, seen: dict[str, Any]) -> Iterator[str]:
    where = f'a worker on {seen["host"]}'
    if seen['read_error']:
        yield (
            f'What this process writes to UPLOAD_DIR, {uploads()}, {where} cannot read: '
            f'{seen["read_error"]}. {_advice(seen, "UPLOAD_DIR")}'
        )
    if seen['write_error']:
        yield f'OUTPUT_DIR of {where} cannot be written: {seen["write_error"]}.'
        return
    try:
        with outputs().open(name) as file:
            found = file.read() == content.encode()
    except FileNotFoundError:
        found = False
    except OSError as error:
        yield f'This process cannot read OUTPUT_DIR: {_line(error)}.'
        return
    if not found:
        yield (
            f'What {where} writes to OUTPUT_DIR, this process does not find in {outputs()}. '
            f'{_advice(seen, "OUTPUT_DIR")}'
        )


def _advice(seen: dict[str, Any], setting: str) -> str:
    elsewhere = seen['host'] != platform.node()
    return (
        f'Set {setting} to the same {"bucket (s3://…) or shared folder" if elsewhere else "folder"}'
        ' for both.'
    )
