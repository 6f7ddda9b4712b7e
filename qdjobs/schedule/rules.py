"""Compute when a periodic job is due: ticks, the same in every process for a rule and a time.

A tick is in whole seconds since the epoch.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, available_timezones

import msgspec

from qdjobs.client.options import Duration, parse_duration
from qdjobs.errors import InvalidJobError, short_repr

if TYPE_CHECKING:
    from croniter import croniter

_DAY = 86_400
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # of a wall clock, which knows no zone
_SECOND = timedelta(seconds=1)
_NO_PLACES = {'localtime', 'posixrules', 'Factory'}  # another time on each machine, or none
_OTHER_FORMS = ('posix/', 'right/')  # of the same zones; `right` counts leap seconds
_CHANGE = 3 * 3600  # seconds; no clock is changed by more

# croniter's own: `R` is another time in each process, `H` needs an id.
_HASHED = re.compile(r'[hr](\(.*|/.*)?', re.IGNORECASE)

_RANGE = re.compile(r'(?<![^,])([^-/,#]+)-([^-/,#]+)(?:/0*[1-9]\d*)?(?![^,#])', re.ASCII)
_HOUR, _DAY_OF_MONTH, _WEEKDAY = 1, 2, 4  # the places of these fields


class Every(msgspec.Struct, frozen=True, tag=True):
    """A tick every so many seconds, counted from the epoch: of an hour, each full hour in UTC."""

    seconds: int

    def latest(self, now: float) -> int:
        """Return the last tick that is not after `now`."""
        return int(now // self.seconds) * self.seconds

    def following(self, now: float) -> int:
        """Return the first tick after `now`."""
        return self.latest(now) + self.seconds

    @property
    def zone(self) -> tzinfo:
        """The time zone in which people read the ticks."""
        return UTC

    def __str__(self) -> str:
        for unit, length in (('d', _DAY), ('h', 3600), ('m', 60)):
            if self.seconds % length == 0:
                return f'every {self.seconds // length}{unit}'
        return f'every {self.seconds}s'


class Cron(msgspec.Struct, frozen=True, tag=True):
    """A tick whenever the wall clock of a time zone shows a time that a cron line matches.

    A time that a change of the clock leaves out is later by what it leaves out: 2:30 becomes 3:30.
    A time that the clock shows twice is a tick once, the first time; but twice if the line is for
    every hour.
    """

    line: str
    timezone: str

    def latest(self, now: float) -> int:
        """Return the last tick that is not after `now`."""
        return self._nearest(now, is_ahead=False)

    def following(self, now: float) -> int:
        """Return the first tick after `now`."""
        return self._nearest(now, is_ahead=True)

    @property
    def zone(self) -> tzinfo:
        """The time zone of the wall clock."""
        return ZoneInfo(self.timezone)

    def __str__(self) -> str:
        return f'{self.line} {self.timezone}'

    def _nearest(self, now: float, is_ahead: bool) -> int:
        """Return the first tick after `now`, or the last that is not.

        croniter gets times without a zone, since what it does at a change differs between its two
        directions. Near a change the order of the times is not that of the ticks: all of them are
        compared that can be nearer.
        """
        offsets = self._offsets(now)
        wall = _EPOCH + timedelta(seconds=int(now))
        if is_ahead:
            times = self._times(wall + min(offsets))
            step, nearest = times.get_next, min
        else:
            times = self._times(wall + max(offsets) + _SECOND)
            step, nearest = times.get_prev, max
        is_hourly = times.expanded[_HOUR][0] == '*'
        found: list[int] = []
        while True:
            moments = self._moments(step(datetime), is_hourly)
            found += [moment for moment in moments if (moment > now) == is_ahead]
            if found:
                tick = nearest(found)
                offsets = self._offsets(tick)
                change = (max(offsets) - min(offsets)).total_seconds()
                beyond = nearest(moments) - tick if is_ahead else tick - nearest(moments)
                if beyond >= change:
                    return tick

    def _offsets(self, moment: float) -> list[timedelta]:
        """Return what the wall clock is ahead of UTC, before, at and after a moment."""
        moments = (moment - _CHANGE, moment, moment + _CHANGE)
        return [datetime.fromtimestamp(m, self.zone).utcoffset() or timedelta() for m in moments]

    def _times(self, wall: datetime) -> 'croniter':
        """Return the times that match, from one of a wall clock."""
        from croniter import croniter  # most processes compute no tick

        return croniter(_without_ranges_of_one(self.line, croniter.ALPHACONV), wall)

    def _moments(self, wall: datetime, is_hourly: bool) -> list[int]:
        """Return when the wall clock shows a time."""
        first, second = (
            int(wall.replace(tzinfo=self.zone, fold=fold).timestamp()) for fold in (0, 1)
        )
        return [first, second] if second > first and is_hourly else [first]


def _without_ranges_of_one(line: str, names: Sequence[Mapping[str, object]]) -> str:
    """Return a cron line with 5 in place of 5-5, which croniter takes for every value.

    `names` are those of the values of each field, as those of months.
    """
    fields = []
    for place, field in enumerate(line.split()):
        of_field = partial(_value, place, names[place])
        fields.append(_RANGE.sub(partial(_low_of_one, of_field), field))
    return ' '.join(fields)


def _low_of_one(value: Callable[[str], str], found: re.Match[str]) -> str:
    low, high = found.groups()
    is_week = value(low) == '0' and high == '7'  # from Sunday to Sunday
    return low if value(low) == value(high) and not is_week else found[0]


def _value(place: int, names: Mapping[str, object], text: str) -> str:
    value = str(names.get(text.lower(), text)).lstrip('0') or '0'
    if (place, value) == (_DAY_OF_MONTH, 'l'):
        return '31'  # so does croniter, at the end of a range
    return '0' if (place, value) == (_WEEKDAY, '7') else value


Rule = Every | Cron


def make_rule(every: Duration | None, cron: str | None, timezone: str | None) -> Rule:
    """Return the rule that one of `every` and `cron` means. Raises InvalidJobError."""
    if every is not None and cron is not None:
        raise InvalidJobError('every and cron exclude each other: pass one of them.', 'cron')
    if cron is not None:
        return _make_cron(cron, 'UTC' if timezone is None else timezone)
    if every is None:
        raise InvalidJobError("A periodic job needs every='1h' or cron='0 3 * * *'.", 'every')
    if timezone is not None:
        raise InvalidJobError(
            'timezone goes with cron: every counts from the epoch, whatever a clock shows.',
            'timezone',
        )
    seconds = parse_duration('every', every, least='1 second')
    if seconds < 1 or seconds % 1:
        raise InvalidJobError(
            f'every must be whole seconds, at least one, not {short_repr(every)}.', 'every'
        )
    return Every(int(seconds))


def _make_cron(line: str, timezone: str) -> Cron:
    from croniter import CroniterBadDateError

    _require_zone(timezone)
    fields = line.split() if isinstance(line, str) else []
    if len(fields) != 5 or any(map(_HASHED.fullmatch, fields)):
        raise _wrong_line(line)
    rule = Cron(' '.join(fields), timezone)
    now = datetime.now(UTC).timestamp()
    try:
        _require_clear_days(rule)
        rule.latest(now)
        rule.following(now)
    except CroniterBadDateError:
        problem = f'cron={line!r} never matches: there is no such day.'
        raise InvalidJobError(problem, 'cron') from None
    except ValueError as error:
        raise _wrong_line(line, f' ({error})') from None
    return rule


def _require_clear_days(rule: Cron) -> None:
    """Raise InvalidJobError for days of which croniter takes others than the line says.

    `#`, `L` and `W` count in both halves of the union of days of the month and weekdays.
    """
    times = rule._times(_EPOCH)
    days, weekdays = (times.expanded[place][0] != '*' for place in (_DAY_OF_MONTH, _WEEKDAY))
    if (days and times.nth_weekday_of_month) or (weekdays and times.nearest_weekday):
        raise InvalidJobError(
            f'cron={rule.line!r} has a day of the month beside a weekday, and # or L in the '
            'weekday or W in the day: make two entries of it, one for each.',
            'cron',
        )


def _wrong_line(line: object, reason: str = '') -> InvalidJobError:
    return InvalidJobError(
        'cron must be a line of five fields (minute, hour, day, month, weekday), such as '
        f"'0 3 * * *', not {short_repr(line)}{reason}.",
        'cron',
    )


def _require_zone(name: str) -> None:
    try:
        ZoneInfo(name)
        if name in _NO_PLACES or name.startswith(_OTHER_FORMS):
            raise LookupError(name)
    except (LookupError, ValueError, TypeError, OSError):  # by what kind of no name it is
        known = available_timezones() - _NO_PLACES
        near = get_close_matches(str(name)[:100], known, n=1)
        hint = f'Did you mean {near[0]!r}?' if near else 'Its form is that of Europe/Berlin.'
        if not known:
            hint = 'This machine has no time zones: pip install tzdata.'
        raise InvalidJobError(
            f'timezone must be an IANA name, not {short_repr(name)}. {hint}', 'timezone'
        ) from None
