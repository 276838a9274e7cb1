"""The telephone of one call: keys, transfers and the recording, as the agent's tools use them."""

from __future__ import annotations

from collections.abc import Awaitable

from loguru import logger

from agent.events import CallObserver
from agent.tools.call import PhoneError
from telephony.agents import Agent
from telephony.clock import Clock
from telephony.handover import Handover
from telephony.keypad import Entry, Keypad
from telephony.line import EndCause, PhoneLine
from telephony.masking import MaskedRecord
from telephony.recorders import Recorder
from telephony.records import CallRecorder
from telephony.sound_redaction import SoundRedaction
from telephony.transcript import Transcript
from telephony.transfers import Transfers
from telephony.transport import PhoneTransport


class Telephone:
    """Serves one call; an :class:`agent.tools.call.Phone`.

    Attributes:
        observer: The call's record, masked; what happens on the call belongs in here.
        transport: The line, for the pipeline.
        transferred_to: The number with which the caller is to be connected, if with any.
    """

    def __init__(
        self,
        line: PhoneLine,
        record: CallRecorder,
        agent: Agent,
        transfers: Transfers,
        recorder: Recorder | None,
        clock: Clock,
    ):
        """Serve a line.

        Args:
            line: The call's.
            record: The call's.
            agent: Who answers the call.
            transfers: The gateway's.
            recorder: Records the call's sound; None: nothing does.
            clock: Paces the call's audio and its keys.

        Raises:
            ValueError: A secret is not there.
        """
        self.transferred_to: str | None = None
        self._line = line
        self._agent = agent
        self._settings = settings = agent.phone
        self._transfers = transfers
        self._recorder = recorder
        self._transcript = Transcript(record)
        self._masked = MaskedRecord(self._transcript)
        self.observer: CallObserver = self._masked
        if recorder is not None:
            self.observer = SoundRedaction(
                self._masked, agent.redaction, self._masked.hides, recorder
            )
        self._handover = Handover(settings.handover)
        self._pauses = 0
        self._keypad = Keypad(
            settings.keypad,
            clock,
            on_entry=self._typed,
            on_begin=self.pause_recording,
            on_end=self.resume_recording,
        )
        self.transport = PhoneTransport(line, clock=clock, on_key=self._pressed)
        if line.can_transfer and transfers.are_asked_for(agent):
            transfers.expect_question(line.start.call_sid)

    @property
    def typed(self) -> str | None:
        """What the caller typed last; None before that."""
        entry = self._keypad.last
        return None if entry is None else entry.digits

    async def take_digits(
        self, after: Awaitable[object], wait_secs: float, longest: int | None, secret: bool
    ) -> str | None:
        """Wait for what the caller types next; nothing is recorded meanwhile."""
        secret = secret or self._settings.keypad.secret
        entry = await self._keypad.collect(after, wait_secs, longest, secret)
        if entry is not None:
            self._note(entry)
        return None if entry is None else entry.digits

    async def pause_recording(self) -> None:
        """Record nothing until it is resumed as often as it was paused."""
        self._pauses += 1
        if self._pauses == 1 and self._recorder is not None:
            self.observer.event("recording_paused")
            await self._recorder.pause()

    async def resume_recording(self) -> None:
        """Record again."""
        if self._pauses == 0:
            return
        self._pauses -= 1
        if self._pauses == 0 and self._recorder is not None:
            await self._recorder.resume()
            self.observer.event("recording_resumed")

    async def transfer(
        self, number: str, *, summary: str | None = None, warm: bool = False
    ) -> None:
        """Have the caller connected with a number as soon as the agent leaves the call.

        Raises:
            PhoneError: Twilio refused, or nobody came, or the call came from another carrier.
        """
        if not self._line.can_transfer:
            raise PhoneError("calls of this carrier cannot be transferred")
        start, settings = self._line.start, self._settings.handover
        caller, called = (start.parameters.get(name) for name in ("caller", "called"))
        told = {
            "call_sid": start.call_sid,
            "caller": caller,
            "called": called,
            "destination": number,
            "warm": warm,
            "summary": summary,
            "turns": self._transcript.turns(),
        }
        self.observer.event("transfer_started", warm=warm, summary=summary)
        problem = await self._handover.tell(told)
        if problem is not None:
            logger.bind(call_sid=start.call_sid).warning("Nobody was told of a caller")
            self.observer.event("error", message=f"phone.handover.webhook: {problem}")
        try:
            if warm:
                shown = settings.caller_id or called
                if shown is None:
                    raise PhoneError("phone.handover.caller_id: no number to be shown")
                await self._transfers.warm(
                    start.account_sid,
                    start.call_sid,
                    number,
                    shown,
                    settings.ring_secs,
                    (summary or self._agent.sentences.waiting, self._agent.language),
                    self._line.ended,
                )
            else:
                await self._transfers.cold(
                    start.account_sid,
                    start.call_sid,
                    number,
                    settings.caller_id,
                    settings.ring_secs,
                    (settings.sorry or self._agent.sentences.apology, self._agent.language),
                )
        except PhoneError as error:
            self.observer.event("transfer_failed", message=str(error))
            raise
        self.transferred_to = number

    def cause(self, cause: EndCause) -> EndCause:
        """Why the agent's part of the call ended, where the line ended so."""
        # Sent on by the REST API, a call leaves its stream as if the caller had hung up.
        left = cause in (EndCause.AGENT_HUNG_UP, EndCause.CALLER_HUNG_UP)
        return EndCause.TRANSFERRED if self.transferred_to is not None and left else cause

    def close(self) -> None:
        """The call is over."""
        self._keypad.close()

    async def _pressed(self, key: str) -> None:
        if self._settings.keypad.interrupts and not self._keypad.typing:
            await self.transport.interrupt()
        await self._keypad.press(key)

    async def _typed(self, entry: Entry) -> None:
        self._note(entry)
        await self.transport.tell(entry.told)

    def _note(self, entry: Entry) -> None:
        self._masked.mask(entry.digits, entry.secret)
        self.observer.event("keys_typed", keys=len(entry.digits), digits="*" * len(entry.digits))
