"""Check for `flask jobs doctor` that web and workers read each other's files."""

import logging
import platform
import secrets
from collections.abc import Iterator
from typing import Any

from libraries.files import Place, Store, outputs, uploads
from libraries.job_manager import (
    UnknownTaskError,
    delete_job,
    enqueue_background_job,
    wait_for_job,
)

EXCHANGE = 'workers.check_tasks.exchange_files'
CHECK_QUEUE = 'high'
PATIENCE = 10.0  # seconds for a worker to run it
STORE_PATIENCE = 5.0  # seconds for each answer of an object store

log = logging.getLogger(__name__)


def find_faults() -> Iterator[str]:
    """Web and workers read each other's files in UPLOAD_DIR and OUTPUT_DIR."""
    name = f'.doctor-{secrets.token_hex(8)}.txt'
    content = secrets.token_hex(16)
    try:
        with uploads(STORE_PATIENCE).create(name) as file:
            file.write(content.encode())
    except (OSError, ValueError) as error:
        yield f'This process cannot write to UPLOAD_DIR: {_line(error, "UPLOAD_DIR")}.'
        return
    try:
        yield from _exchange(name, content)
    except UnknownTaskError as error:
        yield f'Not checked whether workers share the files: {error}'
    finally:
        for place in uploads(STORE_PATIENCE), outputs(STORE_PATIENCE):
            try:
                place.remove(name)
            except OSError as error:
                log.warning(
                    'The file %s of the check is left in %s: %s', name, place.setting, error
                )


def _exchange(name: str, content: str) -> Iterator[str]:
    """Have a worker read the file, and write one; yield what is wrong with either."""
    job = enqueue_background_job(EXCHANGE, name, content, job_queue=CHECK_QUEUE, job_timeout='10s')
    try:
        status = wait_for_job(job.id, PATIENCE)
    finally:
        if delete_job(job.id) == 'canceled':
            delete_job(job.id)
    if status['error'] and status['ended_at']:
        yield f'The job that checks the files has failed: {status["error"]}'
    elif status['status'] != 'finished':
        yield (
            f'No worker has run {EXCHANGE} within {PATIENCE:g} s: they are busy, or older than '
            'this process. Look again later.'
        )
    else:
        yield from _compare(name, content, status['result'])


def _compare(name: str, content: str, seen: dict[str, Any]) -> Iterator[str]:
    where = f'a worker on {seen["host"]}'
    if seen['read_error']:
        yield (
            f'What this process writes to UPLOAD_DIR, {uploads()}, {where} cannot read: '
            f'{_line(seen["read_error"], "UPLOAD_DIR")}. {_advice(seen, uploads())}'
        )
    if seen['write_error']:
        error = _line(seen['write_error'], 'OUTPUT_DIR')
        yield f'OUTPUT_DIR of {where} cannot be written: {error}.'
        return
    try:
        with outputs(STORE_PATIENCE).open(name) as file:
            found = file.read() == content.encode()
    except FileNotFoundError:
        found = False
    except OSError as error:
        yield f'This process cannot read OUTPUT_DIR: {_line(error, "OUTPUT_DIR")}.'
        return
    here = str(outputs().result(name))
    if not found:
        yield (
            f'What {where} writes to OUTPUT_DIR, this process does not find in {outputs()}. '
            f'{_advice(seen, outputs())}'
        )
    elif seen['result'] != here:
        yield (
            f'What {where} writes to OUTPUT_DIR is {seen["result"]} there and {here} for this '
            'process: both must have the folder at the same path, since tasks return paths.'
        )


def _line(error: object, setting: str) -> str:
    """An error as a part of a sentence that has named the setting."""
    return ' '.join(str(error).split()).rstrip('.').removeprefix(f'{setting}: ')


def _advice(seen: dict[str, Any], place: Place) -> str:
    shared = 'folder' if seen['host'] == platform.node() else 'bucket (s3://…) or shared folder'
    kind = 'bucket' if isinstance(place, Store) else shared
    return f'Set {place.setting} to the same {kind} for both.'
