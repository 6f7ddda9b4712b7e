"""RQ's Job class for a configured key prefix, and with a bound on what it reads."""

from collections.abc import Mapping
from functools import cache

from rq.defaults import RQ_KEY_PREFIX
from rq.job import Job
from rq.results import Result

from qdjobs.client.payload import decompress

# RQ decompresses the first without a limit, and would send the last to any host.
_NOT_READ = {b'exc_info', b'result', b'webhooks'}


class BoundedJob(Job):
    """RQ's Job, which reads a record that anyone may have written."""

    def restore(self, raw_data: Mapping[bytes, bytes]) -> None:
        """Take over the fields of a hash. A malformed one can raise almost anything."""
        kept = {name: value for name, value in raw_data.items() if name not in _NOT_READ}
        super().restore(kept | {b'data': b''} if b'data' in kept else kept)
        self.data = decompress(raw_data[b'data'])  # RQ would do so without a limit


@cache
def job_class(prefix: str) -> type[Job]:
    """Return RQ's Job class for a key prefix; RQ itself has one prefix per process.

    Such a job's status, fields and results can be read. To change it, use the functions of qdjobs.
    """
    if prefix == RQ_KEY_PREFIX:
        return BoundedJob

    class PrefixedResult(Result):
        @classmethod
        def get_key(cls, job_id: str) -> str:
            return f'{prefix}:results:{job_id}'

    class PrefixedJob(BoundedJob):
        redis_job_namespace_prefix = f'{prefix}:job:'

        def latest_result(self, timeout: int = 0) -> Result | None:
            return PrefixedResult.fetch_latest(self, serializer=self.serializer, timeout=timeout)

        def results(self) -> list[Result]:
            found: list[Result] = PrefixedResult.all(self, serializer=self.serializer)
            return found

    return PrefixedJob
