"""Convert many files in one job, each independently of the others."""

import logging
import time
from pathlib import PurePath
from typing import Literal, NotRequired, TypedDict

import msgspec

from libraries.files import Place, call_digest, outputs, uploads, write_output
from libraries.tables.files import TableFormat, convert_upload
from qdjobs.errors import PermanentJobError
from qdjobs.progress import current_job, track

Operation = Literal['convert_to_csv', 'convert_to_json', 'convert_to_ndjson', 'convert_to_parquet']

REPORT_INTERVAL = 1.0  # least seconds between two writes of the report during a run
NAMED = 5  # failed files named in the error
MAX_DEATHS = 2  # workers that may die while converting one file before it is given up

log = logging.getLogger(__name__)
_FORMATS: dict[Operation, TableFormat] = {
    'convert_to_csv': 'csv',
    'convert_to_json': 'json',
    'convert_to_ndjson': 'ndjson',
    'convert_to_parquet': 'parquet',
}


class Outcome(TypedDict):
    """The outcome of one file: the path of the new file, or a one-line error."""

    file: str
    result: str | None
    error: str | None


class Entry(Outcome):
    """An outcome in the report."""

    seen: str  # size and time stamp of the file and of its result, to notice later changes


class Report(TypedDict):
    """The file `batches/<job id>.json`."""

    operation: Operation
    outcomes: list[Entry]
    begun: NotRequired[dict[str, int]]  # file → attempts that started it and did not end it


def process_batch(file_list: list[str], operation: Operation = 'convert_to_json') -> list[Outcome]:
    """Convert uploaded files, reporting progress; return the outcome of each, in order.

    A bad file does not stop the others. At the end PermanentJobError counts and names the failed
    files; `batches/<job id>.json` in OUTPUT_DIR has the outcome of each. Any other error, such as
    a full disk or the job's time-out, ends the attempt; the next one converts what is missing.
    """
    if not file_list:
        raise PermanentJobError('file_list is empty: name at least one file.')
    report = _report_name(file_list, operation)
    entries, begun = _read_report(report, operation)
    written_at = time.monotonic()
    try:
        for file in track(file_list, message=operation.replace('_', ' ')):
            if not _is_done(entries.get(file)):
                if file.lower().endswith('.parquet'):  # a broken one can crash the engine
                    begun[file] = begun.get(file, 0) + 1
                    _write_report(report, operation, file_list, entries, begun)
                try:
                    entries[file] = _convert(file, _FORMATS[operation], begun.get(file, 0))
                finally:
                    begun.pop(file, None)
            if time.monotonic() - written_at > REPORT_INTERVAL:
                _write_report(report, operation, file_list, entries, begun)
                written_at = time.monotonic()
    finally:
        path = _write_report(report, operation, file_list, entries, begun)
    failed = [entry for file in file_list if (entry := entries[file])['error']]
    if failed:
        named = '; '.join(str(entry['error'])[:200].rstrip('.') for entry in failed[:NAMED])
        more = f'; and {len(failed) - NAMED} more' if len(failed) > NAMED else ''
        raise PermanentJobError(
            f'{len(failed)} of {len(file_list)} files failed: {named}{more}. '
            f'{path} has the outcome of each.'
        )
    return [Outcome(file=file, result=entries[file]['result'], error=None) for file in file_list]


def _convert(file: str, format: TableFormat, attempt: int) -> Entry:
    before = _state(uploads(), file)
    try:
        if attempt > MAX_DEATHS:
            raise PermanentJobError(
                f'{file}: {MAX_DEATHS} workers died while converting it: is it broken or too large?'
            )
        result = convert_upload(file, format)
    except PermanentJobError as error:
        return Entry(file=file, result=None, error=' '.join(str(error).split()), seen='')
    seen = f'{before} {_state(outputs(), str(result))}'
    return Entry(file=file, result=str(result), error=None, seen=seen)


def _is_done(entry: Entry | None) -> bool:
    """Whether the file was converted, and neither it nor its result has changed since."""
    if entry is None or entry['result'] is None:
        return False
    now = f'{_state(uploads(), entry["file"])} {_state(outputs(), entry["result"])}'
    return entry['seen'] == now


def _state(place: Place, name: str) -> str:
    try:
        return place.state(name)
    except ValueError:  # converting the file raises it again
        return 'refused'


def _report_name(file_list: list[str], operation: Operation) -> str:
    job = current_job()
    return f'batches/{job.id if job else call_digest(file_list, operation)}.json'


def _read_report(name: str, operation: Operation) -> tuple[dict[str, Entry], dict[str, int]]:
    """The outcomes of earlier attempts and the counts of deaths while converting, by file."""
    try:
        with outputs().open(name) as file:
            report = msgspec.json.decode(file.read(), type=Report)
    except FileNotFoundError:
        return {}, {}
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        log.warning('Cannot read the report %s; converting all files again: %s', name, error)
        return {}, {}
    if report['operation'] != operation:  # an earlier job had the same id
        return {}, {}
    return {entry['file']: entry for entry in report['outcomes']}, report.get('begun', {})


def _write_report(
    name: str,
    operation: Operation,
    file_list: list[str],
    entries: dict[str, Entry],
    begun: dict[str, int],
) -> PurePath:
    outcomes = [entries[file] for file in file_list if file in entries]
    report = Report(operation=operation, outcomes=outcomes)
    if begun:
        report['begun'] = begun
    return write_output(name, msgspec.json.format(msgspec.json.encode(report)))
