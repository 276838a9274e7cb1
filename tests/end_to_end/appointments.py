"""The tool of the scenarios' clinic: what an operator would write."""

from typing import Literal

Day = Literal["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"]


def book(day: Day, time: Literal["morning", "afternoon"]) -> str:
    """Books an appointment.

    Args:
        day: Which day.
        time: Which half of it.
    """
    return "booked"
