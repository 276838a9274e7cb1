"""A call's WebSocket that speaks another carrier's messages, as the line that everything knows.

Pipecat's serializer reads and writes the messages. On this side of it sound is mu-law at 8 kHz, as
it is on Twilio's wire: what comes as mu-law is not changed by that.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
from aiohttp import web
from pipecat.clocks.system_clock import SystemClock
from pipecat.frames.frames import (
    Frame,
    InputAudioRawFrame,
    InputDTMFFrame,
    InterruptionFrame,
    OutputAudioRawFrame,
    OutputTransportMessageUrgentFrame,
)
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.frame_processor import FrameProcessorSetup
from pipecat.utils.asyncio.task_manager import TaskManager

from telephony import mulaw
from telephony.clock import Clock
from telephony.line import ClosedError, EndCause, PhoneLine, next_message
from telephony.media_streams import (
    SAMPLE_RATE,
    Clear,
    CloseCode,
    Dtmf,
    FromTwilio,
    Mark,
    MarkReturned,
    Media,
    Play,
    ProtocolError,
    ServerEvent,
    Start,
    Stop,
    TwilioEvent,
)
from telephony.webhooks import TOKEN_PARAMETER
from telephony.wire_fields import Fields
from telephony.wires.carrier import Carrier, Opened, file_name

_START_SECONDS = 10.0


class CarrierLine(PhoneLine):
    """The WebSocket of one call that another carrier brings, past its first message."""

    can_transfer = False

    def __init__(
        self,
        websocket: web.WebSocketResponse,
        carrier: Carrier,
        opened: Opened,
        start: Start,
        allows: Callable[[], bool],
        clock: Clock | None,
    ):
        """Speak to a carrier.

        Args:
            websocket: What its messages pass through.
            carrier: Whose they are.
            opened: The stream.
            start: The same, as Twilio would tell it.
            allows: Asked for each message whether one more may come now.
            clock: Tells what has been played; None: the carrier does.
        """
        super().__init__(websocket, FromTwilio(), start, allows)
        self._carrier = carrier
        self._serializer = opened.serializer
        self._stream_id = opened.stream_id
        self._clock = clock
        self._heard = 0
        self._chunks = 0
        # With a clock: when each mark will have been played, and all there is.
        self._due: deque[tuple[float, str]] = deque()
        self._played_until = float("-inf")

    @classmethod
    async def open(
        cls,
        websocket: web.WebSocketResponse,
        carrier: Carrier,
        call_sid: str,
        token: str,
        *,
        allows: Callable[[], bool],
        clock: Clock | None,
    ) -> CarrierLine:
        """Wait until the stream begins.

        Args:
            websocket: Prepared, nothing read from it yet.
            carrier: Who has opened it.
            call_sid: The call that its address names.
            token: What its address brings.
            allows: As in the constructor.
            clock: As in the constructor.

        Raises:
            ProtocolError: If something else comes, or nothing in time.
        """
        try:
            async with asyncio.timeout(_START_SECONDS):
                opened = None
                while opened is None:
                    message = await next_message(websocket, allows)
                    opened = carrier.opened(Fields.of_message(message))
        except TimeoutError:
            raise ProtocolError(CloseCode.POLICY_VIOLATION, "no stream began in time") from None
        except ClosedError:
            raise ProtocolError(CloseCode.PROTOCOL_ERROR, "closed before the start") from None
        # All that serializers take from this is the rate.
        setup = FrameProcessorSetup(
            SystemClock(),  # type: ignore[no-untyped-call]
            TaskManager(),
            cast(PipelineWorker, None),
            SAMPLE_RATE,
            SAMPLE_RATE,
        )
        await opened.serializer.setup(setup)
        # Recordings are named by it.
        stream_sid = file_name(opened.stream_id) or "stream"
        start = Start(stream_sid, call_sid, opened.account_id, {TOKEN_PARAMETER: token})
        return cls(websocket, carrier, opened, start, allows, clock)

    async def receive(self) -> TwilioEvent | None:
        """The next event, as on Twilio's wire; None once the call is over."""
        # A caller's sound comes all the time, and so this is asked often enough.
        if self._clock is not None and self._due and self._due[0][0] <= self._clock.time():
            _, name = self._due.popleft()
            return MarkReturned(self.start.stream_sid, name, 0)
        return await super().receive()

    async def _read(self, message: str | bytes) -> TwilioEvent | None:
        stream_sid = self.start.stream_sid
        if isinstance(message, str):
            fields = Fields.of_message(message)
            if self._carrier.ended(fields):
                return Stop(stream_sid, self.start.account_sid, self.start.call_sid, 0)
            if (name := self._carrier.mark_returned(fields)) is not None:
                return MarkReturned(stream_sid, name, 0)
        try:
            frame = await self._serializer.deserialize(message)
        except (ValueError, TypeError, AttributeError):
            raise ProtocolError(CloseCode.INVALID_PAYLOAD, "a message that is no sound") from None
        if isinstance(frame, InputDTMFFrame):
            return Dtmf(stream_sid, str(frame.button.value), 0)
        return self._media(frame.audio) if isinstance(frame, InputAudioRawFrame) else None

    def _media(self, pcm: bytes) -> Media:
        if len(pcm) % 2:
            raise ProtocolError(CloseCode.INVALID_PAYLOAD, "half a sample")
        payload = mulaw.encode(np.frombuffer(pcm, dtype=np.int16))
        begun = 1000 * self._heard // SAMPLE_RATE
        self._heard += len(payload)
        self._chunks += 1
        return Media(self.start.stream_sid, payload, begun, self._chunks, self._chunks)

    async def _written(self, event: ServerEvent) -> Sequence[str | bytes]:
        frames: list[Frame]
        match event:
            case Play():
                frames = self._sound(event.payload)
            case Clear():
                self._due.clear()
                self._played_until = float("-inf")
                frames = [InterruptionFrame()]
            case Mark():
                if self._clock is not None:
                    self._due.append((max(self._played_until, self._clock.time()), event.mark))
                    return ()
                mark = self._carrier.mark(self._stream_id, event.mark)
                frames = [OutputTransportMessageUrgentFrame(mark)]
        written = [await self._serializer.serialize(frame) for frame in frames]
        return [message for message in written if message is not None]

    def _sound(self, payload: bytes) -> list[Frame]:
        if self._clock is not None:
            now = self._clock.time()
            self._played_until = max(self._played_until, now) + len(payload) / SAMPLE_RATE
        pcm = mulaw.decode(payload).tobytes()
        size = 2 * self._carrier.message_samples or len(pcm)
        return [
            OutputAudioRawFrame(pcm[begin : begin + size], SAMPLE_RATE, 1)
            for begin in range(0, len(pcm), size)
        ]

    def _cause_of_close(self) -> EndCause:
        if not self._carrier.tells_of_end and self._websocket.close_code == CloseCode.NORMAL:
            return EndCause.CALLER_HUNG_UP
        return super()._cause_of_close()
