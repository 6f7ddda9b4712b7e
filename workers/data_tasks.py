"""Tables converted from one format to another, and numbers summed up."""

import math
from typing import Annotated, TypedDict

from msgspec import Meta

from libraries.tables.files import TableFormat, convert_upload
from qdjobs.errors import PermanentJobError
from qdjobs.progress import report_progress

Delimiter = Annotated[str, Meta(pattern=r'\A[\t !#-/:-@\[-^`{-~]\Z', description='one ASCII sign')]


class Summary(TypedDict):
    """What data_processing returns."""

    count: int
    sum: int | float
    mean: float
    min: int | float
    max: int | float


def process_file(
    file_path: str,
    format: TableFormat = 'json',
    delimiter: Delimiter | None = None,
    encoding: str | None = None,
) -> str:
    """Convert an uploaded CSV, TSV, JSON, NDJSON or Parquet file; return the new file's path.

    `delimiter` and `encoding` are of a CSV whose own is in doubt. The same file always goes to the
    same place, `converted/<name>.<format>`. Raises PermanentJobError, naming the line, for a file
    that is broken or would not be the same afterwards.
    """

    def tell(done: int, total: int) -> None:
        report_progress(done, total, 'bytes read')

    return str(convert_upload(file_path, format, delimiter, encoding, tell))


def data_processing(data: list[int | float]) -> Summary:
    """The count, sum, mean, minimum and maximum of some numbers, of which there is at least one.

    A sum of whole numbers is exact, any other correctly rounded. Raises PermanentJobError for no
    numbers, NaN, infinity, and what floats cannot hold.
    """
    if not data:
        raise PermanentJobError('data holds no number: pass at least one.')
    try:
        if not all(map(math.isfinite, data)):
            raise PermanentJobError('data holds NaN or infinity: pass finite numbers only.')
        whole = all(isinstance(number, int) for number in data)
        total = sum(data) if whole else math.fsum(data)
        mean = total / len(data)
    except OverflowError as error:
        raise PermanentJobError('data holds numbers that are too large for floats.') from error
    return Summary(count=len(data), sum=total, mean=mean, min=min(data), max=max(data))
