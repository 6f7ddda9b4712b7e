"""Convert tables between formats; compute statistics of numbers."""

import math
from typing import Annotated, TypedDict

from msgspec import Meta

from libraries.files import check_names
from libraries.tables.files import TableFormat, convert_upload
from qdjobs.checks import checked_by
from qdjobs.errors import PermanentJobError
from qdjobs.progress import report_progress

Delimiter = Annotated[str, Meta(pattern=r'\A[\t !#-/:-@\[-^`{-~]\Z', description='one ASCII sign')]


class Summary(TypedDict):
    """The result of data_processing."""

    count: int
    sum: int | float
    mean: float
    min: int | float
    max: int | float


def _check_file(
    file_path: str,
    format: TableFormat = 'json',
    delimiter: Delimiter | None = None,
    encoding: str | None = None,
) -> None:
    check_names('UPLOAD_DIR', [file_path])


@checked_by(_check_file)
def process_file(
    file_path: str,
    format: TableFormat = 'json',
    delimiter: Delimiter | None = None,
    encoding: str | None = None,
) -> str:
    """Convert an uploaded CSV, TSV, JSON, NDJSON or Parquet file; return the new file's path.

    The output is always `converted/<name>.<format>` in OUTPUT_DIR. `delimiter` applies to CSV,
    `encoding` to all text formats; both are only needed where the file is ambiguous. Raises
    PermanentJobError, with the place in the file, for a broken file and for data that the new
    format cannot hold unchanged.
    """

    def report_bytes(done: int, total: int) -> None:
        report_progress(done, total, 'bytes read')

    return str(convert_upload(file_path, format, delimiter, encoding, report_bytes))


def data_processing(data: list[int | float]) -> Summary:
    """The count, sum, mean, minimum and maximum of at least one number.

    The sum of integers is exact, any other sum correctly rounded. Raises PermanentJobError for an
    empty list, NaN, infinity, and a sum or mean too large for a float.
    """
    if not data:
        raise PermanentJobError('data is empty: pass at least one number.')
    try:
        if not all(map(math.isfinite, data)):
            raise PermanentJobError('data holds NaN or infinity: pass finite numbers only.')
        whole = all(isinstance(number, int) for number in data)
        total = sum(data) if whole else math.fsum(data)
        mean = total / len(data)
    except OverflowError as error:
        raise PermanentJobError('data holds numbers that are too large for floats.') from error
    return Summary(count=len(data), sum=total, mean=mean, min=min(data), max=max(data))
