"""What an agent's telephone does: keys, recordings, transfers. The section ``phone``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from agent.outgoing import Secret
from agent.phone_number import PhoneNumber
from agent.section import Section
from telephony.keypad import KeypadSettings


class RecordingSettings(Section):
    """How calls are recorded.

    Attributes:
        by: ``gateway`` writes a WAV file, caller left and agent right; ``twilio`` has Twilio record
            and keep the recording.
        directory: Where the gateway's files lie, named after the calls.
        consent: Said in the carrier's voice before anything is recorded; it cannot be interrupted.
    """

    by: Literal["gateway", "twilio"] = "gateway"
    directory: Path = Path("recordings")
    consent: str | None = Field(default=None, min_length=1)


class HandoverSettings(Section):
    """How callers are handed over to people.

    Attributes:
        webhook: Told of a caller before it rings: who, what was said, what it is about. https, or
            http on loopback.
        signing_secret: Signs that, as requests of tools are signed.
        webhook_secs: It rings after so long even where the webhook has not answered.
        ring_secs: So long it rings.
        caller_id: The number that is shown; None: the caller's, or with a warm transfer, the one
            that was called.
        sorry: Said in the carrier's voice when nobody answers a cold transfer; None: our own words
            in the agent's language.
    """

    webhook: str | None = Field(
        default=None, pattern=r"^https://|^http://(127\.|localhost|\[::1\])"
    )
    signing_secret: Secret | None = None
    webhook_secs: float = Field(default=3.0, gt=0)
    ring_secs: int = Field(default=25, ge=5, le=120)
    caller_id: PhoneNumber | None = None
    sorry: str | None = Field(default=None, min_length=1)


class PhoneSettings(Section):
    """An agent's telephone.

    Attributes:
        keypad: How the caller's keys become entries.
        recording: How its calls are recorded; None: they are not.
        handover: How callers are handed over to people.
    """

    keypad: KeypadSettings = KeypadSettings()
    recording: RecordingSettings | None = None
    handover: HandoverSettings = HandoverSettings()
