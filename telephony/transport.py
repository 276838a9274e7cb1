"""A phone line as a Pipecat transport.

Input: the caller's sound at 16 kHz and the keys pressed. Output: sound of any rate, resampled to
8 kHz and sent in 20 ms frames at the pace of the clock; marks tell what the caller has heard, which
goes upstream as :class:`agent.frames.AudioHeardFrame` for every answer (by ``context_id``).
An interruption silences the phone at once; so does :class:`agent.frames.HoldSpeechFrame`, after
which :class:`agent.frames.ResumeSpeechFrame` has it go on where it stopped. At ``EndFrame`` the
line closes when the last word has been heard; when the caller hangs up or the socket breaks, the
pipeline is cancelled.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable

import numpy as np
from loguru import logger
from pipecat.audio.dtmf.types import KeypadEntry
from pipecat.frames.frames import (
    CancelFrame,
    CancelWorkerFrame,
    ClientConnectedFrame,
    EndFrame,
    Frame,
    InputAudioRawFrame,
    InputDTMFFrame,
    InterruptionFrame,
    LLMMessagesAppendFrame,
    OutputAudioRawFrame,
    StartFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContextMessage
from pipecat.processors.frame_processor import FrameDirection
from pipecat.transports.base_input import BaseInputTransport
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import BaseTransport, TransportParams

from agent.frames import SPEAKING_SECONDS, AudioHeardFrame, HoldSpeechFrame, ResumeSpeechFrame
from telephony import mulaw
from telephony.clock import Clock, SystemClock
from telephony.hearing import Hearing
from telephony.line import EndCause, PhoneLine
from telephony.media_streams import (
    FRAME_BYTES,
    SAMPLE_RATE,
    Clear,
    CloseCode,
    Dtmf,
    Mark,
    MarkReturned,
    Media,
    Play,
)
from telephony.playout import Playout
from telephony.replay import Replay, Sound
from telephony.resampler import Resampler

_FRAME_PCM_BYTES = 2 * FRAME_BYTES
_PIECE_BYTES = 20 * _FRAME_PCM_BYTES
"""Audio that is queued as one frame: 0.4 s. Each costs Pipecat two tasks and two timers."""

_MESSAGE_BYTES = 2 * FRAME_BYTES
"""Sound of one message to the phone: 40 ms, as Pipecat sends it to any phone."""

_TURNS_WITHOUT_REST = 8
"""Messages read in a row before the event loop gets to the other calls."""
_KEYS = {str(entry.value): entry for entry in KeypadEntry}


class PhoneParams(TransportParams):
    """Parameters of a phone line.

    Attributes:
        audio_in_samples: the caller's audio comes in frames of so many samples: Silero's window, so
            that no frame travels that decides nothing (telephony.hearing).
        lead_secs: audio sent ahead of the clock, so that a busy moment here is no gap there.
        goodbye_secs: at ``EndFrame``, how long beyond its duration to wait for the last audio's
            mark.
    """

    audio_in_enabled: bool = True
    audio_in_sample_rate: int | None = 16000
    audio_in_samples: int = 512
    audio_out_enabled: bool = True
    audio_out_sample_rate: int | None = SAMPLE_RATE
    audio_out_10ms_chunks: int = 2
    audio_out_end_silence_secs: int = 0
    lead_secs: float = 0.1
    goodbye_secs: float = 2.0


class PhoneTransport(BaseTransport):
    """The transport of one call.

    Event handlers: ``on_client_connected(transport, line)`` when the pipeline has started,
    ``on_client_disconnected(transport, line)`` when the caller hung up or the socket broke.
    """

    def __init__(
        self,
        line: PhoneLine,
        params: PhoneParams | None = None,
        *,
        clock: Clock | None = None,
        name: str | None = None,
        on_key: Callable[[str], Awaitable[None]] | None = None,
    ):
        """Make a transport of a line.

        Args:
            line: past its start event; closed by the transport when the pipeline ends.
            params: rates, lead and patience.
            clock: what paces the output.
            name: of the transport, in logs.
            on_key: told of every key that the caller presses.
        """
        super().__init__(name=name)
        params = params or PhoneParams()
        self._output = PhoneOutput(line, params, clock or SystemClock())
        self._input = PhoneInput(self, line, params, self._output)
        self.on_key = on_key
        self._register_event_handler("on_client_connected")
        self._register_event_handler("on_client_disconnected")

    def input(self) -> PhoneInput:
        """The processor that hears the caller."""
        return self._input

    def output(self) -> PhoneOutput:
        """The processor that speaks to the caller."""
        return self._output

    async def tell(self, text: str) -> None:
        """Tell the agent something in writing; it answers."""
        message: LLMContextMessage = {"role": "user", "content": text}
        await self._input.push_frame(LLMMessagesAppendFrame(messages=[message], run_llm=True))

    async def interrupt(self) -> None:
        """Have the agent fall silent."""
        await self._input.broadcast_interruption()  # type: ignore[no-untyped-call]

    async def connected(self, line: PhoneLine) -> None:
        """Tell whoever registered that the pipeline has the line."""
        await self._call_event_handler("on_client_connected", line)

    async def disconnected(self, line: PhoneLine) -> None:
        """Tell whoever registered that the other end is gone."""
        await self._call_event_handler("on_client_disconnected", line)


class PhoneInput(BaseInputTransport):
    """Reads the line until it ends."""

    def __init__(
        self, transport: PhoneTransport, line: PhoneLine, params: PhoneParams, output: PhoneOutput
    ):
        super().__init__(params)
        self._transport = transport
        self._line = line
        self._output = output
        self._window = params.audio_in_samples
        self._reading: asyncio.Task[None] | None = None

    async def start(self, frame: StartFrame) -> None:
        """Begin to listen."""
        await super().start(frame)
        await self.set_transport_ready(frame)
        await self._transport.connected(self._line)
        await self.push_frame(ClientConnectedFrame())
        if self._reading is None:
            self._reading = self.create_task(self._read())

    async def cancel(self, frame: CancelFrame) -> None:
        """Stop listening."""
        await super().cancel(frame)
        await self._stop_reading()

    async def cleanup(self) -> None:
        """Stop listening, however the pipeline ended."""
        # Not at EndFrame: until the output has closed the line, it needs the marks that return.
        await super().cleanup()  # type: ignore[no-untyped-call]
        await self._stop_reading()
        await self._transport.cleanup()  # type: ignore[no-untyped-call]

    async def _stop_reading(self) -> None:
        if self._reading is not None:
            reading, self._reading = self._reading, None
            await self.cancel_task(reading)

    async def _read(self) -> None:
        try:
            await self._pass_on()
        except Exception:
            logger.exception("Reading from the phone failed")
            await self._line.hang_up(EndCause.ERROR, CloseCode.INTERNAL_ERROR)
        if self._line.cause is not EndCause.AGENT_HUNG_UP:
            logger.bind(cause=self._line.cause).info("Phone line ended")
            await self._transport.disconnected(self._line)
            await self.push_frame(
                CancelWorkerFrame(reason=str(self._line.cause)), FrameDirection.UPSTREAM
            )

    async def push_audio_frame(self, frame: InputAudioRawFrame) -> None:
        """Push audio as it comes: no queue in between, nor the task that Pipecat reads it with."""
        if self.next is not None:
            # Not push_frame, which tells observers and logs of every frame: there are thirty a
            # second, and whoever wants to know is told by the processor behind.
            await self.next.queue_frame(frame)

    async def _pass_on(self) -> None:
        hearing = Hearing(self.sample_rate, self._window)
        turns = 0
        while (event := await self._line.receive()) is not None:
            if isinstance(event, Media):
                audio = hearing.hear(event.payload)
                if audio:
                    await self.push_audio_frame(
                        InputAudioRawFrame(audio, self.sample_rate, num_channels=1)
                    )
            elif isinstance(event, MarkReturned):
                await self._output.mark_returned(event.mark)
            elif isinstance(event, Dtmf) and event.digit in _KEYS:
                await self.push_frame(InputDTMFFrame(_KEYS[event.digit]))
                if self._transport.on_key is not None:
                    await self._transport.on_key(event.digit)
            turns += 1
            if turns % _TURNS_WITHOUT_REST == 0:
                # A sender faster than real time must not keep the event loop from other calls.
                await asyncio.sleep(0)


class PhoneOutput(BaseOutputTransport):
    """Speaks on the line, and knows what was heard."""

    def __init__(self, line: PhoneLine, params: PhoneParams, clock: Clock):
        super().__init__(params)
        self._line = line
        self._lead = params.lead_secs
        self._goodbye_secs = params.goodbye_secs
        self._clock = clock
        self._playout = Playout()
        self._replay = Replay()
        self._resampler: Resampler | None = None
        # Audio that fills no frame yet, and whether it may be interrupted.
        self._rest = b""
        self._rest_interruptible = True
        # Rises with every interruption: a frame that was waiting for its time belongs to the past.
        self._interruptions = 0
        self._silenced = False
        self._sent_interruptible = True
        self._last_mark: tuple[str, asyncio.Event] | None = None

    async def start(self, frame: StartFrame) -> None:
        """Be ready to speak."""
        await super().start(frame)
        await self.set_transport_ready(frame)
        for sender in self._media_senders.values():
            sender._bot_speaking_frame_period = SPEAKING_SECONDS

    async def stop(self, frame: EndFrame) -> None:
        """Say what is queued, wait until it has been heard, hang up."""
        await self._go_on()
        await super().stop(frame)
        await self._let_finish()
        await self._line.hang_up(EndCause.AGENT_HUNG_UP)

    async def cancel(self, frame: CancelFrame) -> None:
        """Hang up at once."""
        await super().cancel(frame)
        await self._line.hang_up(EndCause.AGENT_HUNG_UP)

    async def cleanup(self) -> None:
        """Close the line, however the pipeline ended."""
        await super().cleanup()  # type: ignore[no-untyped-call]
        await self._line.hang_up(EndCause.AGENT_HUNG_UP)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Speak, fall silent, or pass the frame on.

        Raises:
            ValueError: if audio is not mono.
        """
        if isinstance(frame, InterruptionFrame):
            await self._interrupt(frame, direction)
            return
        if direction is FrameDirection.DOWNSTREAM:
            if isinstance(frame, HoldSpeechFrame):
                await self._hold()
            elif isinstance(frame, ResumeSpeechFrame):
                await self._go_on()
            elif isinstance(frame, OutputAudioRawFrame):
                if isinstance(frame, TTSAudioRawFrame) and self._playout.was_cut(frame.context_id):
                    return
                frame = self._at_phone_rate(frame)
            elif isinstance(frame, TTSStartedFrame):
                self._playout.announce(frame.context_id)
            elif isinstance(frame, TTSStoppedFrame):
                self._playout.end(frame.context_id)
                await self._queue_tail(TTSAudioRawFrame)
            elif isinstance(frame, EndFrame):
                await self._queue_tail(OutputAudioRawFrame)
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSStoppedFrame):
            await self._send_mark(self._playout.due_mark())

    async def push_frame(
        self, frame: Frame, direction: FrameDirection = FrameDirection.DOWNSTREAM
    ) -> None:
        """Push a frame, but no sound: that has been sent, and nothing behind listens."""
        if not isinstance(frame, OutputAudioRawFrame):
            await super().push_frame(frame, direction)

    async def write_transport_frame(self, frame: Frame) -> None:
        """Note that an answer begins, in order with the audio."""
        if isinstance(frame, TTSStartedFrame):
            self._playout.begin(frame.context_id)
            await self._send_mark(self._playout.due_mark())

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        """Send audio, every 40 ms of it when its time has come.

        Args:
            frame: int16 mono at 8 kHz.

        Returns:
            Whether all of it was sent: not if the line ended or an interruption came first.
        """
        if self._silenced and frame.interruptible:
            return False
        interruptions = self._interruptions
        of_answer = isinstance(frame, TTSAudioRawFrame)
        whole = len(frame.audio) + -len(frame.audio) % _FRAME_PCM_BYTES
        encoded = mulaw.encode(np.frombuffer(frame.audio.ljust(whole, b"\0"), dtype=np.int16))
        for begin in range(0, len(encoded), _MESSAGE_BYTES):
            payload = encoded[begin : begin + _MESSAGE_BYTES]
            await self._wait_to_send(len(payload) / SAMPLE_RATE)
            if interruptions != self._interruptions and frame.interruptible:
                return False
            sound = Sound(payload, self._playout.current if of_answer else None)
            if not await self._send_sound(sound):
                return False
            self._sent_interruptible = frame.interruptible
        return True

    async def _wait_to_send(self, seconds: float) -> None:
        """Wait until it is time for so much more sound."""
        while True:
            await self._replay.going.wait()
            wait = self._playout.lead(self._clock.time()) + seconds - self._lead
            if wait > 0:
                await self._clock.sleep(wait)
            if not self._replay.holding:
                return

    async def _send_sound(self, sound: Sound) -> bool:
        if not await self._line.send(Play(self._line.start.stream_sid, sound.payload)):
            return False
        self._replay.sent(sound)
        self._playout.sent(len(sound.payload), self._clock.time(), sound.answer is not None)
        await self._send_mark(self._playout.due_mark())
        return True

    async def _hold(self) -> None:
        """Silence the phone; what it has not played stays here."""
        # As at an interruption: Twilio clears all or nothing.
        if self._sent_interruptible and not self._replay.holding:
            self._replay.hold(self._playout.held(self._clock.time()))
            await self._line.send(Clear(self._line.start.stream_sid))

    async def _go_on(self) -> None:
        """Send what was not played when the phone was held, and then the rest."""
        if not self._replay.holding:
            return
        current = self._playout.current
        marks, sounds = self._replay.take()
        for name in marks:
            await self._send_mark(name)
        for sound in sounds:
            if sound.answer is not None:
                self._playout.begin(sound.answer)
            await self._send_sound(sound)
        self._playout.begin(current)
        self._replay.going.set()

    async def mark_returned(self, name: str) -> None:
        """Take a mark that the phone sent back."""
        if self._last_mark is not None and self._last_mark[0] == name:
            self._last_mark[1].set()
        heard = self._playout.returned(name, self._clock.time())
        if heard is not None:
            await self.push_frame(
                AudioHeardFrame(heard.answer_id, heard.seconds, False, heard.completed),
                FrameDirection.UPSTREAM,
            )

    async def _interrupt(self, frame: InterruptionFrame, direction: FrameDirection) -> None:
        self._interruptions += 1
        if self._rest_interruptible:
            self._rest = b""
        # Until the queue behind has been emptied, which takes a few turns of the event loop.
        self._silenced = True
        try:
            # Twilio clears all or nothing: what must not be interrupted is left to play.
            if self._sent_interruptible:
                await self._silence()
            await super().process_frame(frame, direction)
        finally:
            self._silenced = False

    async def _silence(self) -> None:
        heard = self._playout.cleared(self._clock.time())
        self._resampler = None
        held = self._replay.holding
        self._replay.drop()
        if not held:
            await self._line.send(Clear(self._line.start.stream_sid))
        for answer in heard:
            await self.push_frame(
                AudioHeardFrame(answer.answer_id, answer.seconds, True, False),
                FrameDirection.UPSTREAM,
            )

    def _at_phone_rate(self, frame: OutputAudioRawFrame) -> OutputAudioRawFrame:
        """The frame at 8 kHz, in place of Pipecat's resampler, which holds back 94 ms."""
        if frame.num_channels != 1:
            raise ValueError(
                f"audio for the phone: expected mono, got {frame.num_channels} channels"
            )
        samples = np.frombuffer(frame.audio, dtype=np.int16)
        if isinstance(frame, TTSAudioRawFrame):
            self._playout.feed(frame.context_id, len(samples) / frame.sample_rate)
        tail = b""
        if self._resampler is None or self._resampler.source_rate != frame.sample_rate:
            tail = self._resampler.flush().tobytes() if self._resampler is not None else b""
            self._resampler = Resampler(frame.sample_rate, SAMPLE_RATE)
        resampled = copy.copy(frame)
        resampled.audio = tail + self._resampler.push(samples).tobytes()
        resampled.sample_rate = SAMPLE_RATE
        resampled.num_frames = len(resampled.audio) // 2
        return resampled

    async def _handle_frame(self, frame: Frame) -> None:
        """Queue audio in long frames; Pipecat would cut it into 20 ms, each with its own timer."""
        if isinstance(frame, OutputAudioRawFrame):
            await self._queue_audio(frame)
        else:
            await super()._handle_frame(frame)

    async def _queue_audio(self, frame: OutputAudioRawFrame) -> None:
        audio = self._rest + frame.audio
        interruptible = frame.interruptible and (self._rest_interruptible or not self._rest)
        whole = len(audio) - len(audio) % _FRAME_PCM_BYTES
        self._rest, self._rest_interruptible = audio[whole:], interruptible
        sender = self._media_senders[frame.transport_destination]
        for begin in range(0, whole, _PIECE_BYTES):
            piece = type(frame)(audio[begin : min(begin + _PIECE_BYTES, whole)], SAMPLE_RATE, 1)
            piece.transport_destination = frame.transport_destination
            piece.interruptible = interruptible
            await sender.handle_sync_frame(piece)

    async def _queue_tail(self, kind: type[OutputAudioRawFrame]) -> None:
        """Queue what the resampler and the last frame still hold, filled up with silence."""
        tail = self._resampler.flush().tobytes() if self._resampler is not None else b""
        missing = -(len(self._rest) + len(tail)) % _FRAME_PCM_BYTES
        if tail or self._rest:
            await self._queue_audio(kind(tail + bytes(missing), SAMPLE_RATE, 1))

    async def _send_mark(self, name: str | None) -> None:
        if name is not None:
            await self._line.send(Mark(self._line.start.stream_sid, name))

    async def _let_finish(self) -> None:
        """Wait until the phone has played what was sent, or the line has ended."""
        if not self._playout.anything_sent or self._line.ended.is_set():
            return
        name, returned = self._last_mark = (self._playout.new_name(), asyncio.Event())
        await self._send_mark(name)
        patience = self._playout.lead(self._clock.time()) + self._goodbye_secs
        waits = [
            asyncio.ensure_future(returned.wait()),
            asyncio.ensure_future(self._line.ended.wait()),
            asyncio.ensure_future(self._clock.sleep(patience)),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
