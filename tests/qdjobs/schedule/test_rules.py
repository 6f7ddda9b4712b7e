"""When periodic jobs are due: by an interval, and by a cron line where the clocks change."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qdjobs.errors import InvalidJobError
from qdjobs.schedule.rules import Cron, Rule, make_rule

DAY = 86_400
BERLIN, NEW_YORK = 'Europe/Berlin', 'America/New_York'
# Where a clock is changed by half an hour, by two hours, and at a quarter to three.
UNUSUAL = ['Australia/Lord_Howe', 'Antarctica/Troll', 'Pacific/Chatham']
# Within two months of each the clocks of the zones change their clocks.
SPRING, AUTUMN = datetime(2026, 3, 5, tzinfo=UTC), datetime(2026, 10, 1, tzinfo=UTC)


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def ticks(rule: Rule, start: str, end: str) -> list[str]:
    """The ticks after one time up to another, in UTC."""
    found, now = [], at(start)
    while (now := rule.following(now)) <= at(end):
        found.append(f'{datetime.fromtimestamp(now, UTC):%d %H:%M}')
    return found


def test_an_interval_counts_from_the_epoch() -> None:
    hour = make_rule('1h', None, None)
    assert hour.latest(at('2026-11-25T14:59:59.9Z')) == at('2026-11-25T14:00Z')
    assert hour.following(at('2026-11-25T14:00Z')) == at('2026-11-25T15:00Z')
    assert hour.latest(at('2026-11-25T15:00Z')) == at('2026-11-25T15:00Z')


@pytest.mark.parametrize(
    ('every', 'shown'),
    [('1h', 'every 1h'), (90, 'every 90s'), ('2d', 'every 2d'), (timedelta(minutes=5), 'every 5m')],
)
def test_an_interval_is_shown_as_it_is_written(every: str, shown: str) -> None:
    assert str(make_rule(every, None, None)) == shown


@pytest.mark.parametrize(
    ('zone', 'before', 'after', 'due'),
    [
        (BERLIN, '2026-03-28T03:00Z', '2026-03-30T03:00Z', ['29 01:30', '30 00:30']),
        (NEW_YORK, '2026-03-07T08:00Z', '2026-03-09T08:00Z', ['08 07:30', '09 06:30']),
    ],
)
def test_a_time_that_does_not_exist_is_an_hour_later(
    zone: str, before: str, after: str, due: list[str]
) -> None:
    assert ticks(make_rule(None, '30 2 * * *', zone), before, after) == due


@pytest.mark.parametrize(
    ('line', 'zone', 'before', 'after', 'due'),
    [
        ('30 2', BERLIN, '2026-10-24T03:00Z', '2026-10-26T03:00Z', ['25 00:30', '26 01:30']),
        (
            '30 1',
            NEW_YORK,
            '2026-10-31T08:00Z',
            '2026-11-02T08:00Z',
            ['01 05:30', '02 06:30'],
        ),
    ],
)
def test_a_time_that_exists_twice_is_one_tick(
    line: str, zone: str, before: str, after: str, due: list[str]
) -> None:
    assert ticks(make_rule(None, f'{line} * * *', zone), before, after) == due


@pytest.mark.parametrize('day', ['2026-03-29', '2026-10-25'])
@pytest.mark.parametrize('hour', ['*', '*/1', '0-23', '0-11,12-23'])
def test_a_line_for_every_hour_has_a_tick_in_each_hour_that_passes(day: str, hour: str) -> None:
    rule = make_rule(None, f'30 {hour} * * *', BERLIN)
    start, end = datetime.fromisoformat(f'{day}T00:00Z'), datetime.fromisoformat(f'{day}T03:59Z')
    assert ticks(rule, start.isoformat(), end.isoformat()) == [
        f'{start.day} {hour:02}:30' for hour in range(4)
    ]


@pytest.mark.parametrize(
    ('line', 'due'),
    [
        ('0 0 * * 5#2', ['11', '08']),
        ('0 0 * * L5', ['25', '29']),
        ('0 0 ? * 5#2', ['11', '08']),
        ('0 0 15W * *', ['15', '15']),
        ('0 0 L * 0', ['06', '13', '20', '27', '31', '03', '10', '17', '24', '31']),
    ],
)
def test_special_days_are_those_that_the_line_says(line: str, due: list[str]) -> None:
    found = ticks(make_rule(None, line, None), '2026-12-01T00:00Z', '2027-02-01T00:00Z')
    assert [tick.removesuffix(' 00:00') for tick in found] == due


def test_a_day_of_the_month_and_a_weekday_are_a_union() -> None:
    odd = make_rule(None, '0 0 */2 * 1', None)
    assert ticks(odd, '2026-12-04T00:00Z', '2026-12-09T00:00Z') == [
        '05 00:00',
        '07 00:00',
        '09 00:00',
    ]
    rule = make_rule(None, '0 0 13 * 5', None)
    assert ticks(rule, '2026-12-01T00:00Z', '2026-12-14T00:00Z') == [
        '04 00:00',
        '11 00:00',
        '13 00:00',
    ]


def test_a_leap_day_is_every_fourth_year() -> None:
    rule = make_rule(None, '0 0 29 2 *', None)
    assert rule.latest(at('2026-11-25T00:00Z')) == at('2024-02-29T00:00Z')
    assert rule.following(at('2026-11-25T00:00Z')) == at('2028-02-29T00:00Z')
    assert rule.following(at('2096-02-29T00:00Z')) == at('2104-02-29T00:00Z')


@pytest.mark.parametrize(
    ('line', 'same'),
    [
        ('5-5 0-0 * * *', '5 0 * * *'),
        ('0 3-3/2 * * *', '0 3 * * *'),
        ('0-0,30-30/7 03-3 * * *', '0,30 3 * * *'),
        ('0 0 5-5,31-L 2-2,mar-3 *', '0 0 5,31 2,3 *'),
        ('0 0 * jan-JAN mon-mon', '0 0 * 1 1'),
        ('0 0 * * 1-mon,7-0', '0 0 * * 1,7'),
        ('0 0 * * mon-mon#2', '0 0 * * mon#2'),
        ('0 0 * * 0-7', '0 0 * * *'),
        ('0 0 * * sun-7', '0 0 * * *'),
    ],
)
def test_a_range_of_one_value_is_that_value(line: str, same: str) -> None:
    rule, expected = (make_rule(None, each, None) for each in (line, same))
    period = ('2026-12-04T23:00Z', '2027-02-05T00:00Z')
    assert rule.latest(at(period[0])) == expected.latest(at(period[0]))
    assert rule.following(at(period[0])) == expected.following(at(period[0]))
    assert ticks(rule, *period) == ticks(expected, *period)
    assert str(rule) == f'{line} UTC'


def all_ticks(rule: Cron, start: datetime, end: datetime) -> list[int]:
    """Each tick of a rule, from all the times that match, whether the clock shows them or not."""
    zone, found = ZoneInfo(rule.timezone), set[int]()
    every_hour = rule.line.split()[1] in EACH_HOUR
    walls = croniter(rule.line, start.replace(tzinfo=None))
    while (wall := walls.get_next(datetime)) < end.replace(tzinfo=None):
        first, second = (wall.replace(tzinfo=zone, fold=fold).timestamp() for fold in (0, 1))
        found |= {int(first), int(max(first, second)) if every_hour else int(first)}
    return sorted(found)


@cache
def transitions(zone: str) -> tuple[datetime, ...]:
    """When the clocks of a zone change."""
    return tuple(_transitions(ZoneInfo(zone)))


def _transitions(zone: ZoneInfo) -> Iterator[datetime]:
    for begin in (SPRING, AUTUMN):
        for hour in range(60 * 24):
            moment = begin + timedelta(hours=hour)
            after = moment + timedelta(hours=1)
            if moment.astimezone(zone).utcoffset() != after.astimezone(zone).utcoffset():
                yield moment


MINUTES = st.one_of(
    st.just('*/2'),
    st.integers(0, 59).map(str),
    st.sampled_from(['*/15', '10,50', '0-20/7', '15,40']),
)
EACH_HOUR = ('*', '*/1', '0-23', '0-11,12-23')
HOURS = st.one_of(
    st.sampled_from(EACH_HOUR), st.integers(0, 5).map(str), st.sampled_from(['1-3', '*/2', '2,3'])
)


@pytest.mark.slow
@settings(max_examples=10)
@given(
    minute=MINUTES,
    hour=HOURS,
    zone=st.sampled_from([BERLIN, NEW_YORK, 'America/Santiago', 'UTC', *UNUSUAL]),
    seconds=st.lists(st.integers(-6 * 3600, 6 * 3600), min_size=5, max_size=20),
)
@example(minute='*/2', hour='1-3', zone=BERLIN, seconds=[3600])
@example(minute='*/7', hour='*', zone='Australia/Lord_Howe', seconds=list(range(0, 7200, 600)))
@example(minute='15,40', hour='2', zone='Australia/Lord_Howe', seconds=list(range(0, 7200, 600)))
@example(minute='*/10', hour='1-3', zone='Antarctica/Troll', seconds=list(range(0, 14400, 600)))
@example(minute='*/10', hour='1-3', zone='Pacific/Chatham', seconds=list(range(0, 14400, 600)))
def test_around_a_change_of_the_clock_the_nearest_ticks_are_found(
    minute: str, hour: str, zone: str, seconds: list[int]
) -> None:
    rule = make_rule(None, f'{minute} {hour} * * *', zone)
    assert isinstance(rule, Cron)
    for change in (*transitions(zone), SPRING):
        days = timedelta(days=2)
        known = all_ticks(rule, change - days, change + days)
        for shift in seconds:
            now = change.timestamp() + shift
            assert rule.latest(now) == max(tick for tick in known if tick <= now)
            assert rule.following(now) == min(tick for tick in known if tick > now)


@pytest.mark.parametrize(
    ('every', 'cron', 'timezone', 'says'),
    [
        (None, None, None, "needs every='1h' or cron"),
        ('1h', '0 3 * * *', None, 'exclude each other'),
        (0.5, None, None, 'every must be whole seconds, at least one, not 0.5'),
        (0, None, None, 'at least one, not 0'),
        ('1.5s', None, None, "whole seconds, at least one, not '1.5s'"),
        ('often', None, None, "every must be seconds, or a string such as '30s'"),
        (True, None, None, 'from 1 second to a year, not True'),
        ('1h', None, BERLIN, 'timezone goes with cron'),
        (None, '0 0 30 2 *', None, "cron='0 0 30 2 *' never matches"),
        (None, '0 0 31 4,6,9,11 *', None, 'never matches'),
        (None, '0 3 * *', None, "five fields (minute, hour, day, month, weekday), such as '0 3"),
        (None, '0 3 * * * *', None, 'five fields'),
        (None, '61 * * * *', None, 'out of range'),
        (None, 'R * * * *', None, 'five fields'),
        (None, 'h(0-9)/2 * * * *', None, 'five fields'),
        (None, '@daily', None, 'five fields'),
        (None, '0 0 1 * 5#2', None, 'make two entries of it'),
        (None, '0 0 8-14 * fri#2', None, 'make two entries of it'),
        (None, '0 0 29 2 5#5', None, 'make two entries of it'),
        (None, '0 0 1 * L5', None, 'make two entries of it'),
        (None, '0 0 L * 5#1', None, 'make two entries of it'),
        (None, '0 0 15W * 1', None, 'make two entries of it'),
        (None, '5-5/0 * * * *', None, 'five fields'),
        (None, '0 1-1-1 * * *', None, 'five fields'),
        (None, 3, None, 'five fields'),
        (None, '0 3 * * *', 'Europe/Berlyn', "not 'Europe/Berlyn'. Did you mean 'Europe/Berlin'?"),
        (None, '0 3 * * *', '../etc', 'IANA name'),
        (None, '0 3 * * *', 'Europe', 'IANA name'),
        (None, '0 3 * * *', 3, 'IANA name'),
        (None, '0 3 * * *', 'localtime', "IANA name, not 'localtime'"),
        (None, '0 3 * * *', 'posixrules', "IANA name, not 'posixrules'"),
        (None, '0 3 * * *', 'Factory', "IANA name, not 'Factory'. Its form"),
        (None, '0 3 * * *', 'right/Europe/Berlin', "Did you mean 'Europe/Berlin'?"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(
    every: object, cron: object, timezone: object, says: str
) -> None:
    with pytest.raises(InvalidJobError, match=re.escape(says)):
        make_rule(every, cron, timezone)  # type: ignore[arg-type]


@given(st.text(alphabet='0123456789*/-,#?LWRHmonjan ()@\x00ä', max_size=20))
def test_any_line_is_a_rule_or_refused(line: str) -> None:
    try:
        rule = make_rule(None, line, None)
    except InvalidJobError:
        return
    now = SPRING.timestamp()
    assert rule.latest(now) <= now < rule.following(now)
    assert rule.following(rule.latest(now)) == rule.following(now)
