"""What the script does with a tick, by the clock of a real Valkey."""

import time
from collections.abc import Callable
from zlib import decompress

import pytest
from redis import Redis

from qdjobs import cancel_job, get_job_status, list_jobs
from qdjobs.client.call import call_from_python
from qdjobs.client.enqueue import pack_calls
from qdjobs.client.payload import PlainSerializer
from qdjobs.schedule.entries import Overlap, Plan
from qdjobs.schedule.rules import Every
from qdjobs.schedule.state import job_id_of, read_states, send_ticks

HASH = 'rq:schedule:note'
HOUR = 3600


@pytest.fixture
def known(connection: Redis) -> None:
    """The rule is known for long."""
    connection.hset(HASH, 'rule:every 1h', 0)


def make_plan(overlap: Overlap = 'skip', **options: object) -> Plan:
    call = call_from_python('tests.support.tasks.add', (1,), {}, {'job_id': 'note', **options})
    return Plan('note', Every(HOUR), overlap, pack_calls([call]))


def now(connection: Redis) -> int:
    return int(connection.time()[0])


Send = Callable[..., str]


@pytest.fixture
def send(connection: Redis) -> Send:
    """Send the tick of some seconds ago; the next is after so many seconds more."""

    def send(ago: float, length: int = HOUR, plan: Plan | None = None) -> str:
        tick = now(connection) - int(ago)
        served = send_ticks(connection, [(plan or make_plan(), tick, tick + length)])
        return served.outcomes[0]

    return send


def test_the_tick_at_which_an_entry_is_seen_first_is_only_noted(send: Send) -> None:
    assert send(10) == 'done'
    assert list_jobs() == []


@pytest.mark.usefixtures('known')
def test_a_tick_is_enqueued_once_and_its_job_names_it(connection: Redis, send: Send) -> None:
    tick = now(connection) - 10
    plan = make_plan(job_queue='low', job_meta={'by': 'clock'})
    for expected in ('added', 'done', 'done'):
        assert send_ticks(connection, [(plan, tick, tick + HOUR)]).outcomes == [expected]
    status = get_job_status(job_id_of('note', tick))
    assert (status['queue'], status['status']) == ('low', 'queued')
    assert status['meta'] == {'by': 'clock'}
    assert status['created_at'] is not None
    assert abs(status['created_at'].timestamp() - time.time()) < 60
    assert len(list_jobs()) == 1


@pytest.mark.usefixtures('known')
def test_a_tick_that_is_not_the_latest_by_the_clock_of_redis_is_none(send: Send) -> None:
    assert send(-2) == 'elsewhen'  # a worker whose clock is ahead
    assert send(HOUR + 2) == 'elsewhen'  # one that stood still since it looked
    assert list_jobs() == []


@pytest.mark.usefixtures('known')
def test_a_tick_before_the_last_one_adds_nothing(send: Send) -> None:
    assert send(10) == 'added'
    assert send(20) == 'done'


@pytest.mark.usefixtures('known')
def test_a_tick_is_skipped_while_the_last_job_has_not_ended(connection: Redis, send: Send) -> None:
    tick = now(connection) - 20
    send(20)
    assert send(10) == 'skipped'
    assert send(10) == 'done'
    cancel_job(job_id_of('note', tick))
    assert send(5) == 'added'
    _, [state] = read_states(['note'])
    assert state.skipped == 1


@pytest.mark.usefixtures('known')
def test_with_overlap_queue_a_tick_is_enqueued_all_the_same(send: Send) -> None:
    assert send(20) == send(10, plan=make_plan('queue')) == 'added'


@pytest.mark.usefixtures('known')
def test_a_last_tick_far_ahead_does_not_block(connection: Redis, send: Send) -> None:
    connection.hset(HASH, 'tick', now(connection) + 10 * HOUR)  # its clock was wrong
    assert send(10) == 'added'


@pytest.mark.usefixtures('known')
def test_a_clock_that_is_set_back_by_seconds_repeats_no_tick(connection: Redis, send: Send) -> None:
    connection.hset(HASH, 'tick', now(connection) + 5)
    assert send(10) == 'done'


def test_a_rule_that_became_known_far_ahead_is_known_from_now_on(
    connection: Redis, send: Send
) -> None:
    connection.hset(HASH, 'rule:every 1h', now(connection) + 10 * HOUR)
    assert send(10) == 'done'
    since, served = (connection.hget(HASH, 'rule:every 1h') or b'').split()
    assert abs(float(since) - now(connection)) < 60
    assert abs(float(served) - now(connection)) < 60


def test_a_new_rule_does_not_run_for_what_was_due_before(connection: Redis, send: Send) -> None:
    connection.hset(HASH, mapping={'rule:0 5 * * * UTC': 0, 'tick': now(connection) - 20})
    assert send(10) == 'done'
    assert list_jobs() == []


OTHER = '0 5 * * * UTC'


def served(connection: Redis, own: float, other: tuple[float, float]) -> None:
    """Say how long ago the rule was last served, and from when until when another was after it."""
    moment = now(connection)
    began, ended = (moment - ago for ago in other)
    connection.hset(
        HASH,
        mapping={
            'rule:every 1h': f'0.0 {moment - own}',
            f'rule:{OTHER}': f'{began} {ended}',
            'rule': OTHER,
            'served_at': ended,
        },
    )


def test_a_rule_that_comes_back_does_not_run_for_what_was_due_before(
    connection: Redis, send: Send
) -> None:
    served(connection, 2 * HOUR, (2 * HOUR, 5))
    assert send(10) == 'done'
    assert send(10) == 'done'
    assert list_jobs() == []
    connection.hset(HASH, 'rule:every 1h', f'{now(connection) - 8} {now(connection)}')
    assert send(5) == 'added'  # the next tick


def test_a_rule_that_a_rolling_deploy_brings_back_misses_no_tick(
    connection: Redis, send: Send
) -> None:
    served(connection, 500, (500, 5))
    assert send(10) == 'added'


def test_a_rule_that_is_served_beside_another_misses_no_tick(connection: Redis, send: Send) -> None:
    served(connection, 10, (30 * HOUR, 0))
    assert send(5) == 'added'


def test_a_tick_that_no_worker_saw_runs_late(connection: Redis, send: Send) -> None:
    connection.hset(HASH, 'rule:every 1h', f'0.0 {now(connection) - 50 * HOUR}')
    connection.hset(HASH, mapping={'rule': 'every 1h', 'served_at': now(connection) - 50 * HOUR})
    assert send(10) == 'added'


def test_a_tick_that_no_worker_saw_runs_late_though_another_rule_was_there_for_a_minute(
    connection: Redis, send: Send
) -> None:
    served(connection, 50 * HOUR, (70, 10))
    assert send(5) == 'added'


def test_the_rules_of_an_entry_are_bounded(connection: Redis, send: Send) -> None:
    connection.hset(HASH, mapping={f'rule:{number}': 0 for number in range(100)})
    send(10)
    assert connection.hlen(HASH) < 10


@pytest.mark.usefixtures('known')
def test_a_job_of_a_tick_that_was_forgotten_is_not_enqueued_again(
    connection: Redis, send: Send
) -> None:
    tick = now(connection) - 10
    ticks = [(make_plan('queue'), tick, tick + HOUR)]
    send_ticks(connection, ticks)
    connection.hdel(HASH, 'tick', 'job')
    assert send_ticks(connection, ticks).outcomes == ['done']


@pytest.mark.usefixtures('known')
def test_what_is_broken_keeps_no_other_from_its_tick(connection: Redis) -> None:
    broken = Plan('broken', Every(HOUR), 'skip', make_plan().packed)
    connection.set('rq:schedule:broken', 'no hash')
    tick = now(connection) - 10
    ticks = [(plan, tick, tick + HOUR) for plan in (broken, make_plan())]
    first, second = send_ticks(connection, ticks).outcomes
    assert first.startswith('error WRONGTYPE')
    assert second == 'added'
    _, [state] = read_states(['broken'])
    assert (state.tick, state.job_id, state.skipped) == (None, None, 0)


@pytest.mark.usefixtures('known')
def test_a_task_that_follows_gets_the_id_of_the_job_of_the_tick(
    connection: Redis, send: Send
) -> None:
    plan = make_plan(job_on_success='tests.support.tasks.echo')
    tick = now(connection) - 10
    send_ticks(connection, [(plan, tick, tick + HOUR)])
    data = connection.hget(f'rq:job:{job_id_of("note", tick)}', 'on_success_data')
    assert isinstance(data, bytes)
    assert PlainSerializer.loads(decompress(data))[2] == (job_id_of('note', tick),)


@pytest.mark.usefixtures('known')
def test_what_nobody_serves_is_forgotten_in_the_end(connection: Redis, send: Send) -> None:
    send(10)
    assert 99 * 24 * HOUR < connection.ttl(HASH) <= 100 * 24 * HOUR
