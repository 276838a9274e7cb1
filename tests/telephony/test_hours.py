"""Opening hours: clocks that change, nights, holidays, and what people write wrongly."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
import yaml
from pydantic import ValidationError

from telephony.hours import Hours


def hours(text):
    return Hours.model_validate(yaml.safe_load(text))


def at(zone, *moment):
    return datetime(*moment, tzinfo=ZoneInfo(zone))


WEEK = """
time_zone: America/New_York
open:
  mon-thu: "08:00-18:00"
  fri: ["08:00-12:00", "13:00-15:30"]
  sat: closed
holidays: [2026-12-25, 2026-12-30/2027-01-01]
"""


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ((2026, 11, 26, 7, 59), False),
        ((2026, 11, 26, 8, 0), True),
        ((2026, 11, 26, 17, 59), True),
        ((2026, 11, 26, 18, 0), False),
        ((2026, 11, 27, 12, 30), False),
        ((2026, 11, 27, 13, 0), True),
        ((2026, 11, 27, 15, 30), False),
        ((2026, 11, 28, 12, 0), False),
        ((2026, 11, 29, 12, 0), False),
        ((2026, 12, 24, 12, 0), True),
        ((2026, 12, 25, 9, 0), False),
        ((2026, 12, 29, 12, 0), True),
        ((2026, 12, 30, 12, 0), False),
        ((2026, 12, 31, 12, 0), False),
        ((2027, 1, 1, 9, 0), False),
        ((2027, 1, 4, 12, 0), True),
    ],
)
def test_times_days_and_holidays(moment, is_open):
    assert hours(WEEK).is_open(at("America/New_York", *moment)) is is_open


def test_the_moment_may_come_from_any_time_zone():
    week = hours(WEEK)
    assert week.is_open(datetime(2026, 11, 26, 22, 59, tzinfo=UTC))
    assert not week.is_open(datetime(2026, 11, 26, 23, 0, tzinfo=UTC))
    # In Tokyo it is Saturday already.
    assert week.is_open(at("Asia/Tokyo", 2026, 11, 28, 0, 30))


def test_the_clocks_times_count_on_the_days_on_which_they_change():
    berlin = hours('{time_zone: Europe/Berlin, open: {mon-sun: "08:00-18:00"}}')
    for day, utc_hour in (((2026, 3, 28), 7), ((2026, 3, 29), 6), ((2026, 10, 25), 7)):
        assert berlin.is_open(datetime(*day, utc_hour, 0, tzinfo=UTC))
        assert not berlin.is_open(datetime(*day, utc_hour - 1, 59, tzinfo=UTC))


def test_a_night_goes_on_into_the_next_day_even_into_a_holiday():
    night = hours(
        '{time_zone: UTC, open: {fri: "22:00-06:00"}, holidays: [2026-11-28, 2026-12-04]}'
    )
    assert night.is_open(datetime(2026, 11, 27, 23, 0, tzinfo=UTC))
    assert night.is_open(datetime(2026, 11, 28, 5, 59, tzinfo=UTC))
    assert not night.is_open(datetime(2026, 11, 28, 6, 0, tzinfo=UTC))
    assert not night.is_open(datetime(2026, 11, 28, 23, 0, tzinfo=UTC))
    # The night of a holiday does not begin.
    assert not night.is_open(datetime(2026, 12, 4, 23, 0, tzinfo=UTC))
    assert not night.is_open(datetime(2026, 12, 5, 1, 0, tzinfo=UTC))


def test_all_day_is_all_day():
    always = hours('{time_zone: UTC, open: {mon-sun: "00:00-24:00"}}')
    assert always.is_open(datetime(2026, 11, 26, 0, 0, tzinfo=UTC))
    assert always.is_open(datetime(2026, 11, 26, 23, 59, tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "field", "message"),
    [
        ('time_zone: Mars\nopen: {mon: "08:00-18:00"}', "time_zone", "Europe/Berlin"),
        ('time_zone: America\nopen: {mon: "08:00-18:00"}', "time_zone", "Europe/Berlin"),
        ('time_zone: UTC\nopen: {funday: "08:00-18:00"}', "open.funday", "mon, tue"),
        ('time_zone: UTC\nopen: {fri-mon: "08:00-18:00"}', "open.fri-mon", "mon-fri"),
        ("time_zone: UTC\nopen: {mon: 08:00}", "open.mon.0", "in quotes"),
        ('time_zone: UTC\nopen: {mon: "08:00-25:00"}', "open.mon.0", "00:00 to 24:00"),
        ('time_zone: UTC\nopen: {mon: "08:00-08:70"}', "open.mon.0", "00:00 to 24:00"),
        ('time_zone: UTC\nopen: {mon: "08:00-08:00"}', "open.mon.0", "begins when it ends"),
        ("time_zone: UTC\nopen: {}", "open", "at least 1"),
        ('time_zone: UTC\nopen: {mon: closed}\nholidays: ["2026-02-30"]', "holidays.0", "a date"),
        (
            "time_zone: UTC\nopen: {mon: closed}\nholidays: [2027-01-01/2026-12-24]",
            "holidays.0",
            "ends before it begins",
        ),
        ("time_zone: UTC\nopen: {mon: closed}\nholidays: [2026]", "holidays.0", "a date"),
    ],
)
def test_what_cannot_be_is_refused_with_its_field(text, field, message):
    with pytest.raises(ValidationError) as caught:
        hours(text)
    (error,) = caught.value.errors()
    assert ".".join(map(str, error["loc"])).startswith(field)
    assert message in error["msg"]
