"""What becomes of a job that waits for one which does not finish: docs/workflows.md."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import pytest
from redis import Redis
from rq import Queue

from qdjobs import (
    InvalidJobError,
    cancel_job,
    delete_job,
    enqueue_background_job,
    enqueue_background_jobs,
    get_job_status,
    get_job_statuses,
    retry_job,
)
from qdjobs.client.redis import get_connection
from qdjobs.config import environment_config, get_config
from qdjobs.testing import eager_jobs, recorded_jobs, run_jobs
from qdjobs.worker.lease import settle_deferred
from qdjobs.worker.maintenance import Maintenance
from qdjobs.worker.successors import enqueue_all_dependents

FINISH = 'tests.support.outcomes.finish'
FAIL = 'tests.support.outcomes.fail'
LUCKY = 'tests.support.outcomes.third_time_lucky'
SUMMARISE = 'tests.support.after_tasks.summarise'

Rule = Literal['wait', 'run', 'cancel']
RULES: tuple[Rule, ...] = ('wait', 'run', 'cancel')


@contextmanager
def queued() -> Iterator[None]:
    yield
    run_jobs()


def state(job_id: str) -> str:
    return get_job_status(job_id)['status']


def expire(connection: Redis, parent: str) -> None:
    """Let the time pass for which a parent that has not finished is kept."""
    assert connection.ttl(f'rq:job:{parent}') == -1  # it is kept for the job that waits
    connection.hset(f'rq:job:{parent}', 'kept_until', 1)
    assert enqueue_all_dependents(connection, parent, 5)


@pytest.mark.parametrize(
    ('end', 'states'),
    [
        ('finishes', ('finished', 'finished', 'finished')),
        ('fails', ('deferred', 'finished', 'canceled')),
        ('is cancelled', ('deferred', 'finished', 'canceled')),
        ('fails, and is deleted', ('canceled', 'finished', 'canceled')),
        ('fails, and expires', ('canceled', 'finished', 'canceled')),
        ('fails, and finishes when retried', ('finished', 'finished', 'canceled')),
        ('finishes, and is deleted', ('finished', 'finished', 'finished')),
    ],
)
def test_what_becomes_of_a_child(connection: Redis, end: str, states: tuple[str, ...]) -> None:
    task = FINISH if end.startswith(('finishes', 'is')) else FAIL
    if 'retried' in end:
        task = LUCKY
    parent = enqueue_background_job(task)
    children = [
        enqueue_background_job(SUMMARISE, job_after=parent, job_after_failure=rule)
        for rule in RULES
    ]
    assert [state(child.id) for child in children] == ['deferred'] * 3
    if 'cancelled' in end:
        cancel_job(parent.id)
    run_jobs()
    if 'deleted' in end:
        assert delete_job(parent.id) == 'deleted'
        assert not connection.exists(f'rq:job:{parent.id}')
    elif 'expires' in end:
        expire(connection, parent.id)
        assert not connection.exists(f'rq:job:{parent.id}')
    elif 'retried' in end:
        enqueue_background_job(FINISH, job_id=parent.id)
    run_jobs()
    assert tuple(state(child.id) for child in children) == states
    for child, last in zip(children, states, strict=True):
        status = get_job_status(child.id)
        if last == 'canceled':
            assert status['error'] == (
                f'Canceled: job {parent.id!r}, which had to finish first, has not.'
            )
            assert 0 < int(connection.ttl(child.key)) <= 86_400
        assert status['waits_for'] == ([parent.id] if last == 'deferred' else [])
    assert connection.zcard('rq:deferred:default') == states.count('deferred')


@pytest.mark.parametrize('rule', RULES)
@pytest.mark.parametrize('task', [FINISH, FAIL])
def test_it_is_the_same_for_a_parent_that_has_ended_before(
    connection: Redis, rule: Rule, task: str
) -> None:
    parent = enqueue_background_job(task)
    run_jobs()
    child = enqueue_background_job(FINISH, job_after=parent, job_after_failure=rule)
    enqueue_all_dependents(connection, parent.id, 5)  # as a worker does within seconds
    run_jobs()
    expected = {'wait': 'deferred', 'run': 'finished', 'cancel': 'canceled'}
    assert state(child.id) == ('finished' if task == FINISH else expected[rule])
    if task == FAIL and rule == 'wait':
        expire(connection, parent.id)
        assert state(child.id) == 'canceled'


@pytest.mark.parametrize('rule', RULES)
def test_a_job_waits_for_all_however_the_first_has_ended(rule: Rule) -> None:
    failing, other = enqueue_background_job(FAIL), enqueue_background_job(FINISH, job_delay=60)
    child = enqueue_background_job(SUMMARISE, job_after=[failing, other], job_after_failure=rule)
    run_jobs()
    assert state(child.id) == ('canceled' if rule == 'cancel' else 'deferred')
    waits_for = {'wait': {failing.id, other.id}, 'run': {other.id}, 'cancel': set()}[rule]
    assert set(get_job_status(child.id)['waits_for']) == waits_for


def test_a_cancelled_child_cancels_or_runs_its_own_children() -> None:
    parent = enqueue_background_job(FAIL)
    child = enqueue_background_job(FINISH, job_after=parent, job_after_failure='cancel')
    last = [
        enqueue_background_job(FINISH, job_after=child, job_after_failure=rule) for rule in RULES
    ]
    run_jobs()
    settle_all()
    run_jobs()
    assert state(child.id) == 'canceled'
    assert [state(job.id) for job in last] == ['deferred', 'finished', 'canceled']


def settle_all() -> None:
    """Do what each worker does every few seconds."""
    while found := pending():
        for member in found:
            enqueue_all_dependents(get_connection(), member.decode(), 5)


def pending() -> list[bytes]:
    found: Any = get_connection().zrangebyscore('rq:pending-dependents', 0, time.time())
    return list(found)


def test_a_retried_child_obeys_its_rule_again(connection: Redis) -> None:
    parent = enqueue_background_job(FAIL)
    child = enqueue_background_job(FINISH, job_after=parent, job_after_failure='cancel')
    run_jobs()
    retry_job(child.id)
    assert state(child.id) == 'deferred'
    settle_all()
    assert state(child.id) == 'canceled'
    delete_job(parent.id)
    retry_job(child.id)  # nothing keeps it now
    run_jobs()
    status = get_job_status(child.id)
    assert (status['status'], status['error']) == ('finished', None)


def test_a_parent_is_deleted_whatever_the_number_of_its_children(connection: Redis) -> None:
    parent = enqueue_background_job(FAIL)
    children = enqueue_background_jobs(FINISH, [{}] * 2500, job_after=parent)
    run_jobs()
    assert delete_job(parent.id) == 'deleted'
    assert {state(job.id) for job in children} == {'canceled'}
    assert connection.zcard('rq:deferred:default') == 0
    assert connection.exists(f'rq:job:{parent.id}:dependents') == 0


def test_a_child_of_a_parent_that_rq_has_deleted_runs(connection: Redis) -> None:
    parent = enqueue_background_job(FAIL)
    child = enqueue_background_job(FINISH, job_after=parent)
    parent.delete()  # RQ's own, which says nothing to the child
    run_jobs()
    assert state(child.id) == 'deferred'
    assert settle_deferred(connection, 'default', 0, 99) == (
        1,
        1,
    )  # as a worker does every few seconds
    run_jobs()
    assert state(child.id) == 'finished'


def test_a_parent_that_rq_has_cancelled_is_found(connection: Redis) -> None:
    parent = enqueue_background_job(FINISH)
    child = enqueue_background_job(FINISH, job_after=parent, job_after_failure='cancel')
    parent.cancel()  # RQ's own
    settle_deferred(connection, 'default', 0, 99)
    settle_all()
    assert state(child.id) == 'canceled'


@pytest.mark.parametrize('run', [queued, eager_jobs], ids=['queued', 'eager'])
def test_a_child_reads_its_parents(run: Callable[[], Any]) -> None:
    with run():
        first = enqueue_background_job(FINISH)
        second = enqueue_background_job(FAIL)
        child = enqueue_background_job(
            SUMMARISE, job_after=[second, first], job_after_failure='run'
        )
        if run is queued:
            run_jobs()
        assert get_job_status(child.id)['result'] == [
            [second.id, 'failed', None, 'ValueError: it'],
            [first.id, 'finished', {'b': b'x', 'n': [1, (2, 3)]}, None],
        ]


@pytest.mark.parametrize('number', [150, pytest.param(1000, marks=pytest.mark.slow)])
def test_many_parents_are_read_in_one_round_trip(connection: Redis, number: int) -> None:
    jobs = enqueue_background_jobs(FINISH, [{}] * number)
    child = enqueue_background_job(SUMMARISE, job_after=jobs)
    assert len(get_job_status(child.id)['waits_for']) == 100
    run_jobs()
    result = get_job_status(child.id)['result']
    assert [parent[0] for parent in result] == [job.id for job in jobs]
    alone = [scripts_called_by(connection, FINISH), scripts_called_by(connection, FINISH)]
    assert alone == [alone[0]] * 2
    assert scripts_called_by(connection, SUMMARISE, job_after=jobs) == alone[0] + 1


def scripts_called_by(connection: Redis, task: str, **options: Any) -> int:
    """The number of scripts that a job and its run call."""
    before = scripts_called(connection)
    enqueue_background_job(task, **options)
    run_jobs()
    return scripts_called(connection) - before


def scripts_called(connection: Redis) -> int:
    """The number of scripts that all clients have called."""
    stats: Any = connection.info('commandstats')
    return int(stats.get('cmdstat_evalsha', {'calls': 0})['calls'])


@pytest.mark.parametrize('run', [queued, eager_jobs], ids=['queued', 'eager'])
@pytest.mark.parametrize('rule', RULES)
def test_eager_jobs_have_the_same_rules(run: Callable[[], Any], rule: Rule) -> None:
    with run():
        parent = enqueue_background_job(FAIL)
        if run is queued:
            run_jobs()
        child = enqueue_background_job(FINISH, job_after=parent, job_after_failure=rule)
        last = enqueue_background_job(FINISH, job_after=child, job_after_failure='cancel')
        if run is queued:
            settle_all()
            run_jobs()
        expected = {'wait': 'deferred', 'run': 'finished', 'cancel': 'canceled'}[rule]
        assert state(child.id) == state(last.id) == expected
        if rule == 'wait':
            delete_job(parent.id)
            assert state(child.id) == 'canceled'


def test_a_cycle_is_refused(connection: Redis) -> None:
    first = enqueue_background_job(FAIL, job_id='first')
    run_jobs()
    second = enqueue_background_job(FAIL, job_id='second', job_after=first)
    enqueue_background_job(FINISH, job_id='third', job_after=second)
    keys = {key: connection.dump(key) for key in connection.scan_iter()}
    with pytest.raises(InvalidJobError, match="job 'first' would wait for itself, since what it"):
        enqueue_background_job(FINISH, job_id='first', job_after='third')
    with pytest.raises(InvalidJobError, match='would wait for itself'):
        enqueue_background_job(FINISH, job_id='first', job_after=['second'])
    assert {key: connection.dump(key) for key in connection.scan_iter()} == keys
    enqueue_background_job(FINISH, job_id='first')  # what it was
    run_jobs()
    assert state('second') == 'failed'


def test_a_cycle_by_a_retry_is_refused(connection: Redis) -> None:
    """Of jobs that have ended: a retry would bring back what they waited for."""
    first = enqueue_background_job(FAIL, job_id='first')
    second = enqueue_background_job(FAIL, job_id='second', job_after='first')
    enqueue_background_job(FINISH, job_id='second-parent')
    run_jobs()
    assert (state(first.id), state(second.id)) == ('failed', 'deferred')
    cancel_job(second.id)
    with pytest.raises(InvalidJobError, match='would wait for itself'):
        enqueue_background_job(FINISH, job_id='first', job_after='second')


@pytest.mark.parametrize('value', ['later', 7, True, []])
def test_another_rule_is_refused(value: Any) -> None:
    with pytest.raises(InvalidJobError, match='job_after_failure must be one of wait, run, cancel'):
        enqueue_background_job(FINISH, job_after_failure=value)


def test_a_job_that_is_enqueued_anew_waits_for_its_new_parents_only(connection: Redis) -> None:
    old = enqueue_background_job(FAIL)
    enqueue_background_job(FINISH, job_id='x', job_after=old)
    run_jobs()
    cancel_job('x')
    new = enqueue_background_job(FINISH)
    enqueue_background_job(FINISH, job_id='x', job_after=new, job_after_failure='cancel')
    delete_job(old.id)
    assert get_job_status('x')['waits_for'] == [new.id]
    run_jobs()
    assert state('x') == 'finished'


def test_what_had_finished_when_it_was_enqueued_does_not_count_again() -> None:
    enqueue_background_job(FINISH, job_id='p')
    run_jobs()
    other = enqueue_background_job(FINISH, job_delay=60)
    child = enqueue_background_job(FINISH, job_after=['p', other.id], job_after_failure='cancel')
    enqueue_background_job(FAIL, job_id='p')
    assert get_job_status(child.id)['waits_for'] == [other.id]
    run_jobs()
    assert state(child.id) == 'deferred'


def test_a_job_that_waits_can_be_enqueued_again_though_a_parent_has_expired() -> None:
    first, second = enqueue_background_job(FINISH), enqueue_background_job(FINISH, job_delay=60)
    after = [first.id, second.id]
    enqueue_background_job(FINISH, job_id='x', job_after=after)
    run_jobs()
    delete_job(first.id)
    assert enqueue_background_job(FINISH, job_id='x', job_after=after).get_status() == 'deferred'
    with eager_jobs():
        parent = enqueue_background_job(FAIL)
        enqueue_background_job(FINISH, job_id='x', job_after=parent)
        enqueue_background_job(FINISH, job_id='x', job_after=[parent.id])


def test_nobody_waits_for_no_jobs() -> None:
    job = enqueue_background_job(SUMMARISE, job_after=enqueue_background_jobs(FINISH, []))
    run_jobs()
    assert get_job_status(job.id)['result'] == []


@pytest.mark.parametrize('before', ['by an old client', 'by RQ'])
def test_a_parent_that_ended_without_a_note_does_not_expire_as_if_it_had_finished(
    connection: Redis, before: str
) -> None:
    parent = enqueue_background_job(FAIL)
    child = enqueue_background_job(FINISH, job_after=parent)
    run_jobs()
    connection.delete('rq:pending-dependents')  # which older code did not write
    connection.hdel(parent.key, 'kept_until')
    connection.expire(parent.key, 500)
    if before == 'by RQ':
        connection.hset(parent.key, 'status', 'canceled')
    settle_deferred(connection, 'default', 0, 99)
    settle_all()
    assert state(child.id) == 'deferred'
    expire(connection, parent.id)
    assert state(child.id) == 'canceled'


def test_cancelling_another_job_lets_no_parent_expire(connection: Redis) -> None:
    parent = enqueue_background_job(FINISH)
    child = enqueue_background_job(FINISH, job_after=parent)
    parent.cancel()  # RQ's own, which registers it without an expiry
    connection.zadd('rq:canceled:default', {parent.id: 1})
    cancel_job(enqueue_background_job(FINISH).id)
    assert connection.ttl(parent.key) == -1
    assert connection.hget(parent.key, 'kept_until') is not None
    assert state(child.id) == 'deferred'


@pytest.mark.parametrize('run', [queued, eager_jobs], ids=['queued', 'eager'])
def test_whole_chains_are_settled(run: Callable[[], Any]) -> None:
    with run():
        job = first = enqueue_background_job(FAIL)
        for _ in range(50):
            job = enqueue_background_job(FINISH, job_after=job, job_after_failure='cancel')
        last = enqueue_background_job(FINISH, job_after=job, job_after_failure='run')
        if run is queued:
            run_jobs()
        assert (state(first.id), state(job.id), state(last.id)) == (
            'failed',
            'canceled',
            'finished',
        )


@pytest.mark.slow
def test_a_long_chain_can_be_cancelled_in_a_test() -> None:
    with recorded_jobs():
        job = first = enqueue_background_job(FINISH)
        for _ in range(600):
            job = enqueue_background_job(FINISH, job_after=job, job_after_failure='cancel')
        cancel_job(first.id)
        assert state(job.id) == 'canceled'


def test_a_cycle_is_refused_in_a_test() -> None:
    with recorded_jobs():
        enqueue_background_job(FINISH, job_id='first')
        enqueue_background_job(FINISH, job_id='second', job_after='first')
        cancel_job('first')
        with pytest.raises(InvalidJobError, match='would wait for itself'):
            enqueue_background_job(FINISH, job_id='first', job_after='second')


def test_many_orphans_are_queued_in_one_round(connection: Redis) -> None:
    parent = enqueue_background_job(FINISH)
    enqueue_background_jobs(FINISH, [{}] * 350, job_after=parent)
    parent.delete()
    maintenance = Maintenance(connection, [Queue('default', connection)], get_config(), print)
    maintenance.run_if_due()
    assert connection.zcard('rq:deferred:default') == 0


def test_workers_with_other_queues_do_not_keep_one_another_from_tidying(connection: Redis) -> None:
    parent = enqueue_background_job(FINISH, job_queue='low')
    enqueue_background_job(FINISH, job_after=parent, job_queue='low')
    parent.delete()
    for name in ('high', 'low'):
        queues = [Queue(name, connection)]
        Maintenance(connection, queues, get_config(), print).run_if_due()
    assert connection.zcard('rq:deferred:low') == 0


@pytest.mark.slow
def test_large_results_are_read_in_several_steps(connection: Redis) -> None:
    jobs = [enqueue_background_job('tests.support.after_tasks.return_much') for _ in range(5)]
    child = enqueue_background_job('tests.support.after_tasks.measure', job_after=jobs)
    run_jobs()
    assert get_job_status(child.id)['result'] == [9_000_000] * 5
    before = scripts_called(connection)
    assert len(get_job_statuses([job.id for job in jobs])) == 5
    assert scripts_called(connection) - before == 2


@pytest.fixture(autouse=True)
def modules(settings: pytest.MonkeyPatch) -> None:
    names = 'tests.support.tasks,tests.support.outcomes,tests.support.after_tasks'
    settings.setenv('JOB_TASK_MODULES', names)
    environment_config.cache_clear()
