"""When an agent answers: opening hours in a time zone, and the days on which there are none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from typing import Annotated, Any, NamedTuple
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

from agent.section import Section

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SPAN = re.compile(r"(\d{1,2}):(\d{2})\s*-\s*(\d{1,2}):(\d{2})")
_DAY_MINUTES = 24 * 60


class Span(NamedTuple):
    """Minutes from a day's first midnight; the end, not in it, may lie beyond the next one."""

    begin: int
    end: int


class Days(NamedTuple):
    """Dates from the first to the last, both included."""

    first: date
    last: date


def _span(value: Any) -> Span:
    matched = _SPAN.fullmatch(value.strip()) if isinstance(value, str) else None
    if matched is None:
        raise ValueError('expected times such as "08:00-18:00", in quotes')
    first_hour, first_minute, last_hour, last_minute = map(int, matched.groups())
    begin, end = first_hour * 60 + first_minute, last_hour * 60 + last_minute
    if max(first_minute, last_minute) > 59 or begin >= _DAY_MINUTES or end > _DAY_MINUTES:
        raise ValueError(f"expected times from 00:00 to 24:00, got {value!r}")
    if begin == end:
        raise ValueError(f"{value!r} begins when it ends; all day is 00:00-24:00")
    return Span(begin, end if end > begin else end + _DAY_MINUTES)


def _spans(value: Any) -> Any:
    if value == "closed":
        return ()
    return [value] if isinstance(value, str | int) else value


def _days(value: Any) -> Days:
    if isinstance(value, date) and not isinstance(value, datetime):
        return Days(value, value)
    if isinstance(value, str):
        first, _, last = value.partition("/")
        try:
            days = Days(
                date.fromisoformat(first.strip()), date.fromisoformat((last or first).strip())
            )
        except ValueError:
            pass
        else:
            if days.first > days.last:
                raise ValueError(f"{value!r} ends before it begins")
            return days
    raise ValueError("expected a date (2026-12-25) or two (2026-12-24/2027-01-01)")


def weekdays(name: str) -> range:
    """The days of a week that a name such as ``mon`` or ``mon-fri`` stands for; Monday is 0.

    Raises:
        ValueError: It is neither.
    """
    first, _, last = name.partition("-")
    try:
        days = range(_DAYS.index(first), _DAYS.index(last or first) + 1)
    except ValueError:
        days = range(0)
    if not days:
        raise ValueError(f"expected a day ({', '.join(_DAYS)}) or days (mon-fri), got {name!r}")
    return days


def _day_name(name: str) -> str:
    weekdays(name)
    return name


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, OSError, KeyError):
        # ZoneInfoNotFoundError is a KeyError; a directory of the database is an OSError.
        raise ValueError(f"expected a time zone such as Europe/Berlin, got {name!r}") from None
    return name


_Spans = Annotated[tuple[Annotated[Span, PlainValidator(_span)], ...], BeforeValidator(_spans)]


class Hours(Section):
    """Opening hours.

    Attributes:
        time_zone: Name in the time zone database; the times are those of its clocks.
        open: Times by day (``mon``) or days (``mon-fri``): one (``"08:00-18:00"``) or a list; one
            that ends before it begins goes on into the next day. Days that are not named are
            closed.
        holidays: Closed dates, and pairs of dates (``2026-12-24/2027-01-01``) with all between.
            Times that began on the day before go on.
    """

    time_zone: Annotated[str, AfterValidator(_zone)]
    open: Mapping[Annotated[str, AfterValidator(_day_name)], _Spans] = Field(min_length=1)
    holidays: tuple[Annotated[Days, PlainValidator(_days)], ...] = ()

    def is_open(self, moment: datetime) -> bool:
        """Whether it is open.

        Args:
            moment: With a time zone, whichever.
        """
        local = moment.astimezone(ZoneInfo(self.time_zone))
        minute = local.hour * 60 + local.minute
        today = local.date()
        return self._includes(today, minute) or self._includes(
            today - timedelta(days=1), minute + _DAY_MINUTES
        )

    def _includes(self, day: date, minute: int) -> bool:
        if any(days.first <= day <= days.last for days in self.holidays):
            return False
        return any(
            span.begin <= minute < span.end
            for name, spans in self.open.items()
            if day.weekday() in weekdays(name)
            for span in spans
        )
