"""Metadata of a job, and what an application adds to each call."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import product
from typing import Any

import pytest
from flask import Flask, current_app
from redis import Redis

from qdjobs import (
    InvalidJobError,
    JobQueue,
    QueueUnavailableError,
    enqueue_background_job,
    enqueue_background_jobs,
    get_job_status,
    retry_job,
)
from qdjobs.client.call import Call
from qdjobs.client.enqueue import MAX_META
from qdjobs.client.status import read_statuses
from qdjobs.server import HOST, free_port
from tests.support.applications import use_redis

ADD = 'tests.support.tasks.add'


@pytest.fixture
def queue() -> Iterator[JobQueue]:
    app = Flask('an-app')
    queue = JobQueue(app)
    with app.app_context():
        yield queue


def test_the_status_has_the_metadata_and_nothing_else_of_the_job_changes() -> None:
    meta = {'request': 7, 'progress': 'mine', 'attempts': [1], 'owner': {'id': b'x'}}
    status = get_job_status(enqueue_background_job(ADD, 1, job_meta=meta).id)
    assert status['meta'] == meta
    assert (status['progress'], status['attempts']) == (None, [])
    assert get_job_status(enqueue_background_job(ADD, 1).id)['meta'] == {}


def test_the_status_has_no_metadata_whose_name_begins_with_an_underscore() -> None:
    job = enqueue_background_job(ADD, 1, job_meta={'_trace': 'secret', 'request': 7})
    assert get_job_status(job.id)['meta'] == {'request': 7}


def test_a_new_run_under_an_id_has_its_own_metadata() -> None:
    job = enqueue_background_job(ADD, 1, job_id='one', job_meta={'run': 1})
    job.set_status('failed')  # type: ignore[arg-type]
    retry_job('one')
    assert get_job_status('one')['meta'] == {'run': 1}
    job.set_status('failed')  # type: ignore[arg-type]
    enqueue_background_job(ADD, 1, job_id='one')
    assert get_job_status('one')['meta'] == {}


@pytest.mark.parametrize(
    ('meta', 'reason'),
    [
        (7, 'job_meta must be a dict of plain data'),
        ({7: 1}, 'job_meta must be a dict of plain data'),
        ({'a': object()}, r"job_meta\['a'\] is of type object, which does not travel"),
        ({'a': 'x' * MAX_META}, f'job_meta has 10.* bytes, more than {MAX_META}'),
    ],
)
def test_metadata_that_is_no_plain_small_dict_is_refused(
    connection: Redis, meta: Any, reason: str
) -> None:
    with pytest.raises(InvalidJobError, match=reason):
        enqueue_background_job(ADD, 1, job_meta=meta)
    assert connection.dbsize() == 0


def test_a_hook_sees_each_call_and_adds_to_its_metadata(queue: JobQueue) -> None:
    seen: list[tuple[str, Any, Any]] = []

    @queue.before_enqueue
    def note(call: Call) -> None:
        seen.append((call.task.path, call.args, dict(call.kwargs)))
        call.meta['number'] = len(seen)

    queue.add('add', ADD)
    shared = {'request': 'r'}
    one = enqueue_background_job(ADD, 1, job_meta=shared)
    two = queue.enqueue('add', 2, job_meta=shared)
    three, four = enqueue_background_jobs(ADD, [{'a': 3}, {'a': 4}], job_meta=shared)
    assert seen == [(ADD, (1,), {}), (ADD, (2,), {}), (ADD, (), {'a': 3}), (ADD, (), {'a': 4})]
    statuses = read_statuses([one.id, two.id, three.id, four.id])
    assert [status and status['meta'] for status in statuses] == [
        {'request': 'r', 'number': number} for number in (1, 2, 3, 4)
    ]
    assert shared == {'request': 'r'}


def test_no_job_shares_its_metadata_with_another_or_with_its_caller(queue: JobQueue) -> None:
    @queue.before_enqueue
    def tag(call: Call) -> None:
        call.meta['tags'].append(call.kwargs['a'])

    shared: dict[str, Any] = {'tags': []}
    queue.add('add', ADD, job_meta=shared)
    jobs = [queue.enqueue('add', a=1).id]
    jobs += [job.id for job in enqueue_background_jobs(ADD, [{'a': 2}, {'a': 3}], job_meta=shared)]
    found = [status and status['meta'] for status in read_statuses(jobs)]
    assert found == [{'tags': [1]}, {'tags': [2]}, {'tags': [3]}]
    assert shared == {'tags': []}


def test_only_some_calls_of_a_batch_can_have_metadata(queue: JobQueue) -> None:
    @queue.before_enqueue
    def note(call: Call) -> None:
        if call.kwargs['a'] == 4:
            call.meta['four'] = True

    jobs = enqueue_background_jobs(ADD, [{'a': 3}, {'a': 4}, {'a': 5}])
    statuses = read_statuses([job.id for job in jobs])
    assert [status and status['meta'] for status in statuses] == [{}, {'four': True}, {}]


def test_a_hook_refuses_a_call_or_a_whole_batch(queue: JobQueue, connection: Redis) -> None:
    @queue.before_enqueue
    def refuse(call: Call) -> None:
        if call.kwargs.get('a') == 13:
            raise LookupError('unlucky')

    with pytest.raises(LookupError, match='unlucky'):
        enqueue_background_job(ADD, a=13)
    with pytest.raises(LookupError, match='unlucky'):
        enqueue_background_jobs(ADD, [{'a': 1}, {'a': 13}])
    assert connection.dbsize() == 0


def test_a_hook_is_around_the_enqueueing_of_one_call_or_a_batch(
    queue: JobQueue, connection: Redis
) -> None:
    seen: list[int] = []

    @queue.around_enqueue
    def surround(calls: Sequence[Call]) -> Iterator[None]:
        for call in calls:
            call.meta['calls'] = len(calls)
        seen.append(connection.exists(*(f'rq:job:{call.id}' for call in calls)))
        yield
        seen.append(connection.exists(*(f'rq:job:{call.id}' for call in calls)))

    one = enqueue_background_job(ADD, 1)
    two, three = enqueue_background_jobs(ADD, [{'a': 2}, {'a': 3}])
    assert seen == [0, 1, 0, 2]
    statuses = read_statuses([one.id, two.id, three.id])
    assert [status and status['meta'] for status in statuses] == [{'calls': n} for n in (1, 2, 2)]


def test_no_hook_hides_that_a_call_was_not_enqueued(
    queue: JobQueue, settings: pytest.MonkeyPatch
) -> None:
    caught: list[Exception] = []

    @queue.around_enqueue
    def swallow(calls: Sequence[Call]) -> Iterator[None]:
        try:
            yield
        except QueueUnavailableError as error:
            caught.append(error)

    queue.add('add', ADD)
    use_redis(settings, f'redis://{HOST}:{free_port()}/0', current_app)
    with pytest.raises(QueueUnavailableError) as refusal:
        enqueue_background_job(ADD, 1)
    assert caught == [refusal.value]


def test_what_a_hook_adds_is_checked_too(queue: JobQueue, connection: Redis) -> None:
    @queue.before_enqueue
    def spoil(call: Call) -> None:
        call.meta['user'] = queue

    with pytest.raises(InvalidJobError, match=r"job_meta\['user'\] is of type .*JobQueue"):
        enqueue_background_job(ADD, 1)
    assert connection.dbsize() == 0


@pytest.mark.parametrize(
    ('change', 'reason'),
    [
        ({'a': 'bad'}, "argument 'a': "),
        ({'a': object()}, "argument 'a' is of type object, which does not travel"),
        ({'other': 1}, 'unexpected keyword argument'),
    ],
)
def test_arguments_that_a_hook_has_spoilt_are_refused_at_the_call(
    queue: JobQueue, connection: Redis, change: dict[str, Any], reason: str
) -> None:
    queue.before_enqueue(lambda call: call.kwargs.update(change))
    with pytest.raises(InvalidJobError, match=reason):
        enqueue_background_job(ADD, a=1)
    assert connection.dbsize() == 0


def test_a_hook_can_change_arguments_to_others_that_fit(queue: JobQueue) -> None:
    queue.before_enqueue(lambda call: call.kwargs.update(b=5))
    job = enqueue_background_job(ADD, a=1)
    assert job.kwargs == {'a': 1, 'b': 5}


def no_yield(*arguments: object) -> None:
    pass


async def awaited(*arguments: object) -> None:
    pass


async def streamed(*arguments: object) -> AsyncIterator[None]:
    yield


def generated(*arguments: object) -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    ('hook', 'wrong'),
    [
        *product(['around_enqueue', 'around_job', 'around_horse'], [no_yield, awaited, streamed]),
        *product(['before_enqueue', 'on_failure'], [generated, awaited, streamed]),
    ],
)
def test_a_hook_that_would_not_run_is_refused_where_it_is_declared(
    queue: JobQueue, hook: str, wrong: Callable[..., object]
) -> None:
    with pytest.raises(TypeError, match=f'^{hook}: {wrong.__name__} .*`def`'):
        getattr(queue, hook)(wrong)


@pytest.mark.parametrize(
    'manager', [generated, contextmanager(generated), partial(generated), nullcontext]
)
def test_what_is_around_enqueueing_can_be_any_context_manager(
    queue: JobQueue, manager: Callable[..., object]
) -> None:
    queue.around_enqueue(manager)
    assert get_job_status(enqueue_background_job(ADD, 1).id)['status'] == 'queued'


def test_the_hooks_of_one_application_are_not_those_of_another(queue: JobQueue) -> None:
    seen: list[Call] = []
    queue.before_enqueue(seen.append)
    other = Flask('another')
    JobQueue(other)
    with other.app_context():
        enqueue_background_job(ADD, 1)
    assert seen == []


def test_a_batch_of_large_arguments_is_refused(connection: Redis) -> None:
    calls = [{'text': 'x' * 900_000}] * 70
    with pytest.raises(InvalidJobError, match='more than 60 MB: make several batches'):
        enqueue_background_jobs('tests.support.tasks.echo', calls)
    assert connection.dbsize() == 0


def test_arguments_that_nobody_would_read_get_the_same_advice(connection: Redis) -> None:
    with pytest.raises(InvalidJobError, match=r'echo have 17.0 MB, more than JOB_MAX_ARGUMENTS \('):
        enqueue_background_job('tests.support.tasks.echo', 'x' * 17_000_000)
    assert connection.dbsize() == 0


@pytest.mark.parametrize('size', [999_000, 1_000_000])
def test_large_arguments_are_refused_with_advice(connection: Redis, size: int) -> None:
    if size < 1_000_000:
        enqueue_background_job('tests.support.tasks.echo', 'x' * size)
        return
    with pytest.raises(InvalidJobError) as refusal:
        enqueue_background_job('tests.support.tasks.echo', 'x' * size)
    assert str(refusal.value) == (
        'The arguments of tests.support.tasks.echo have 1.0 MB, more than JOB_MAX_ARGUMENTS '
        "(1 MB): write them to a file, and pass the file's name."
    )
    assert connection.dbsize() == 0
