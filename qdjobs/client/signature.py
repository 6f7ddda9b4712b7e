"""What a type checker knows of a call: `enqueue_background_job` and `JobQueue.enqueue` share it."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from qdjobs.client.options import After, AfterFailure, Duration

Function = Callable[..., object]

P = ParamSpec('P')
R = TypeVar('R')
R_co = TypeVar('R_co', covariant=True)


class Enqueue(Protocol[R_co]):
    """The type of a function that enqueues a call of a task.

    Python cannot say "the parameters of that function, and these keywords" (PEP 612). So a
    function without options matches the last overload, which checks its arguments; a function with
    options matches the overload of one of them, which checks that option only. Each of these
    requires its option: otherwise a wrong call without options would match it. The last overload
    is the last because mypy takes it to match whatever the others do.
    """

    @overload
    def __call__(
        self,
        task: str,
        /,
        *args: Any,
        job_queue: str | None = None,
        job_timeout: Duration | None = None,
        job_max_retries: int | None = None,
        job_retry_delay: Duration | None = None,
        job_delay: Duration | None = None,
        job_at: datetime | None = None,
        job_after: After | None = None,
        job_after_failure: AfterFailure | None = None,
        job_on_success: str | None = None,
        job_on_failure: str | None = None,
        job_id: str | None = None,
        job_result_ttl: Duration | None = None,
        job_meta: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> R_co: ...
    @overload
    def __call__(
        self, task: Function, /, *args: Any, job_queue: str | None, **kwargs: Any
    ) -> R_co: ...
    @overload
    def __call__(
        self, task: Function, /, *args: Any, job_timeout: Duration | None, **kwargs: Any
    ) -> R_co: ...
    @overload
    def __call__(
        self, task: Function, /, *args: Any, job_max_retries: int | None, **kwargs: Any
    ) -> R_co: ...
    @overload
    def __call__(
        self, task: Function, /, *args: Any, job_retry_delay: Duration | None, **kwargs: Any
    ) -> R_co: ...
    @overload
    def __call__(
        self, task: Function, /, *args: Any, job_delay: Duration | None, **kwargs: Any
    ) -> R_co: ...
    @overload
    def __call__(
        self, task: Function, /, *args: Any, job_at: datetime | None, **kwargs: Any
    ) -> R_co: ...
    @overload
    def __call__(
        self, task: Function, /, *args: Any, job_after: After | None, **kwargs: Any
    ) -> R_co: ...
    @overload
    def __call__(
        self, task: Function, /, *args: Any, job_after_failure: AfterFailure | None, **kwargs: Any
    ) -> R_co: ...
    @overload
    def __call__(
        self, task: Function, /, *args: Any, job_on_success: str | None, **kwargs: Any
    ) -> R_co: ...
    @overload
    def __call__(
        self, task: Function, /, *args: Any, job_on_failure: str | None, **kwargs: Any
    ) -> R_co: ...
    @overload
    def __call__(
        self, task: Function, /, *args: Any, job_id: str | None, **kwargs: Any
    ) -> R_co: ...
    @overload
    def __call__(
        self, task: Function, /, *args: Any, job_result_ttl: Duration | None, **kwargs: Any
    ) -> R_co: ...
    @overload
    def __call__(
        self, task: Function, /, *args: Any, job_meta: Mapping[str, Any] | None, **kwargs: Any
    ) -> R_co: ...
    @overload
    def __call__(self, task: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


def typed_enqueue(function: Callable[..., R]) -> Enqueue[R]:
    """Have type checkers see a function as `Enqueue`. The function stays as it is."""
    return function
