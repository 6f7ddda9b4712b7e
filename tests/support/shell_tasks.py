"""A task with a parameter of every kind, to be enqueued from a shell."""

from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from tests.support.tasks import Point


def take(  # type: ignore[no-untyped-def]
    text: str = '',
    maybe: str | None = None,
    number: int = 0,
    share: float = 0,
    flag: bool = False,
    either: int | str = 0,
    day: date | None = None,
    moment: datetime | None = None,
    duration: timedelta | None = None,
    price: Decimal = Decimal(0),
    key: UUID | None = None,
    data: bytes = b'',
    days: list[date] | None = None,
    names: list[str] | None = None,
    pair: tuple[int, str] | None = None,
    marks: set[int] | None = None,
    by_number: dict[int, date] | None = None,
    point: Point | None = None,
    points: list[Point] | None = None,
    unhinted=None,
    anything: Any = None,
    **others: date,
) -> None: ...
