"""Who is called: what happens when a number is dialled, and who is on the phone then."""

from collections import deque
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from telephony.simulator.audible import SAMPLE_RATE
from telephony.simulator.caller import FRAME
from telephony.simulator.network import Network
from telephony.simulator.part import Part, read_part
from telephony.simulator.preparation import new_caller
from telephony.simulator.scenario import load_scenario

AnsweredBy = Literal[
    "human",
    "machine_start",
    "machine_end_beep",
    "machine_end_silence",
    "machine_end_other",
    "fax",
    "unknown",
]


class Person(Protocol):
    """Somebody, or something, on the phone.

    Attributes:
        keys: Keys that were pressed and not sent yet.
    """

    keys: deque[str]

    def tick(self, heard: NDArray[np.int16]) -> NDArray[np.int16] | None:
        """Live through 20 ms: int16 [160] heard, int16 [160] said; None hangs up."""
        ...


class Listener:
    """Says nothing and hangs up after a while."""

    def __init__(self, seconds: float) -> None:
        """Prepare to listen for so many seconds."""
        self.keys: deque[str] = deque()
        self._left = round(seconds * SAMPLE_RATE)

    def tick(self, heard: NDArray[np.int16]) -> NDArray[np.int16] | None:
        """Live through 20 ms."""
        self._left -= FRAME
        return np.zeros(FRAME, np.int16) if self._left >= 0 else None


class Callee(Part):
    """What happens when a number is called.

    Attributes:
        outcome: ``failed`` is a number that cannot be reached.
        ring_ms: So long it rings before it answers or turns the call down.
        answered_by: What answering machine detection finds. As Twilio does, the mode ``Enable``
            calls every machine ``machine_start``, and ``DetectMessageEnd`` never does.
        detection_ms: How long that takes after the call was answered.
        stays_ms: So long somebody without a scenario stays on the phone, and anybody in a call
            that was transferred to them.
        scenario: The file of what they say, or None: nothing.
        network: What the network does to the call.
    """

    outcome: Literal["answered", "busy", "no-answer", "failed"] = "answered"
    ring_ms: float = Field(default=2000, ge=0)
    answered_by: AnsweredBy = "human"
    detection_ms: float = Field(default=3000, ge=0)
    stays_ms: float = Field(default=30_000, ge=0)
    scenario: Path | None = None
    network: Network = Network()

    def person(self) -> Person:
        """Who picks up.

        Raises:
            ValueError: The scenario or a recording of it cannot be used.
        """
        if self.scenario is None:
            return Listener(self.stays_ms / 1000)
        return new_caller(load_scenario(self.scenario))

    def detected(self, mode: str) -> AnsweredBy:
        """What detection in a mode, ``Enable`` or ``DetectMessageEnd``, answers."""
        machine = self.answered_by.startswith("machine")
        if mode == "Enable" and machine:
            return "machine_start"
        if mode == "DetectMessageEnd" and self.answered_by == "machine_start":
            return "machine_end_other"
        return self.answered_by


class PhoneBook(Part):
    """Who can be called.

    Attributes:
        format: Version of this format.
        numbers: By telephone number, or by the name of a conference.
        everybody_else: Who answers any other number.
    """

    format: Literal[1] = 1
    numbers: dict[str, Callee] = Field(default_factory=dict)
    everybody_else: Callee = Callee()

    def callee(self, number: str) -> Callee:
        """Who answers a number."""
        return self.numbers.get(number, self.everybody_else)


def load_phone_book(path: Path) -> PhoneBook:
    """Read a phone book.

    Args:
        path: A YAML file; relative paths of scenarios start there.

    Raises:
        ValueError: The file cannot be used; the message names it and the field.
    """
    book = read_part(path, PhoneBook)

    def placed(callee: Callee) -> Callee:
        if callee.scenario is None:
            return callee
        return callee.model_copy(update={"scenario": path.parent / callee.scenario})

    numbers = {number: placed(callee) for number, callee in book.numbers.items()}
    everybody_else = placed(book.everybody_else)
    return book.model_copy(update={"numbers": numbers, "everybody_else": everybody_else})
