"""RQ's Job under a key prefix that need not be RQ's own."""

from functools import cache

from rq.defaults import RQ_KEY_PREFIX
from rq.job import Job
from rq.results import Result


@cache
def job_class(prefix: str) -> type[Job]:
    """RQ's Job for an application with this key prefix; RQ has one prefix for a whole process.

    The status, the fields and the results of such a job can be read; to change it, use the
    functions of qdjobs.
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
