"""Who records a call's sound: the gateway into a file, or Twilio."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal, Protocol

from agent.events import CallObserver
from telephony.line import PhoneLine
from telephony.phone_settings import RecordingSettings
from telephony.recording import CallRecording, Side
from telephony.rest import RestError, TwilioRest


class Recorder(Protocol):
    """Records one call."""

    @property
    def seconds(self) -> float:
        """How much has been recorded."""

    def redact(self, side: Side, since: float, until: float) -> None:
        """Silence what one side said, between two places in seconds."""

    async def pause(self) -> None:
        """Keep silence in place of what is said."""

    async def resume(self) -> None:
        """Keep what is said again."""


class _Here:
    def __init__(self, recording: CallRecording):
        self._recording = recording

    async def pause(self) -> None:
        self._recording.pause()

    async def resume(self) -> None:
        self._recording.resume()

    @property
    def seconds(self) -> float:
        return self._recording.seconds

    def redact(self, side: Side, since: float, until: float) -> None:
        self._recording.silence(side, since, until)


class _AtTwilio:
    def __init__(self, rest: TwilioRest, account_sid: str, call_sid: str, observer: CallObserver):
        self._rest = rest
        self._account_sid = account_sid
        self._call_sid = call_sid
        self._observer = observer
        self._told = False
        self.seconds = 0.0

    def redact(self, side: Side, since: float, until: float) -> None:
        if not self._told:
            self._told = True
            message = "recording at Twilio: what is private cannot be silenced there"
            self._observer.event("error", message=message)

    async def pause(self) -> None:
        try:
            await self._rest.update_recording(self._account_sid, self._call_sid, "paused")
        except RestError as error:
            # What must not be recorded would be: rather nothing is.
            self._observer.event("error", message=f"recording not paused, ended: {error}")
            await self._ask("stopped")

    async def resume(self) -> None:
        await self._ask("in-progress")

    async def _ask(self, status: Literal["in-progress", "stopped"]) -> None:
        try:
            await self._rest.update_recording(self._account_sid, self._call_sid, status)
        except RestError as error:
            self._observer.event("error", message=f"recording: {error}")


@asynccontextmanager
async def recording(
    settings: RecordingSettings | None,
    line: PhoneLine,
    rest: TwilioRest,
    callback: str,
    observer: CallObserver,
) -> AsyncIterator[Recorder | None]:
    """Record a call while it runs; what goes wrong is in its record and ends nothing.

    Args:
        settings: How; None: nothing is recorded.
        line: The call's.
        rest: Twilio's REST API.
        callback: Told where Twilio's recording is.
        observer: The call's record.

    Yields:
        What can pause it; None if nothing is recorded.
    """
    start = line.start
    if settings is None:
        yield None
    elif settings.by == "twilio":
        try:
            sid = await rest.record(start.account_sid, start.call_sid, callback)
        except RestError as error:
            observer.event("error", message=f"recording: {error}")
            yield None
            return
        observer.event("recording", by="twilio", recording_sid=sid)
        yield _AtTwilio(rest, start.account_sid, start.call_sid, observer)
    else:

        def failed(reason: str) -> None:
            observer.event("error", message=f"recording: {reason}")

        try:
            # A call may have several streams.
            name = f"{start.call_sid}-{start.stream_sid}.wav"
            file = CallRecording(settings.directory / name, failed)
        except OSError as error:
            failed(error.strerror or str(error))
            yield None
            return
        observer.event("recording", by="gateway", path=str(file.path))
        line.tap = file
        try:
            yield _Here(file)
        finally:
            line.tap = None
            await file.close()
            observer.event("recording_ended", seconds=round(file.seconds, 2))
