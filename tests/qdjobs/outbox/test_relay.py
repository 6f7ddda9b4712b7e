"""What a relay does with the rows: each becomes one job, in its order, by many relays at once."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from redis import Redis
from sqlalchemy import insert, text, update
from sqlalchemy.orm import Session, sessionmaker

from qdjobs import (
    QueueUnavailableError,
    cancel_job,
    delete_job,
    enqueue_background_job,
    get_job_status,
)
from qdjobs.client.redis import get_connection
from qdjobs.outbox import JobOutbox, relay
from qdjobs.outbox.relay import relay_queue
from qdjobs.outbox.sending import send_row
from tests.support.applications import use_redis
from tests.support.outages import full
from tests.support.processes import eventually

ADD = 'tests.support.tasks.add'

Sessions = sessionmaker[Session]
Queued = Callable[..., list[str]]
Rows = Callable[[], int]


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, 'MAX_ROWS', 3)


def add_rows(
    outbox: JobOutbox, sessions: Sessions, count: int, queue: str = 'default'
) -> list[str]:
    with sessions.begin() as session:
        return [outbox.enqueue(session, ADD, a, job_queue=queue).id for a in range(count)]


@pytest.mark.usefixtures('small_batches')
def test_rows_become_jobs_in_their_order(
    unattended: JobOutbox, sessions: Sessions, queued: Queued, rows: Rows
) -> None:
    high, low = (add_rows(unattended, sessions, 10, queue) for queue in ('high', 'low'))
    high += add_rows(unattended, sessions, 10, 'high')
    assert unattended.relay() == 30
    assert (queued('high'), queued('low'), rows()) == (high, low, 0)


@pytest.mark.usefixtures('small_batches')
def test_many_relays_at_once_keep_the_order(
    unattended: JobOutbox, sessions: Sessions, queued: Queued, rows: Rows
) -> None:
    ids = add_rows(unattended, sessions, 60)
    threads = [threading.Thread(target=unattended.relay) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (queued(), rows()) == (ids, 0)


def test_rows_with_much_data_go_in_several_steps(
    unattended: JobOutbox, sessions: Sessions, queued: Queued, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, 'MAX_BYTES', 1)
    ids = add_rows(unattended, sessions, 3)
    assert relay_queue(unattended.engine, unattended.table, 'default') == (1, 0)
    assert unattended.relay() == 2
    assert queued() == ids


def test_a_relay_with_a_time_limit_ends_before_all_rows_are_jobs(
    unattended: JobOutbox, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, 'MAX_ROWS', 1)
    add_rows(unattended, sessions, 3)
    assert unattended.relay(seconds=0) == 1
    assert unattended.relay(seconds=60) == 2


# PostgreSQL: what others have locked


only_postgresql = pytest.mark.parametrize('database_url', ['postgresql'], indirect=True)


@only_postgresql
def test_a_queue_whose_first_row_is_locked_is_left_to_the_other_relay(
    unattended: JobOutbox, sessions: Sessions, queued: Queued
) -> None:
    ids = add_rows(unattended, sessions, 5)
    high = add_rows(unattended, sessions, 1, 'high')
    with unattended.engine.begin() as other:
        relay._lock_next(other, unattended.table, 'default')
        assert unattended.relay() == 1
        assert (queued('high'), queued()) == (high, [])
    assert unattended.relay() == 5
    assert queued() == ids


@only_postgresql
@pytest.mark.usefixtures('small_batches')
def test_who_leaves_a_queue_locks_nothing_that_the_other_relay_looks_for_next(
    unattended: JobOutbox, sessions: Sessions
) -> None:
    add_rows(unattended, sessions, 5)
    table, engine = unattended.table, unattended.engine
    with engine.begin() as first, engine.begin() as second, engine.begin() as third:
        assert len(relay._lock_next(first, table, 'default')) == 3
        assert len(relay._lock_next(second, table, 'default')) == 0
        free = third.execute(table.select().with_for_update(skip_locked=True)).all()
    assert len(free) == 2


@only_postgresql
def test_a_row_that_is_committed_late_goes_before_but_those_behind_locked_ones_wait(
    unattended: JobOutbox, sessions: Sessions, queued: Queued
) -> None:
    with sessions() as late:
        first = unattended.enqueue(late, ADD, 0).id
        middle = add_rows(unattended, sessions, 3)
        with unattended.engine.begin() as other:
            assert len(relay._lock_next(other, unattended.table, 'default')) == 3
            last = add_rows(unattended, sessions, 2)
            late.commit()
            assert unattended.relay() == 1
            assert queued() == [first]
    assert unattended.relay() == 5
    assert queued() == [first, *middle, *last]


@only_postgresql
def test_a_relay_does_not_wait_for_a_transaction_that_is_not_committed(
    unattended: JobOutbox, sessions: Sessions, queued: Queued
) -> None:
    with sessions() as open_one:
        unattended.enqueue(open_one, ADD, 0)
        [job_id] = add_rows(unattended, sessions, 1)
        assert unattended.relay() == 1
    assert queued() == [job_id]


# Repeats


@pytest.mark.parametrize('end', [cancel_job, delete_job], ids=['ended', 'gone'])
def test_a_row_that_is_sent_again_makes_no_second_job(
    unattended: JobOutbox,
    sessions: Sessions,
    queued: Queued,
    rows: Rows,
    end: Callable[[str], object],
) -> None:
    [job_id] = add_rows(unattended, sessions, 1)
    with unattended.engine.connect() as connection:
        row = connection.execute(unattended.table.select()).one()
    send_row(row)  # by a relay that dies then
    assert queued() == [job_id]
    cancel_job(job_id)
    end(job_id)
    assert unattended.relay() == 1
    assert (queued(), rows()) == ([], 0)


@only_postgresql
def test_a_row_that_is_sent_again_in_another_time_zone_makes_no_second_job(
    unattended: JobOutbox, sessions: Sessions, queued: Queued
) -> None:
    [job_id] = add_rows(unattended, sessions, 1)
    with unattended.engine.connect() as connection:
        connection.execute(text("SET LOCAL TIME ZONE 'Asia/Tokyo'"))
        send_row(connection.execute(unattended.table.select()).one())
    cancel_job(job_id)
    unattended.relay()
    assert queued() == []


def test_a_row_that_is_sent_again_needs_its_parent_no_more(
    unattended: JobOutbox, sessions: Sessions, connection: Redis, rows: Rows
) -> None:
    enqueue_background_job(ADD, 1, job_id='parent')
    with sessions.begin() as session:
        child = unattended.enqueue(session, ADD, 1, job_after='parent')
    with unattended.engine.connect() as reader:
        send_row(reader.execute(unattended.table.select()).one())
    connection.delete('rq:job:parent')  # it has expired
    assert (unattended.relay(), rows()) == (1, 0)
    assert get_job_status(child.id)['status'] == 'deferred'


def test_a_later_row_of_the_same_id_is_another_job(
    unattended: JobOutbox, sessions: Sessions, queued: Queued
) -> None:
    for _ in range(2):
        with sessions.begin() as session:
            unattended.enqueue(session, ADD, 1, job_id='nightly')
        assert unattended.relay() == 1
        assert queued() == ['nightly']
        cancel_job('nightly')


def test_a_row_whose_job_waits_already_makes_no_second_one(
    unattended: JobOutbox, sessions: Sessions, queued: Queued
) -> None:
    enqueue_background_job(ADD, 1, job_id='nightly')
    with sessions.begin() as session:
        unattended.enqueue(session, ADD, 1, job_id='nightly')
    assert unattended.relay() == 1
    assert queued() == ['nightly']


def test_the_job_of_a_row_is_what_it_would_have_been(
    unattended: JobOutbox, sessions: Sessions, connection: Redis
) -> None:
    options: dict[str, Any] = {'job_timeout': '2m', 'job_meta': {'a': 1}, 'job_result_ttl': 5}
    with sessions.begin() as session:
        unattended.enqueue(session, ADD, 1, b=2, job_id='one', **options)
    unattended.relay()
    enqueue_background_job(ADD, 1, b=2, job_id='two', **options)
    one, two = (connection.hgetall(f'rq:job:{job_id}') for job_id in ('one', 'two'))
    differing = {name for name, value in one.items() if two[name] != value}
    assert differing == {b'created_at', b'enqueued_at'}
    assert set(one) == set(two)


def test_a_delayed_row_is_a_delayed_job(unattended: JobOutbox, sessions: Sessions) -> None:
    with sessions.begin() as session:
        job = unattended.enqueue(session, ADD, 1, job_delay='1h')
    assert get_connection().exists(f'rq:job:{job.id}') == 0
    unattended.relay()
    assert get_job_status(job.id)['status'] == 'scheduled'


# Redis is away, or refuses


def test_rows_wait_while_redis_is_away(
    outbox: JobOutbox,
    sessions: Sessions,
    settings: pytest.MonkeyPatch,
    redis_url: str,
    queued: Queued,
    rows: Rows,
) -> None:
    use_redis(settings, 'redis://127.0.0.1:1/0')
    ids = add_rows(outbox, sessions, 3)
    with pytest.raises(QueueUnavailableError):
        eventually(outbox.relay)  # its own thread may be at work on the queue
    assert rows() == 3
    use_redis(settings, redis_url)
    outbox.relay()
    eventually(lambda: rows() == 0)
    assert queued() == ids


def test_a_full_redis_refuses_no_row_for_ever(
    unattended: JobOutbox, sessions: Sessions, connection: Redis, queued: Queued
) -> None:
    ids = add_rows(unattended, sessions, 3)
    with full(connection), pytest.raises(QueueUnavailableError):
        unattended.relay()
    assert [queue.refused for queue in unattended.read_waiting().queues] == [0]
    assert unattended.relay() == 3
    assert queued() == ids


def test_a_queue_that_cannot_be_written_holds_up_no_other(
    unattended: JobOutbox, sessions: Sessions, connection: Redis, queued: Queued, rows: Rows
) -> None:
    connection.set('rq:queue:default', 'mine')
    add_rows(unattended, sessions, 2)
    ids = add_rows(unattended, sessions, 2, 'low')
    with pytest.raises(QueueUnavailableError, match='redis-cli DEL rq:queue:default'):
        unattended.relay()
    assert (queued('low'), rows()) == (ids, 2)


def test_a_row_of_which_no_job_can_be_made_holds_up_no_other(
    unattended: JobOutbox, sessions: Sessions, queued: Queued, rows: Rows
) -> None:
    with sessions.begin() as session:
        unattended.enqueue(session, ADD, 1, job_after='nobody')
    [damaged, strange, sound] = add_rows(unattended, sessions, 3)
    column = unattended.table.c.job_id
    with unattended.engine.begin() as connection:
        change = update(unattended.table)
        connection.execute(change.where(column == damaged).values(packed=b'\xff'))
        packed = msgspec.msgpack.encode((b'\xc1', ()))
        connection.execute(change.where(column == strange).values(packed=packed))
    unattended.relay()
    assert queued() == [sound]
    waiting = unattended.read_waiting()
    assert [(queue.waiting, queue.refused) for queue in waiting.queues] == [(0, 3)]
    assert waiting.last_error
    assert (unattended.relay(), rows()) == (0, 3)
    assert (unattended.relay(refused=True), rows()) == (0, 3)  # refused once more


def test_a_refused_row_is_tried_again_on_request(
    unattended: JobOutbox, sessions: Sessions, queued: Queued, rows: Rows
) -> None:
    with sessions.begin() as session:
        child = unattended.enqueue(session, ADD, 1, job_after='parent')
    unattended.relay()
    error = unattended.read_waiting().last_error
    assert error is not None
    assert "there is no job 'parent'" in error
    enqueue_background_job(ADD, 1, job_id='parent')
    assert unattended.relay(refused=True) == 1
    assert rows() == 0
    assert get_job_status(child.id)['status'] == 'deferred'
    assert queued() == ['parent']


def test_a_refused_row_is_replaced_by_another_call_of_its_id(
    unattended: JobOutbox, sessions: Sessions, connection: Redis, queued: Queued, rows: Rows
) -> None:
    with sessions.begin() as session:
        unattended.enqueue(session, ADD, 1, job_id='report-7', job_after='gone')
    unattended.relay()
    with sessions.begin() as session:
        parent = unattended.enqueue(session, ADD, 2)
        unattended.enqueue(session, ADD, 3, job_id='report-7', job_after=parent, job_queue='low')
    with sessions.begin() as session:  # one that waits is not replaced
        unattended.enqueue(session, ADD, 4, job_id='report-7', job_queue='high')
    assert unattended.relay() == 2
    assert (queued(), rows()) == ([parent.id], 0)
    assert connection.hget('rq:job:report-7', 'origin') == b'low'


def test_a_refused_row_stays_if_what_replaces_it_is_rolled_back(
    unattended: JobOutbox, sessions: Sessions, rows: Rows
) -> None:
    with sessions.begin() as session:
        unattended.enqueue(session, ADD, 1, job_id='report-7', job_after='gone')
    unattended.relay()
    with sessions() as session:
        unattended.enqueue(session, ADD, 2, job_id='report-7')
        session.rollback()
    assert (unattended.relay(), rows()) == (0, 1)


@only_postgresql
def test_a_row_that_a_second_transaction_enqueues_too_waits_for_that(
    unattended: JobOutbox, sessions: Sessions, queued: Queued
) -> None:
    with sessions.begin() as session:
        unattended.enqueue(session, ADD, 1, job_id='reindex')
    with sessions() as session:
        unattended.enqueue(session, ADD, 1, job_id='reindex')
        assert (unattended.relay(), queued()) == (0, [])
        session.commit()
    assert (unattended.relay(), queued()) == (1, ['reindex'])


def test_a_row_waits_for_that_of_its_parent_in_a_later_queue(
    unattended: JobOutbox, sessions: Sessions, queued: Queued, rows: Rows
) -> None:
    with sessions.begin() as session:
        parent = unattended.enqueue(session, ADD, 1, job_queue='low')
        child = unattended.enqueue(session, ADD, 1, job_queue='default', job_after=parent)
    assert unattended.relay() == 2
    assert get_job_status(child.id)['status'] == 'deferred'
    assert (queued('low'), rows()) == ([parent.id], 0)


def test_a_row_is_not_refused_whose_parent_another_relay_is_just_sending(
    unattended: JobOutbox, sessions: Sessions, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sessions.begin() as session:
        parent = unattended.enqueue(session, ADD, 1, job_queue='low')
        child = unattended.enqueue(session, ADD, 1, job_queue='default', job_after=parent)
    is_ahead = relay._is_ahead

    def look_late(*arguments: Any) -> bool:
        monkeypatch.setattr(relay, '_is_ahead', is_ahead)
        relay_queue(unattended.engine, unattended.table, 'low')
        return is_ahead(*arguments)

    monkeypatch.setattr(relay, '_is_ahead', look_late)
    unattended.relay()
    assert (get_job_status(child.id)['status'], rows()) == ('deferred', 0)


def test_a_late_relay_deletes_no_row_that_it_has_not_sent(
    unattended: JobOutbox, sessions: Sessions, rows: Rows
) -> None:
    with sessions.begin() as session:
        session.execute(insert(unattended.table).values(_row('one')))
    with unattended.engine.connect() as connection:
        [before] = connection.scalars(
            unattended.table.select().with_only_columns(unattended.table.c.seq)
        )
    with sessions.begin() as session:
        session.execute(unattended.table.delete())
    with sessions.begin() as session:
        session.execute(insert(unattended.table).values(_row('two')))
        session.execute(unattended.table.delete().where(unattended.table.c.seq == before))
    assert rows() == 1  # the number of a deleted row is not used again


def _row(job_id: str) -> dict[str, object]:
    return {
        'job_id': job_id, 'queue': 'default', 'task': ADD, 'packed': b'',
        'created_at': datetime.now(UTC),
    }  # fmt: skip
