"""RQ's Job class for a configured key prefix."""

from functools import cache

from rq.defaults import RQ_KEY_PREFIX
from rq.job import Job
from rq.results import Result


@cache
def job_class(prefix: str) -> type[Job]:
    """Return RQ's Job class for a key prefix; RQ itself has one prefix per process.

    Such a job's status, fields and results can be read. To change it, use the functions of qdjobs.
    """
    if prefix == RQ_KEY_PREFIX:
        return Job

    class PrefixedResult(Result):
        @classmethod
        def get_key(cls, job_id: str) -> str:
            return f'{prefix}:results:{job_id}'

    class PrefixedJob(Job):
        redis_job_namespace_prefix = f'{prefix}:job:'

        def latest_result(self, timeout: int = 0) -> Result | None:
            return PrefixedResult.fetch_latest(self, serializer=self.serializer, timeout=timeout)

        def results(self) -> list[Result]:
            found: list[Result] = PrefixedResult.all(self, serializer=self.serializer)
            return found

    return PrefixedJob
