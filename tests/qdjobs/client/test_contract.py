"""The contract: what is queued, what is refused, and what is told of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.registry import (
    CanceledJobRegistry,
    DeferredJobRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
)

from libraries.job_manager import (
    cancel_job,
    delete_job,
    enqueue_background_job,
    enqueue_background_jobs,
    get_job_status,
    get_job_statuses,
    list_jobs,
    list_jobs_page,
    retry_job,
    wait_for_job,
)
from qdjobs.client.payload import PlainSerializer
from qdjobs.client.status import STATUSES
from qdjobs.errors import InvalidJobError, JobError, JobNotFoundError, UnknownTaskError
from tests.support.processes import Worker, eventually
from tests.support.shared_worker import SharedWorker

ADD = 'tests.support.tasks.add'
ECHO = 'tests.support.tasks.echo'
FAIL = 'tests.support.tasks.fail'
Dump = Callable[[], dict[bytes, Any]]


def queue(connection: Redis, name: str = 'default') -> Queue:
    return Queue(name, connection=connection, serializer=PlainSerializer)


def finish(*job_ids: str) -> None:
    for job_id in job_ids:
        wait_for_job(job_id, 60)


@contextmanager
def long_job(job_id: str = 'long') -> Iterator[str]:
    """A job that runs until the block ends."""
    enqueue_background_job('tests.support.tasks.sleep', 60, job_id=job_id)
    eventually(lambda: get_job_status(job_id)['status'] == 'started')
    yield job_id
    cancel_job(job_id)
    wait_for_job(job_id, 60)


def round_trips(connection: Redis) -> int:
    """Commands that the server has executed, without those that this asks with."""
    stats = connection.info('commandstats')
    ours = ('cmdstat_info', 'cmdstat_config|resetstat')
    scripts = ('evalsha', 'eval', 'multi')
    called = {name: row['calls'] for name, row in stats.items() if name not in ours}
    in_scripts = [name for name in scripts if f'cmdstat_{name}' in called]
    return int(sum(called[f'cmdstat_{name}'] for name in in_scripts) or sum(called.values()))


def test_a_queued_job_is_what_rq_itself_would_queue(connection: Redis) -> None:
    job = enqueue_background_job(ADD, 1, b=2, job_queue='high', job_timeout='1m')
    stored = Job.fetch(job.id, connection, PlainSerializer)
    assert queue(connection, 'high').job_ids == [job.id]
    assert stored.func_name == ADD
    assert (stored.args, stored.kwargs) == ((1,), {'b': 2})
    assert (stored.timeout, stored.origin) == (60, 'high')
    assert (stored.result_ttl, stored.failure_ttl) == (86_400, 604_800)
    assert queue(connection, 'high') in Queue.all(connection)


def test_a_new_job_reads_as_queued() -> None:
    status = get_job_status(enqueue_background_job(ADD, 1).id)
    assert type(status['status']) is str
    assert status['status'] == 'queued'
    assert (status['task'], status['queue']) == (ADD, 'default')
    assert status['created_at'] is not None
    assert status['created_at'].utcoffset() == timedelta(0)
    assert status['started_at'] is status['ended_at'] is status['result'] is None
    assert status['attempts'] == []


def test_arguments_with_the_names_of_options_go_to_the_task() -> None:
    names = [
        'timeout',
        'description',
        'meta',
        'queue',
        'priority',
        'name',
        'func',
        'dotted_path',
        'depends_on',
    ]
    names += ['result_ttl', 'at_front', 'args', 'kwargs', 'self', 'retry']
    arguments: dict[str, Any] = {name: f'value of {name}' for name in names}
    job = enqueue_background_job(ECHO, 'first', **arguments, job_timeout=30)
    assert job.args == ('first',)
    assert job.kwargs == arguments
    assert job.timeout == 30


REFUSALS: list[tuple[type[JobError], str, tuple[Any, ...], dict[str, Any], str]] = [
    (UnknownTaskError, 'os.system', ('true',), {}, 'JOB_TASK_MODULES'),
    (UnknownTaskError, 'tests.support.tasks.no_such_task', (), {}, 'names no public function'),
    (UnknownTaskError, 'tests.support.tasks._private', (), {}, 'names no public function'),
    (InvalidJobError, ADD, (), {}, "missing a required argument: 'a'"),
    (InvalidJobError, ADD, ('1',), {}, "argument 'a': Expected int, got str"),
    (InvalidJobError, ADD, (True,), {}, 'got bool'),
    (InvalidJobError, ADD, (1,), {'c': 3}, "unexpected keyword argument 'c'"),
    (InvalidJobError, ECHO, (object(),), {}, 'does not travel'),
    (InvalidJobError, ECHO, (), {'x': [{'y': {1j}}]}, "argument 'x'[0]['y']"),
    (InvalidJobError, ADD, (1,), {'job_priority': 1}, 'job_max_retries'),
    (InvalidJobError, ADD, (1,), {'job_queue': 'urgent'}, 'high, default, low'),
    (InvalidJobError, ADD, (1,), {'job_timeout': 'soon'}, 'job_timeout must be'),
    (InvalidJobError, ADD, (1,), {'job_max_retries': -1}, 'job_max_retries must be'),
    (InvalidJobError, ADD, (1,), {'job_at': datetime(2030, 1, 1)}, 'aware'),  # noqa: DTZ001
    (InvalidJobError, ADD, (1,), {'job_id': 'a b'}, 'job_id must be'),
    (InvalidJobError, ADD, (1,), {'job_result_ttl': 0}, 'at least one second'),
    (InvalidJobError, 'tests.support.tasks.options_collide', (), {}, 'rename the parameter'),
    (InvalidJobError, 'tests.support.tasks.uncheckable', ('x',), {}, "parameter 'target'"),
]


@pytest.mark.parametrize(('error', 'path', 'args', 'kwargs', 'told'), REFUSALS)
def test_a_refusal_says_why_and_leaves_redis_as_it_was(
    dump: Dump,
    error: type[JobError],
    path: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    told: str,
) -> None:
    enqueue_background_job(ADD, 1)
    before = dump()
    with pytest.raises(error) as caught:
        enqueue_background_job(path, *args, **kwargs)
    assert told in str(caught.value)
    assert dump() == before


@pytest.mark.parametrize(
    ('calls', 'options', 'told'),
    [
        ([{'a': 1}, {'a': 'x'}], {}, 'Call 1'),
        ([{'a': 1}, {'b': 1}], {}, 'missing a required argument'),
        ([{'a': 1, 'job_timeout': 5}], {}, 'beside the calls'),
        ([{'a': 1}, 7], {}, 'Call 1, 7'),
        ([{'a': 1}], {'job_qeue': 'low'}, 'job_qeue is no option'),
        ([{'a': 1}], {'b': 2}, 'b is no option'),
    ],
)
def test_a_bad_call_among_many_queues_none(
    dump: Dump, calls: list[Any], options: dict[str, Any], told: str
) -> None:
    before = dump()
    with pytest.raises(InvalidJobError, match=told):
        enqueue_background_jobs(ADD, calls, **options)
    assert dump() == before


def test_many_calls_are_queued_in_order_under_numbered_ids(connection: Redis) -> None:
    jobs = enqueue_background_jobs(ADD, ({'a': n} for n in range(1000)), job_id='batch')
    assert [job.id for job in jobs] == [f'batch-{n}' for n in range(1000)]
    assert queue(connection).job_ids == [job.id for job in jobs]
    assert Job.fetch('batch-7', connection, PlainSerializer).kwargs == {'a': 7}
    enqueue_background_jobs(ADD, [{'a': n} for n in range(1000)], job_id='batch')
    assert queue(connection).count == 1000


def test_no_calls_are_no_jobs(dump: Dump) -> None:
    assert enqueue_background_jobs(ADD, []) == []
    assert dump() == {}


def test_each_call_is_one_round_trip(connection: Redis) -> None:
    enqueue_background_job(ADD, 1, job_id='known')  # from now on the server knows the scripts
    get_job_status('known')
    ids = [f'many-{n}' for n in range(1000)]
    for call in (
        lambda: enqueue_background_job(ADD, 1),
        lambda: enqueue_background_job(ADD, 1, job_id='known'),
        lambda: enqueue_background_job(ADD, 1, job_delay=60),
        lambda: enqueue_background_jobs(ADD, [{'a': 1}] * 1000, job_id='many'),
        lambda: get_job_status('known'),
        lambda: get_job_statuses(ids),
    ):
        connection.config_resetstat()
        call()
        assert round_trips(connection) == 1


def test_the_id_of_a_waiting_job_adds_nothing_and_returns_that_job(dump: Dump) -> None:
    first = enqueue_background_job(ADD, 1, job_id='once', job_queue='low')
    before = dump()
    second = enqueue_background_job(ADD, 2, job_id='once', job_queue='high')
    assert dump() == before
    assert second.id == first.id
    assert (second.args, second.origin) == ((1,), 'low')


def test_the_id_of_a_running_job_adds_nothing(
    connection: Redis, shared_worker: SharedWorker
) -> None:
    with long_job('long'):
        enqueue_background_job('tests.support.tasks.sleep', 1.0, job_id='long')
        assert queue(connection).count == 0


def test_an_ended_id_runs_anew_and_leaves_nothing_of_its_old_run(
    connection: Redis, shared_worker: SharedWorker
) -> None:
    enqueue_background_job(FAIL, 'first', job_id='again', job_queue='high')
    finish('again')
    assert get_job_status('again')['attempts'][0]['error'] == 'ValueError: first'
    assert connection.ttl('rq:job:again') > 0

    with shared_worker.held():
        enqueue_background_job(ADD, 1, job_id='again', job_queue='low')
        status = get_job_status('again')
        assert (status['status'], status['task'], status['queue']) == ('queued', ADD, 'low')
        assert (status['attempts'], status['error'], status['ended_at']) == ([], None, None)
        assert connection.ttl('rq:job:again') == -1
        assert not connection.exists('rq:results:again')
        assert 'again' not in FailedJobRegistry('high', connection=connection).get_job_ids()
        assert queue(connection, 'low').job_ids == ['again']

    assert wait_for_job('again', 60)['result'] == 3


@pytest.mark.parametrize('worker', ['ours', 'stock'])
def test_an_outcome_is_told_once_the_job_has_ended(
    request: pytest.FixtureRequest, rq_worker: Worker, worker: str
) -> None:
    moment = datetime(2030, 5, 17, 12, 30, tzinfo=UTC)
    done = enqueue_background_job(ECHO, moment, {1, 2}, key=(1, b'\x00'))
    broken = enqueue_background_job(FAIL, 'width must be positive\nand more')
    unplain = [
        enqueue_background_job(f'tests.support.tasks.{task}')
        for task in ('return_unplain', 'return_unpicklable')
    ]
    if worker == 'ours':
        request.getfixturevalue('shared_worker')
        finish(*(job.id for job in (done, broken, *unplain)))
    else:
        with rq_worker('--burst') as process:
            assert process.wait(60) == 0

    status = get_job_status(done.id)
    assert status['status'] == 'finished'
    assert status['result'] == [[moment, {1, 2}], {'key': (1, b'\x00')}]
    assert status['error'] is None
    created, started, ended = status['created_at'], status['started_at'], status['ended_at']
    assert created is not None
    assert started is not None
    assert ended is not None
    assert max(created, started) <= ended  # a paused worker had taken the time of its claim before

    status = get_job_status(broken.id)
    assert status['status'] == 'failed'
    assert status['error'] == 'ValueError: width must be positive'  # one line, no traceback
    (attempt,) = status['attempts']
    assert attempt['error'] == status['error']
    assert status['ended_at'] is not None
    assert abs(attempt['at'] - status['ended_at']) < timedelta(minutes=1)

    for job in unplain:
        status = get_job_status(job.id)
        assert (status['status'], status['result']) == ('failed', None)
        assert status['error'] is not None
        assert 'the result of' in status['error']
        assert 'does not travel' in status['error']


def test_a_failing_job_is_tried_again_later_and_then_finishes(
    shared_worker: SharedWorker, tmp_path: Path
) -> None:
    marker = str(tmp_path / 'marker')
    job = enqueue_background_job(
        'tests.support.tasks.fail_until', marker, 2, job_max_retries=2, job_retry_delay=1
    )
    status = wait_for_job(job.id, 60)
    assert (status['status'], status['result']) == ('finished', 3)


def test_retry_puts_a_dead_letter_back_as_new(
    connection: Redis, shared_worker: SharedWorker
) -> None:
    job = enqueue_background_job(FAIL, job_max_retries=1, job_retry_delay=0)
    finish(job.id)
    assert get_job_status(job.id)['status'] == 'failed'
    assert FailedJobRegistry(connection=connection).get_job_ids() == [job.id]
    assert 600_000 < connection.ttl(f'rq:job:{job.id}') <= 604_800
    with shared_worker.held():
        retried = retry_job(job.id)
        assert retried.id == job.id
        assert retried.retries_left == 1
        status = get_job_status(job.id)
        assert (status['status'], status['error'], status['attempts']) == ('queued', None, [])
        assert status['started_at'] is status['ended_at'] is None
        assert connection.ttl(f'rq:job:{job.id}') == -1
        assert FailedJobRegistry(connection=connection).get_job_ids() == []
        assert queue(connection).job_ids == [job.id]
    finish(job.id)
    assert get_job_status(job.id)['status'] == 'failed'


def test_what_has_finished_is_neither_retried_nor_cancelled(
    shared_worker: SharedWorker, dump: Dump, connection: Redis
) -> None:
    with shared_worker.held():
        job = enqueue_background_job(ADD, 1)
        with pytest.raises(InvalidJobError, match='is queued'):
            retry_job(job.id)
    finish(job.id)
    with shared_worker.held():
        before = dump()
        with pytest.raises(InvalidJobError, match='is finished'):
            retry_job(job.id)
        assert cancel_job(job.id) == 'finished'
        assert dump() == before
        cancelled = enqueue_background_job(ADD, 1)
        cancel_job(cancelled.id)
        assert retry_job(cancelled.id).get_status().value == 'queued'
        assert connection.zcard('rq:canceled:default') == 0


def test_a_cancelled_job_never_runs_and_is_kept_for_a_day(
    connection: Redis, shared_worker: SharedWorker
) -> None:
    with shared_worker.held():
        waiting = enqueue_background_job(ADD, 1, job_queue='low')
        scheduled = enqueue_background_job(ADD, 1, job_delay='1h')
        for job in (waiting, scheduled):
            assert cancel_job(job.id) == 'canceled'
            assert get_job_status(job.id)['status'] == 'canceled'
            assert 86_000 < connection.ttl(f'rq:job:{job.id}') <= 86_400
        assert CanceledJobRegistry('low', connection).get_job_ids() == [waiting.id]
        assert connection.zcard('rq:scheduled:default') == 0
        behind = enqueue_background_job(ADD, 1, job_queue='low')
    finish(behind.id)
    assert get_job_status(waiting.id)['started_at'] is None


def test_a_running_job_is_listed_and_stopped(shared_worker: SharedWorker) -> None:
    job = enqueue_background_job('tests.support.tasks.sleep', 600.0)
    eventually(lambda: [found['id'] for found in list_jobs('started')] == [job.id])
    assert cancel_job(job.id) == 'stopping'
    assert wait_for_job(job.id, 60)['status'] == 'stopped'
    assert [found['id'] for found in list_jobs('stopped')] == [job.id]
    assert list_jobs('failed') == []


def test_cancelling_tidies_what_rq_itself_cancelled(connection: Redis) -> None:
    old = enqueue_background_job(ADD, 1)
    old.cancel()
    assert connection.ttl(f'rq:job:{old.id}') == -1
    cancel_job(enqueue_background_job(ADD, 1).id)
    assert connection.ttl(f'rq:job:{old.id}') > 0


@pytest.mark.parametrize('call', [get_job_status, cancel_job, retry_job])
@pytest.mark.parametrize(
    'job_id', ['missing', 'a:b', '', 'x' * 300, '\x00', None, 'jobs:dependents']
)
def test_an_unknown_id_is_an_error(call: Callable[[Any], Any], job_id: Any, dump: Dump) -> None:
    with pytest.raises(JobNotFoundError):
        call(job_id)
    assert dump() == {}


@pytest.mark.parametrize(
    'call', [get_job_status, cancel_job, retry_job, delete_job, lambda job: wait_for_job(job, 1)]
)
def test_what_is_no_id_is_refused_with_what_to_pass(call: Callable[[Any], Any]) -> None:
    job = enqueue_background_job(ADD, 1)
    for value in (job, None, 7):
        with pytest.raises(JobNotFoundError, match=r'id of a job is text, not .*: pass job\.id\.$'):
            call(value)
    with pytest.raises(InvalidJobError, match='takes a list of ids: for one, get_job_status'):
        get_job_statuses(job)  # type: ignore[arg-type]
    assert get_job_status(job.id)['status'] == 'queued'


def test_all_missing_ids_are_named() -> None:
    job = enqueue_background_job(ADD, 1)
    with pytest.raises(JobNotFoundError, match=r"no job 'gone', 'away'") as caught:
        get_job_statuses(['gone', job.id, 'away'])
    assert caught.value.job_ids == ('gone', 'away')


def test_delayed_jobs_wait_in_the_scheduled_registry(connection: Redis) -> None:
    moment = datetime.now(UTC) + timedelta(hours=2)
    for options in ({'job_delay': '2h'}, {'job_delay': 7200}, {'job_at': moment}):
        job = enqueue_background_job(ADD, 1, **options)
        assert get_job_status(job.id)['status'] == 'scheduled'
        score = connection.zscore('rq:scheduled:default', job.id)
        assert isinstance(score, float)
        assert 0 <= score - moment.timestamp() < 60
    assert queue(connection).count == 0


def test_a_past_moment_is_now(connection: Redis) -> None:
    enqueue_background_job(ADD, 1, job_at=datetime.now(UTC) - timedelta(hours=1))
    assert queue(connection).count == 1


def test_a_scheduled_job_runs_when_its_time_has_come(shared_worker: SharedWorker) -> None:
    job = enqueue_background_job(ADD, 1, job_delay=1)
    status = wait_for_job(job.id, 60)
    assert status['status'] == 'finished'
    assert status['started_at'] is not None
    assert status['created_at'] is not None
    assert status['started_at'] - status['created_at'] >= timedelta(seconds=1)


def test_every_status_of_rq_can_be_listed(connection: Redis, shared_worker: SharedWorker) -> None:
    enqueue_background_job(ADD, 1, job_id='done')
    enqueue_background_job(FAIL, job_id='broken')
    finish('done', 'broken')
    with shared_worker.held():
        check_listings(connection)


def check_listings(connection: Redis) -> None:
    enqueue_background_job(ADD, 1, job_id='waiting')
    enqueue_background_job(ADD, 1, job_id='later', job_delay=60)
    enqueue_background_job(ADD, 1, job_id='off')
    cancel_job('off')
    parent = queue(connection).enqueue(ADD, 1, job_id='parent')
    queue(connection).enqueue(ADD, 1, depends_on=parent, job_id='dependent')
    expected = {
        'queued': ['waiting', 'parent'],
        'scheduled': ['later'],
        'deferred': ['dependent'],
        'finished': ['done'],
        'failed': ['broken'],
        'canceled': ['off'],
    }
    for status in STATUSES:
        assert [job['id'] for job in list_jobs(status)] == expected.get(status, []), status
    assert {job['id'] for job in list_jobs()} == {id_ for ids in expected.values() for id_ in ids}


def test_an_entry_that_is_no_text_hides_no_other(connection: Redis) -> None:
    enqueue_background_job(ADD, 1, job_id='sound')
    connection.lpush('rq:queue:default', b'\xff')
    connection.zadd('rq:failed:default', {b'\xff': 1e12})
    connection.sadd('rq:rl-keys', b'\xff')
    assert [job['id'] for job in list_jobs()] == ['sound']


def test_a_listing_of_few_among_many_is_bounded_and_goes_on(connection: Redis) -> None:
    failed = enqueue_background_jobs(
        'tests.support.tasks.add', [{'a': n} for n in range(3)], job_id='f'
    )
    connection.zadd('rq:failed:high', {f'gone-{n}': n for n in range(10_000)})
    connection.zadd('rq:failed:low', {failed[0].id: 1})
    connection.hset(failed[0].key, mapping={'status': 'stopped', 'origin': 'low'})
    connection.config_resetstat()
    found, cursor = list_jobs_page('stopped', limit=1)
    assert (found, cursor is None) == ([], False)
    assert sum(call['calls'] for call in connection.info('commandstats').values()) < 11_000
    found, cursor = list_jobs_page('stopped', limit=1, cursor=cursor)
    assert [job['id'] for job in found] == [failed[0].id]


def test_a_listing_by_another_word_for_a_status_names_the_status() -> None:
    with pytest.raises(InvalidJobError, match=r"not 'completed'\. Write 'finished'\."):
        list_jobs('completed')  # type: ignore[arg-type]


def test_an_empty_listing_is_few_round_trips(connection: Redis) -> None:
    list_jobs()
    connection.config_resetstat()
    list_jobs()
    stats = connection.info('commandstats')
    assert set(stats) <= {'cmdstat_exists', 'cmdstat_smembers', 'cmdstat_config|resetstat'}


def test_a_listing_is_bounded_and_keeps_to_its_queue() -> None:
    enqueue_background_jobs(ADD, [{'a': 1}] * 450, job_id='low', job_queue='low')
    enqueue_background_jobs(ADD, [{'a': 1}] * 3, job_id='high', job_queue='high')
    assert [job['id'] for job in list_jobs('queued', 'high')] == ['high-0', 'high-1', 'high-2']
    assert [job['id'] for job in list_jobs('queued', limit=4)][3] == 'low-0'
    assert len(list_jobs()) == 50
    assert len(list_jobs('queued', 'low', limit=1000)) == 450


@pytest.mark.parametrize(
    ('arguments', 'told'),
    [
        ({'status': 'running'}, 'started, queued'),
        ({'queue': 'urgent'}, 'high, default, low'),
        ({'limit': 0}, 'from 1 to 1000'),
        ({'limit': True}, 'from 1 to 1000'),
    ],
)
def test_a_listing_of_what_there_is_not_is_refused(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidJobError, match=told):
        list_jobs(**arguments)


def test_reading_changes_nothing(
    shared_worker: SharedWorker, dump: Dump, connection: Redis
) -> None:
    enqueue_background_job(ADD, 1, job_id='done')
    finish('done')
    with shared_worker.held():
        enqueue_background_job(ADD, 1, job_id='waiting')
        # What RQ's cleanup would sweep away: entries whose time is up, and one that lost its job.
        for key in ('rq:finished:default', 'rq:failed:default', 'rq:wip:default'):
            connection.zadd(key, {'done': 1, 'gone:execution': 1})
        before = dump()
        get_job_status('done')
        list_jobs(limit=1000)
        for status in STATUSES:
            list_jobs(status)
        assert dump() == before
        FinishedJobRegistry(connection=connection).count  # noqa: B018  # the control: RQ's own does
        assert dump() != before


def test_waiting_for_a_job_ends_with_the_job_or_with_the_time(shared_worker: SharedWorker) -> None:
    with shared_worker.held():
        job = enqueue_background_job(ADD, 1)
        assert wait_for_job(job.id, 0.05)['status'] == 'queued'
    assert wait_for_job(job.id, 60)['result'] == 3
    with pytest.raises(JobNotFoundError):
        wait_for_job('missing', 1)


def test_jobs_that_rq_enqueued_itself_are_told_of_too(
    connection: Redis, shared_worker: SharedWorker
) -> None:
    with shared_worker.held():
        job = Queue('default', connection=connection).enqueue(ADD, 1, description='by hand')
        dependent = Queue('default', connection=connection).enqueue(ADD, 2, depends_on=job)
        assert get_job_status(job.id)['task'] == ADD
        assert dependent.id in DeferredJobRegistry(connection=connection).get_job_ids()
    finish(job.id, dependent.id)
    assert [status['result'] for status in get_job_statuses([job.id, dependent.id])] == [3, 4]


def test_dependents_of_an_ended_id_still_wait_for_its_new_run(
    connection: Redis, shared_worker: SharedWorker
) -> None:
    with shared_worker.held():
        enqueue_background_job(FAIL, job_id='parent')
        parent = Job.fetch('parent', connection, PlainSerializer)
        queue(connection).enqueue(ADD, 1, depends_on=parent, job_id='child')
    finish('parent')
    assert get_job_status('child')['status'] == 'deferred'
    enqueue_background_job(ADD, 1, job_id='parent')
    finish('parent', 'child')
    assert get_job_status('child')['status'] == 'finished'


def test_rq_s_own_rate_limit_holds_for_cancel_retry_and_listing(
    connection: Redis, shared_worker: SharedWorker
) -> None:
    from rq.rate_limit import RateLimit

    limit = RateLimit('one', 1)
    with shared_worker.held():
        first = queue(connection).enqueue(FAIL, rate_limit=limit)
        second = queue(connection).enqueue(ADD, 1, rate_limit=limit)
        third = queue(connection).enqueue(ADD, 1, rate_limit=limit)
        assert {job['id'] for job in list_jobs('rate_limited')} == {second.id, third.id}
        assert cancel_job(third.id) == 'canceled'
    finish(first.id, second.id)
    statuses = [job['status'] for job in get_job_statuses([first.id, second.id, third.id])]
    assert statuses == ['failed', 'finished', 'canceled']
    # The worker frees its place right after it has written how the job ended.
    eventually(lambda: connection.zcard('rq:rl:one:allowed') == 0)
    with shared_worker.held():
        retry_job(first.id)
        assert queue(connection).job_ids == [first.id]
