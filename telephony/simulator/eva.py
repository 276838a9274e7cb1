"""ServiceNow's EVA calls us: its callers on ``/ws``, a gateway at the other end of a phone line.

EVA's simulated caller speaks a dialect of Media Streams: ``start`` without a stream, ``media``
without numbers or order, ``user_speech_start`` and ``user_speech_stop``, no marks, no clear, and no
sound at all where it has nothing to say. Here a loopback Twilio stands between: it places a signed
call to a gateway and puts EVA's caller on the phone, so that the gateway is measured as it runs.

To run it, admit ``glm_voice`` as a ``framework`` in EVA's ``models/config.py``, and add to
``_get_server_class`` in its ``orchestrator/worker.py``::

    elif framework == "glm_voice":
        from telephony.simulator.eva import assistant_server_class
        return assistant_server_class()

and in the configuration ``framework: glm_voice`` with the model's ``s2s_params``: ``model`` (a
name), ``voice_url`` (the gateway's webhook), ``via`` and ``records`` as for ``glm-voice
simulate``. The auth token comes from the environment. EVA's tools are not offered to the agent.
"""

import asyncio
import contextlib
import importlib
import os
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import WSMsgType, web
from loguru import logger
from numpy.typing import NDArray

from agent.settings import AUTH_TOKEN_VARIABLE
from telephony import mulaw
from telephony.clock import Clock
from telephony.media_streams import FRAME_BYTES, CloseCode, Play, ProtocolError
from telephony.simulator.agent_records import AgentTurn, Event, agent_turns
from telephony.simulator.audible import SAMPLE_RATE, audible_spans
from telephony.simulator.carrier import LoopbackTwilio
from telephony.simulator.clock import UnixClock
from telephony.simulator.record_tail import RecordTail, tail_of_call
from telephony.simulator.target import Target
from telephony.simulator.trace import CallTrace, StreamTrace
from telephony.wire_fields import Fields

CALLER = "+15550100001"
CALLED = "+15550100002"
NOT_WRITTEN_DOWN = "(the agent's model wrote nothing down)"
_SILENCE = bytes([mulaw.SILENCE])
_BACKLOG = 10
"""Frames that may wait. EVA sends silence faster than time passes; speech comes at its pace."""
_RECORD_SECONDS = 5.0
_LOOK_SECONDS = 0.1
_JOIN_MS = 200.0


class EvaCaller:
    """EVA's caller on the phone of the loopback Twilio.

    Attributes:
        keys: Keys that were pressed: EVA presses none.
        spoken: Its utterances, as pairs of first and last sample of the call.
        over: It has hung up.
    """

    def __init__(self, call: CallTrace, send: Callable[[bytes], None]) -> None:
        """Put a caller on a call.

        Args:
            call: From the loopback Twilio.
            send: Is handed what the phone plays, 20 ms of mu-law at a time, and nothing for what
                is silent because nothing came.
        """
        self.keys: deque[str] = deque()
        self.spoken: list[tuple[int, int]] = []
        self.over = False
        self._call = call
        self._send = send
        self._waiting: deque[bytes | bool] = deque()
        self._part = b""
        self._began: int | None = None
        self._position = 0

    def hear_of(self, sound: bytes) -> None:
        """Take mu-law from EVA, of any length."""
        self._part += sound
        while len(self._part) >= FRAME_BYTES:
            frame, self._part = self._part[:FRAME_BYTES], self._part[FRAME_BYTES:]
            if len(self._waiting) < _BACKLOG or frame.strip(_SILENCE):
                self._waiting.append(frame)

    def speaks(self, begins: bool) -> None:
        """EVA says that the caller begins or ends an utterance, in the order of its sound."""
        self._waiting.append(begins)

    def tick(self, heard: NDArray[np.int16]) -> NDArray[np.int16] | None:
        """Live through 20 ms: int16 [160] heard, int16 [160] said; None: it has hung up."""
        stream = self._call.stream
        # What was heard a tick ago is in the trace by now, and whether it came from the server.
        if stream is not None and stream.fed and stream.fed[-1]:
            self._send(mulaw.encode(stream.agent[-1]))
        if self.over:
            self._mark(False)
            return None
        while self._waiting and isinstance(self._waiting[0], bool):
            self._mark(bool(self._waiting.popleft()))
        frame = self._waiting.popleft() if self._waiting else _SILENCE * FRAME_BYTES
        assert isinstance(frame, bytes)
        self._position += FRAME_BYTES
        return mulaw.decode(frame)

    def _mark(self, begins: bool) -> None:
        if begins and self._began is None:
            self._began = self._position
        elif not begins and self._began is not None:
            self.spoken.append((self._began, self._position))
            self._began = None


@dataclass(frozen=True)
class Conversation:
    """A call that is over.

    Attributes:
        call: What the loopback Twilio saw.
        spoken: The caller's utterances, as pairs of first and last sample.
        events: The gateway's record, empty where it cannot be read.
    """

    call: CallTrace
    spoken: Sequence[tuple[int, int]]
    events: Sequence[Event]

    def latencies(self) -> list[float]:
        """Seconds from the end of each utterance to the answer's first audible sample."""
        stream = self.call.stream
        if stream is None:
            return []
        agent = audible_spans(stream.agent_audio, _JOIN_MS)
        found = []
        for index, (begin, end) in enumerate(self.spoken):
            until = self.spoken[index + 1][0] if index + 1 < len(self.spoken) else None
            own = audible_spans(stream.caller_audio[begin:end])
            end = begin + own[-1][1] if own else end
            later = [s for s, _ in agent if s >= end and (until is None or s < until)]
            if later:
                found.append((later[0] - end) / SAMPLE_RATE)
        return found


class EvaBridge:
    """Takes EVA's sockets and places one call for each."""

    def __init__(
        self,
        target: Target,
        finished: Callable[[Conversation], Awaitable[None]],
        *,
        records: str | Path | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Prepare to call a gateway.

        Args:
            target: The gateway.
            finished: Is handed each call when it is over.
            records: Where the gateway's records are, if they can be read from here; as for
                ``run_scenario``.
            clock: Paces the calls; the machine's own if not given.
        """
        self._target = target
        self._finished = finished
        self._records = records
        self._clock = clock or UnixClock()
        self._callers: set[EvaCaller] = set()

    def app(self) -> web.Application:
        """An application with EVA's two addresses, ``/ws`` and ``/``."""
        app = web.Application()
        app.add_routes([web.get("/ws", self._answer), web.get("/", self._answer)])
        app.on_shutdown.append(self._hang_up)
        return app

    async def _hang_up(self, app: web.Application) -> None:
        for caller in self._callers:
            caller.over = True

    async def _answer(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        async with LoopbackTwilio(self._target, self._clock) as twilio:
            call = twilio.new_call()
            outbox: asyncio.Queue[bytes] = asyncio.Queue()
            caller = EvaCaller(call, outbox.put_nowait)
            self._callers.add(caller)
            tasks = (
                asyncio.create_task(self._listen(socket, caller)),
                asyncio.create_task(_send(socket, call, outbox)),
            )
            try:
                await twilio.place(call, caller, CALLER, CALLED)
            finally:
                self._callers.discard(caller)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                events = await self._events(call)
                await self._finished(Conversation(call, tuple(caller.spoken), events))
        if call.stream is None:
            reason = "; ".join(error.detail for error in call.errors) or str(call.cause)
            logger.bind(cause=call.cause, reason=reason).error("No call for EVA")
            await socket.close(code=CloseCode.INTERNAL_ERROR, message=reason.encode()[:120])
        await socket.close()
        return socket

    async def _listen(self, socket: web.WebSocketResponse, caller: EvaCaller) -> None:
        try:
            async for message in socket:
                if message.type is not WSMsgType.TEXT:
                    break
                fields = Fields.of_message(message.data)
                match fields.text("event"):
                    case "media":
                        caller.hear_of(fields.inner("media").payload("payload"))
                    case "user_speech_start":
                        caller.speaks(True)
                    case "user_speech_stop":
                        caller.speaks(False)
                    case "stop":
                        break
        except ProtocolError as error:
            logger.bind(reason=error.reason).error("EVA sent what cannot be read")
        finally:
            caller.over = True

    async def _events(self, call: CallTrace) -> list[Event]:
        """The gateway's record, once it is complete or some seconds have passed."""
        if self._records is None or call.stream is None:
            return []
        with contextlib.closing(tail_of_call(self._records, call.call_sid)) as tail:
            return await self._read_to_end(tail)

    async def _read_to_end(self, tail: RecordTail) -> list[Event]:
        deadline = self._clock.time() + _RECORD_SECONDS
        while True:
            tail.read()
            if any(event.name == "call_ended" for event in tail.events):
                return tail.events
            if self._clock.time() >= deadline:
                return tail.events
            await self._clock.sleep(_LOOK_SECONDS)


async def _send(
    socket: web.WebSocketResponse, call: CallTrace, outbox: asyncio.Queue[bytes]
) -> None:
    while True:
        sound = await outbox.get()
        sid = call.stream.stream_sid if call.stream is not None else call.call_sid
        try:
            await socket.send_str(Play(sid, sound).to_json())
        except ConnectionError:
            return


class GLMVoiceAssistant:
    """The parts of EVA's assistant server that are ours; EVA's base class brings the rest."""

    def __init__(self, **kwargs: Any) -> None:
        """Take EVA's arguments; see its ``docs/assistant_server_contract.md``.

        Raises:
            ValueError: ``s2s_params`` lacks the gateway's address, or there is no auth token.
        """
        super().__init__(**kwargs)
        base: Any = self
        parameters = base.pipeline_config.s2s_params or {}
        if not parameters.get("voice_url"):
            raise ValueError("s2s_params.voice_url: expected the address of a voice webhook")
        base._audio_sample_rate = SAMPLE_RATE
        self._model = str(parameters.get("model", "glm-4-voice"))
        self._runner: web.AppRunner | None = None
        self._bridge = EvaBridge(
            Target(
                str(parameters["voice_url"]),
                os.environ.get(AUTH_TOKEN_VARIABLE, ""),
                via=parameters.get("via"),
            ),
            self._take,
            records=parameters.get("records"),
        )

    async def start(self) -> None:
        """Listen on EVA's port; returns when callers may come."""
        base: Any = self
        logs = importlib.import_module("eva.assistant.pipeline.observers")
        base.output_dir.mkdir(parents=True, exist_ok=True)
        base._fw_log = logs.FrameworkLogWriter(base.output_dir)
        base._metrics_log = logs.MetricsLogWriter(base.output_dir)
        self._runner = web.AppRunner(self._bridge.app(), access_log=None, handle_signals=False)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", base.port).start()
        base._running = True

    async def _shutdown(self) -> None:
        """End the call that may still run, and stop listening."""
        base: Any = self
        base._running = False
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _take(self, conversation: Conversation) -> None:
        """Write a call down as EVA reads it."""
        stream = conversation.call.stream
        if stream is None:
            return
        base: Any = self
        base.user_audio_buffer.extend(stream.caller_audio.astype("<i2").tobytes())
        base.assistant_audio_buffer.extend(stream.agent_audio.astype("<i2").tobytes())
        for seconds in conversation.latencies():
            if 0 < seconds < 30:
                base._metrics_log.write_latency("model_response", seconds, self._model)
        for at, write in _entries(base, stream, conversation):
            write(round(at * 1000))


def _entries(
    base: Any, stream: StreamTrace, conversation: Conversation
) -> list[tuple[float, Callable[[int], None]]]:
    """What is written down, each with its Unix time, in the order in which it was said."""
    turns = agent_turns(conversation.events)
    entries: list[tuple[float, Callable[[int], None]]] = []
    for begin, end in conversation.spoken:
        at, until = stream.wall(begin), stream.wall(end)
        words = [
            turn.caller for turn in turns if turn.caller and at <= turn.started_at <= until + 5
        ]
        text = words[0] if words else NOT_WRITTEN_DOWN

        def user(milliseconds: int, text: str = text) -> None:
            base.audit_log.append_user_input(text, timestamp_ms=str(milliseconds))

        entries.append((at, user))
    for turn in turns:

        def assistant(milliseconds: int, turn: AgentTurn = turn) -> None:
            cut = turn.interrupted_at is not None
            said = (turn.heard_text or "") if cut else turn.text
            base._fw_log.turn_start(timestamp_ms=milliseconds)
            if cut:
                base._fw_log.s2s_transcript(said, timestamp_ms=milliseconds)
            else:
                base._fw_log.llm_response(said, timestamp_ms=milliseconds)
            base._fw_log.turn_end(was_interrupted=cut, timestamp_ms=milliseconds)
            base.audit_log.append_assistant_output(said, timestamp_ms=str(milliseconds))

        if turn.text:
            entries.append((turn.first_audio_at or turn.started_at, assistant))
    return sorted(entries, key=lambda entry: entry[0])


def assistant_server_class() -> type[Any]:
    """The class that EVA's orchestrator makes one of for each conversation.

    Raises:
        ModuleNotFoundError: EVA is not installed here.
    """
    base = importlib.import_module("eva.assistant.base_server").AbstractAssistantServer
    return type("GLMVoiceAssistantServer", (GLMVoiceAssistant, base), {})
