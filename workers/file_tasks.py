"""Convert many files in one job, each independently of the others."""

from typing import Any, Literal, TypedDict

import msgspec

from libraries.files import call_digest, check_names, outputs, write_output
from libraries.tables.files import convert_upload
from qdjobs.checks import checked_by
from qdjobs.errors import PermanentJobError
from qdjobs.progress import current_job, track

Operation = Literal['convert_to_csv', 'convert_to_json', 'convert_to_ndjson', 'convert_to_parquet']

NAMED = 5  # failed files named in the error


class Outcome(TypedDict):
    """The outcome of one file: the path of the new file, or a one-line error."""

    file: str
    result: str | None
    error: str | None


class Report(TypedDict):
    """The file `batches/<job id>.json`."""

    operation: Operation
    run: str  # when the job was enqueued: a later one may have the same id
    outcomes: list[Outcome]


def _check_files(file_list: list[str], operation: Operation = 'convert_to_json') -> None:
    check_names('UPLOAD_DIR', file_list)


@checked_by(_check_files)
def process_batch(file_list: list[str], operation: Operation = 'convert_to_json') -> list[Outcome]:
    """Convert uploaded files, reporting progress; return the outcome of each, in order.

    A bad file does not stop the others. At the end PermanentJobError counts and names the failed
    files; `batches/<job id>.json` in OUTPUT_DIR has the outcome of each. Any other error, such as
    a full disk or the job's time-out, ends the attempt; the next one converts what is missing.
    """
    if not file_list:
        raise PermanentJobError('file_list is empty: name at least one file.')
    job = current_job()
    run = str(job.created_at) if job else ''
    name = f'batches/{job.id if job else call_digest(file_list, operation)}.json'
    outcomes = _read_results(name, run) if job else {}
    try:
        for file in track(file_list, message=operation.replace('_', ' ')):
            if file not in outcomes:
                outcomes[file] = _convert(file, operation.removeprefix('convert_to_'))
    finally:
        ended = [outcomes[file] for file in file_list if file in outcomes]
        report = Report(operation=operation, run=run, outcomes=ended)
        path = write_output(name, msgspec.json.format(msgspec.json.encode(report)))
    if failed := [error for outcome in ended if (error := outcome['error'])]:
        named = '; '.join(error[:200].rstrip('.') for error in failed[:NAMED])
        more = f'; and {len(failed) - NAMED} more' if len(failed) > NAMED else ''
        raise PermanentJobError(
            f'{len(failed)} of {len(file_list)} files failed: {named}{more}. '
            f'{path} has the outcome of each.'
        )
    return ended


def _convert(file: str, format: Any) -> Outcome:
    try:
        return Outcome(file=file, result=str(convert_upload(file, format)), error=None)
    except PermanentJobError as error:
        return Outcome(file=file, result=None, error=' '.join(str(error).split()))


def _read_results(name: str, run: str) -> dict[str, Outcome]:
    """The files that earlier attempts of this job have converted."""
    try:
        with outputs().open(name) as file:
            report = msgspec.json.decode(file.read(), type=Report)
    except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
        return {}  # this is the first attempt; a report that cannot be read is of another version
    done = report['outcomes'] if report['run'] == run else []
    return {outcome['file']: outcome for outcome in done if outcome['result']}
