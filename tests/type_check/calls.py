"""Calls, right and wrong: what a type checker must say of each line. test_calls.py runs them.

A line that is wrong has the mark `# error: <mypy's code>, <pyright's rule>`, without the rule if
pyright accepts it in its standard mode.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, assert_type

from flask import Flask
from rq.job import Job

from qdjobs import (
    JobQueue,
    Options,
    Progress,
    cancel_job,
    delete_job,
    enqueue_background_job,
    enqueue_background_jobs,
    get_job_status,
    list_jobs,
)
from qdjobs.extension import QueuedJob

queue = JobQueue(Flask('x'), url_prefix='/jobs')
anything: dict[str, Any] = {}


@queue.task('send_email', job_max_retries=3, job_queue='high')
def send_email(to: str, subject: str, size: int = 0) -> dict[str, str]:
    return {}


def ping() -> None: ...


# A task stays what it is

assert_type(send_email('a', 'b'), dict[str, str])
send_email('a', 1)  # error: arg-type, reportArgumentType

# A function: its parameters are known

assert_type(enqueue_background_job(send_email, 'a', subject='b'), Job)
assert_type(queue.enqueue(send_email, 'a', subject='b'), QueuedJob)
enqueue_background_job(send_email, 'a', 'b', 3)
enqueue_background_job(send_email, 'a', **anything)
enqueue_background_job(ping)
enqueue_background_job(send_email)  # error: call-overload, reportCallIssue
enqueue_background_job(send_email, to='a')  # error: call-overload, reportCallIssue
enqueue_background_job(send_email, 'a', 'b', 3, 4)  # error: call-overload, reportCallIssue
enqueue_background_job(send_email, 'a', subjct='b')  # error: call-arg, reportCallIssue
enqueue_background_job(send_email, 1, 'b')  # error: call-overload, reportCallIssue
enqueue_background_job(send_email, 'a', 'b', size='x')  # error: arg-type, reportCallIssue
enqueue_background_job(ping, 1)  # error: call-overload, reportCallIssue
queue.enqueue(send_email, to='a')  # error: call-overload, reportCallIssue
queue.enqueue(send_email, to='a', subjct='b')  # error: call-overload, reportCallIssue
queue.enqueue(send_email, to=1, subject='b')  # error: call-overload, reportCallIssue
queue.enqueue(send_email, to='a', subject='b', size='x')  # error: call-overload, reportCallIssue

# A function with options: any option is known, the arguments are not checked beside it

assert_type(enqueue_background_job(send_email, 'a', 'b', job_timeout='2m'), Job)
assert_type(queue.enqueue(send_email, 'a', 'b', job_timeout='2m'), QueuedJob)
enqueue_background_job(ping, job_queue='high')
enqueue_background_job(ping, job_max_retries=3)
enqueue_background_job(ping, job_retry_delay='1m')
enqueue_background_job(ping, job_delay=1.5)
enqueue_background_job(ping, job_at=datetime.now(UTC))
enqueue_background_job(ping, job_id='a')
enqueue_background_job(ping, job_result_ttl='1h')
enqueue_background_job(ping, job_meta={'request': 7})
enqueue_background_job(ping, job_id=None)
enqueue_background_job(send_email, to='a', subject='b', job_queue='high', job_timeout='2m')
enqueue_background_job(send_email, to=1, job_timeout='2m')  # Python has no type for this
enqueue_background_job(ping, job_queue=1)  # error: call-overload, reportCallIssue
enqueue_background_job(ping, job_timeout=[])  # error: call-overload, reportCallIssue
enqueue_background_job(ping, job_max_retries='3')  # error: call-overload, reportCallIssue
enqueue_background_job(ping, job_retry_delay=[])  # error: call-overload, reportCallIssue
enqueue_background_job(ping, job_delay=[])  # error: call-overload, reportCallIssue
enqueue_background_job(ping, job_at='tomorrow')  # error: call-overload, reportCallIssue
enqueue_background_job(ping, job_id=7)  # error: call-overload, reportCallIssue
enqueue_background_job(ping, job_result_ttl=[])  # error: call-overload, reportCallIssue
enqueue_background_job(ping, job_meta=7)  # error: call-overload, reportCallIssue
enqueue_background_job(ping, job_priority=1)  # error: call-overload, reportCallIssue
queue.enqueue(ping, job_at='tomorrow')  # error: call-overload, reportCallIssue

# With `using`, the arguments and the options are checked

queue.using(job_delay='5m', job_max_retries=2).enqueue(send_email, to='a', subject='b')
queue.using(job_delay='5m').enqueue(send_email, to=1)  # error: call-overload, reportCallIssue
queue.using(delay='5m')  # error: call-arg, reportCallIssue

# A path or a name: the options are known

assert_type(enqueue_background_job('a.b', 1, to='a', job_delay='5m', job_timeout=None), Job)
assert_type(queue.enqueue('send_email', to='a', job_delay='5m'), QueuedJob)
enqueue_background_job('a.b', **anything)
enqueue_background_job('a.b', job_at='tomorrow')  # error: call-overload, reportCallIssue
enqueue_background_job('a.b', job_id='a', job_timeout=[])  # error: call-overload, reportCallIssue
queue.enqueue('send_email', to='a', job_max_retries='3')  # error: call-overload, reportCallIssue

# Neither

enqueue_background_job(7)  # error: call-overload, reportCallIssue
enqueue_background_job(task='a.b')  # error: call-overload, reportCallIssue
queue.enqueue(7)  # error: call-overload, reportCallIssue
queue.add('x', 7)  # error: arg-type, reportArgumentType


# A function of an application around it


def later(task: str | Callable[..., object], *args: Any, **kwargs: Any) -> Job:
    return enqueue_background_job(task, *args, **kwargs)


def soon(task: str | Callable[..., object], *args: Any, **kwargs: Any) -> QueuedJob:
    return queue.enqueue(task, *args, job_delay='1m', **kwargs)


# Many calls, and names

assert_type(enqueue_background_jobs('a.b', [{'to': 'a'}], job_delay='5m'), list[Job])
enqueue_background_jobs(send_email, ({'to': to, 'subject': 'b'} for to in 'abc'))
enqueue_background_jobs('a.b', [], job_id=7)  # error: arg-type, reportArgumentType
enqueue_background_jobs('a.b', [1])  # error: list-item, reportArgumentType
enqueue_background_jobs(7, [])  # error: arg-type, reportArgumentType
queue.add('x', 'a.b', job_max_retries=3)
queue.add('x', send_email)
queue.add('x', 'a.b', job_max_retries='3')  # error: arg-type, reportArgumentType
queue.task('x', job_retries=3)  # error: call-arg, reportCallIssue
options: Options = {'job_queue': 'high', 'job_id': 7}  # error: typeddict-item, reportAssignmentType

# Statuses

status = get_job_status('a')
if status['status'] == 'finished':
    status['result'].anything()
if status['status'] == 'finshed':  # error: comparison-overlap
    pass
assert_type(status['progress'], Progress | None)
if progress := status['progress']:
    assert_type(progress['done'], int)
    assert_type(progress['total'], int | None)
    assert_type(progress['message'], str)
    progress['percent']  # error: typeddict-item, reportGeneralTypeIssues
status['progress']['done']  # error: index, reportOptionalSubscript
status['outcome']  # error: typeddict-item, reportGeneralTypeIssues
if queue.enqueue(ping).status == 'canceled':
    pass
list_jobs('failed', queue='high')
list_jobs(status['status'])
list_jobs('failde')  # error: arg-type, reportArgumentType

# Outcomes

assert_type(cancel_job('a'), Literal['canceled', 'stopping', 'finished', 'failed', 'stopped'])
if cancel_job('a') == 'cancelled':  # error: comparison-overlap
    pass
if delete_job('a') == 'deleted':
    pass
