"""How an agent calls people. The section ``outbound``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from agent.phone_number import PhoneNumber
from agent.section import Section
from telephony.hours import Hours


class Voicemail(Section):
    """What is left on an answering machine; one of the two.

    Attributes:
        say: Words, in the carrier's voice.
        play: The address of a recording (``glm-voice say`` makes one in the agent's voice).
    """

    say: str | None = Field(default=None, min_length=1)
    play: str | None = Field(default=None, pattern=r"^https?://")

    @model_validator(mode="after")
    def _one_of_them(self) -> Voicemail:
        if (self.say is None) == (self.play is None):
            raise ValueError("a voicemail has either say or play")
        return self


class OutboundSettings(Section):
    """How an agent calls people.

    Attributes:
        caller_id: The number that is shown, one of the account's.
        hours: When people may be called, by the clocks of their time zone where a call names one,
            else by those of ``hours.time_zone``.
        do_not_call: A file of numbers that are never called, one a line.
        ring_secs: So long it rings.
        call_secs: Longest call; None: Twilio's four hours.
        detection: Whether a machine answers is found out while the agent talks already
            (``meanwhile``), before it does (``first``, some seconds of silence), or not (``off``).
        voicemail: What is left on a machine; None: nothing, the call ends.
    """

    caller_id: PhoneNumber
    hours: Hours
    do_not_call: Path | None = None
    ring_secs: int = Field(default=30, ge=5, le=120)
    call_secs: int | None = Field(default=None, ge=10, le=14400)
    detection: Literal["meanwhile", "first", "off"] = "meanwhile"
    voicemail: Voicemail | None = None

    @model_validator(mode="after")
    def _needs_detection(self) -> OutboundSettings:
        if self.voicemail is not None and self.detection == "off":
            raise ValueError("a voicemail needs detection: meanwhile or first")
        return self
