"""Options of a job: what each takes, and what each says about what it does not take."""

from dataclasses import FrozenInstanceError
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qdjobs.client.options import JobOptions, is_job_id, parse_options, retry_delays
from qdjobs.config import QUEUES, environment_config, get_config
from qdjobs.errors import InvalidJobError

NEVER_ZERO = ('job_timeout', 'job_result_ttl')
DURATIONS = (*NEVER_ZERO, 'job_retry_delay', 'job_delay')
OPTIONS = (*DURATIONS, 'job_at', 'job_id', 'job_max_retries', 'job_queue')
HUGE = 10**10000  # more digits than Python likes to write
DAY = 86_400
NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001


def parse(**given: Any) -> JobOptions:
    return parse_options(given, get_config())


def test_the_defaults_are_those_of_the_contract() -> None:
    assert parse() == JobOptions(
        queue='default',
        timeout=300,
        max_retries=0,
        retry_delay=10,
        start_at=None,
        after=(),
        after_failure='wait',
        on_success=None,
        on_failure=None,
        job_id=None,
        result_ttl=DAY,
        failure_ttl=7 * DAY,
        meta={},
    )


def test_options_cannot_be_changed_afterwards() -> None:
    with pytest.raises(FrozenInstanceError):
        parse().queue = 'high'  # type: ignore[misc]


@pytest.mark.parametrize('name', ['job_no_such', 'job_', 'job_Queue', 'job_priority'])
def test_an_unknown_option_lists_the_known_ones(name: str) -> None:
    with pytest.raises(InvalidJobError) as refusal:
        parse(**{name: 1})
    assert str(refusal.value).startswith(f'{name} is no option')
    assert all(option in str(refusal.value) for option in OPTIONS)


@pytest.mark.parametrize(
    ('name', 'hint'),
    [
        ('job_dealy', ': did you mean job_delay? There are job_after, '),
        ('job_Queue', ': did you mean job_queue? There are '),
        ('job_retries', ': write job_max_retries. There are '),
        ('job_max_attempts', ': write job_max_retries, which is one less'),
        ('job_eta', ': write job_at. '),
        ('job_priority', ": write job_queue, such as job_queue='high'. "),
        ('job_depends_on', ': write job_after. '),
        ('delay', ': write job_delay. '),
        ('retries', ': write job_max_retries. '),
        ('job_colour', '; there are job_after, '),
        ('job_' + 'x' * 10_000, '; there are job_after, '),
    ],
)
def test_an_unknown_option_names_the_one_that_is_meant(name: str, hint: str) -> None:
    with pytest.raises(InvalidJobError) as refusal:
        parse(**{name: 1})
    assert str(refusal.value).startswith(f'{name} is no option of a job{hint}')


# Durations


@pytest.mark.parametrize(
    ('given', 'seconds'),
    [
        (1, 1),
        (90, 90),
        (0.2, 1),
        (1.5, 2),
        ('30', 30),
        ('30s', 30),
        ('5m', 300),
        ('1.5h', 5400),
        ('2d', 2 * DAY),
        ('366d', 366 * DAY),
        (366 * DAY, 366 * DAY),
        (timedelta(minutes=2), 120),
    ],
)
@pytest.mark.parametrize('option', ['job_timeout', 'job_result_ttl'])
def test_a_duration_is_whole_seconds_rounded_up(option: str, given: Any, seconds: int) -> None:
    assert getattr(parse(**{option: given}), option.removeprefix('job_')) == seconds


BAD_DURATIONS = {
    'true': True,
    'false': False,
    'nan': float('nan'),
    'inf': float('inf'),
    '-inf': float('-inf'),
    'negative': -1,
    'negative fraction': -0.001,
    'negative zero string': '-0',
    'over a year': 367 * DAY,
    'over a year in days': '367d',
    'huge float': 1e308,
    'int beyond float': 10**400,
    'int beyond printing': HUGE,
    'negative int beyond float': -(10**400),
    'negative string': '-5m',
    'empty': '',
    'space': '5 m',
    'newline': '5m\n',
    'capital': '5M',
    'unknown unit': '5w',
    'two units': '1h30m',
    'exponent': '1e3',
    'nan string': 'nan',
    'other digits': '٥s',
    'no digits': 'm',
    'long string': '9' * 10_000,
    'bytes': b'5m',
    'decimal': Decimal(5),
    'decimal nan': Decimal('NaN'),
    'list': [5],
    'object': object(),
    'negative timedelta': timedelta(days=-1),
    'longest timedelta': timedelta.max,
}


@pytest.mark.parametrize('bad', BAD_DURATIONS)
@pytest.mark.parametrize('option', DURATIONS)
def test_a_bad_duration_names_the_option_and_what_it_takes(option: str, bad: str) -> None:
    least = '1 second' if option in NEVER_ZERO else '0'
    with pytest.raises(InvalidJobError, match=rf"^{option} must be .*'5m'.*from {least} to a year"):
        parse(**{option: BAD_DURATIONS[bad]})


@pytest.mark.parametrize('zero', [0, 0.0, '0', '0s', timedelta(0)])
@pytest.mark.parametrize('option', NEVER_ZERO)
def test_no_time_at_all_is_too_little(option: str, zero: Any) -> None:
    with pytest.raises(InvalidJobError, match=f'^{option} must be at least one second'):
        parse(**{option: zero})


@pytest.mark.parametrize('option', ['job_timeout', 'job_result_ttl', 'job_retry_delay'])
def test_none_is_no_duration(option: str) -> None:
    with pytest.raises(InvalidJobError, match=f'^{option} must be'):
        parse(**{option: None})


@given(st.integers() | st.floats() | st.text() | st.timedeltas() | st.decimals() | st.binary())
def test_any_duration_is_taken_or_refused(value: Any) -> None:
    for option in DURATIONS:
        try:
            parse(**{option: value})
        except InvalidJobError as error:
            assert str(error).startswith(option)  # noqa: PT017


# How long the outcome is kept


def test_the_settings_say_how_long_the_outcome_is_kept(settings: pytest.MonkeyPatch) -> None:
    settings.setenv('JOB_RESULT_TTL', '60')
    settings.setenv('JOB_FAILURE_TTL', '600')
    environment_config.cache_clear()
    assert (parse().result_ttl, parse().failure_ttl) == (60, 600)


def test_a_failure_is_kept_at_least_as_long_as_a_result() -> None:
    assert parse(job_result_ttl='30d').failure_ttl == 30 * DAY
    assert parse(job_result_ttl=1).failure_ttl == 7 * DAY


# Queue and id


@pytest.mark.parametrize('queue', QUEUES)
def test_each_queue_can_be_chosen(queue: str) -> None:
    assert parse(job_queue=queue).queue == queue


@pytest.mark.parametrize('queue', ['HIGH', 'high ', '', 'other', None, 1, True, [], {}, b'high'])
def test_another_queue_is_refused_with_the_three(queue: Any) -> None:
    with pytest.raises(InvalidJobError, match=r'^job_queue must be one of high, default, low'):
        parse(job_queue=queue)


@pytest.mark.parametrize('job_id', ['a', 'A-b_9', '-', 'x' * 200])
def test_an_id_of_letters_digits_dashes_and_underscores_is_taken(job_id: str) -> None:
    assert parse(job_id=job_id).job_id == job_id
    assert is_job_id(job_id)


@pytest.mark.parametrize(
    'job_id', ['', 'a b', 'a:b', 'a/b', 'a.b', 'é', '٣', 'a\n', '\0', 1, True, b'a', ('a',)]
)
def test_any_other_id_is_refused(job_id: Any) -> None:
    assert not is_job_id(job_id)
    with pytest.raises(InvalidJobError, match=r'^job_id must be letters, digits'):
        parse(job_id=job_id)


def test_an_id_that_is_too_long_is_refused_in_a_short_message() -> None:
    with pytest.raises(InvalidJobError, match='at most 200') as refusal:
        parse(job_id='x' * 100_000)
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize('option', ['job_id', 'job_max_retries', 'job_queue', 'job_at'])
def test_a_number_of_ten_thousand_digits_is_refused_like_any_other(option: str) -> None:
    with pytest.raises(InvalidJobError, match=f'^{option} must be'):
        parse(**{option: HUGE})


# Start


def test_a_delay_starts_the_job_later() -> None:
    before = datetime.now(UTC)
    start_at = parse(job_delay='1h').start_at
    assert start_at is not None
    assert before + timedelta(hours=1) <= start_at <= datetime.now(UTC) + timedelta(hours=1)


@pytest.mark.parametrize('given', [{'job_delay': 0}, {'job_delay': None}, {'job_at': None}])
def test_no_delay_is_now(given: dict[str, Any]) -> None:
    assert parse(**given).start_at is None


@pytest.mark.parametrize('zone', [UTC, timezone(timedelta(hours=5)), timezone(timedelta(hours=-9))])
def test_an_aware_moment_starts_the_job_then(zone: timezone) -> None:
    moment = (datetime.now(UTC) + timedelta(days=3)).astimezone(zone)
    assert parse(job_at=moment).start_at == moment


@pytest.mark.parametrize('hours', [-12, 0, 12])
def test_a_moment_that_has_passed_is_now(hours: int) -> None:
    zone = timezone(timedelta(hours=hours))
    assert parse(job_at=datetime(2000, 1, 1, tzinfo=zone)).start_at is None
    assert parse(job_at=datetime.min.replace(tzinfo=zone)).start_at is None


@pytest.mark.parametrize(
    'moment',
    [NAIVE, date(2030, 1, 1), '2030-01-01T00:00:00Z', 1893456000, True, 1.5],
)
def test_only_an_aware_datetime_is_a_moment(moment: Any) -> None:
    with pytest.raises(InvalidJobError, match=r'^job_at must be an aware datetime'):
        parse(job_at=moment)


@pytest.mark.parametrize('hours', [-12, 0, 12])
def test_a_moment_beyond_a_year_is_refused_like_such_a_delay(hours: int) -> None:
    with pytest.raises(InvalidJobError, match=r'^job_at'):
        parse(job_at=datetime.max.replace(tzinfo=timezone(timedelta(hours=hours))))


def test_delay_and_moment_exclude_each_other() -> None:
    with pytest.raises(InvalidJobError, match='job_delay and job_at exclude each other'):
        parse(job_delay=0, job_at=datetime.now(UTC))


# Retries


@pytest.mark.parametrize('retries', [True, False, -1, 101, 1.0, '1', None, float('nan'), [1]])
def test_retries_are_a_whole_number_to_a_hundred(retries: Any) -> None:
    with pytest.raises(InvalidJobError, match=r'^job_max_retries must be a whole number'):
        parse(job_max_retries=retries)


@pytest.mark.parametrize('retries', [0, 1, 7, 100])
def test_there_is_a_delay_for_each_retry(retries: int) -> None:
    assert len(retry_delays(parse(job_max_retries=retries))) == retries


def test_each_delay_is_twice_the_one_before_less_the_jitter() -> None:
    for _ in range(50):
        delays = retry_delays(parse(job_max_retries=8, job_retry_delay=10))
        for attempt, delay in enumerate(delays):
            assert 0.75 * 10 * 2**attempt <= delay <= 10 * 2**attempt


def test_the_first_delay_is_ten_seconds_unless_told() -> None:
    (delay,) = retry_delays(parse(job_max_retries=1))
    assert 7.5 <= delay <= 10


@pytest.mark.parametrize('first', [10, '1h', '366d', 0.001])
def test_no_delay_is_longer_than_an_hour(first: Any) -> None:
    delays = retry_delays(parse(job_max_retries=100, job_retry_delay=first))
    assert max(delays) <= 3600
    assert all(delay >= 2700 for delay in delays[30:])


def test_the_jitter_spreads_what_failed_together() -> None:
    delays = [retry_delays(parse(job_max_retries=1, job_retry_delay=100))[0] for _ in range(200)]
    assert len(set(delays)) > 100
    assert max(delays) - min(delays) > 10


def test_no_delay_at_all_retries_at_once() -> None:
    assert retry_delays(parse(job_max_retries=3, job_retry_delay=0)) == [0, 0, 0]
