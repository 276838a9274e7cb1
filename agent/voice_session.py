"""One call's conversation with the voice model on one Triton server."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from loguru import logger

from agent.replica import (
    DECODER,
    ENSEMBLE,
    LANGUAGE_MODEL,
    NO_AUDIO,
    NO_TOKENS,
    TOKENIZER,
    EngineUnavailable,
    ResponseStream,
    Tensors,
    flag,
    stop_inputs,
    string,
)
from agent.speech.request import TurnRequest

if TYPE_CHECKING:
    from agent.triton import VoiceClient


@dataclass(frozen=True)
class AnswerChunk:
    """A piece of an answer.

    Attributes:
        sequence: 0 for the first, then one more each.
        text: Text of this piece; may be empty. Text comes before the audio that says it.
        audio: int16 [s] mono at 22.05 kHz; may be empty.
        last: Nothing follows.
        timing: Seconds each step took, as far as known: ``tokenise``, ``first_token`` (the language
            model, from the turn to its first token), ``first_audio`` (the decoder, from the first
            speech tokens to their audio) and of that ``decoder_queue`` (until it began). With the
            last chunk ``carries``: answers that the engine can keep in playback at once.
        tool_call: In the last chunk: the name of the tool that the agent calls, a line break and
            its arguments, which should be a JSON object; empty where none is called.
        tokens: int32 [k], the speech tokens that the audio was made of, as far as known.
    """

    sequence: int
    text: str
    audio: npt.NDArray[np.int16]
    last: bool
    timing: dict[str, float]
    tool_call: str = ""
    tokens: npt.NDArray[np.int32] = field(default_factory=lambda: NO_TOKENS)


@dataclass
class _Turn:
    """What the caller has said since the last turn.

    Attributes:
        audio: Pieces of float32 [n]; kept until the turn is answered, for another replica.
        sent: How many of them the replica has.
        held: Samples in the others.
        broken: Sending some has failed: all of it is sent again when the turn ends.
    """

    audio: list[npt.NDArray[np.float32]] = field(default_factory=list)
    sent: int = 0
    held: int = 0
    broken: bool = False

    def add(self, audio: npt.NDArray[np.float32]) -> None:
        self.audio.append(audio)
        self.held += len(audio)

    def rest(self) -> npt.NDArray[np.float32]:
        """What the replica does not have."""
        pieces = self.audio[self.sent :]
        return np.concatenate(pieces) if pieces else NO_AUDIO

    def mark_sent(self, pieces: int) -> None:
        self.sent = pieces
        self.held = sum(map(len, self.audio[pieces:]))


@dataclass
class _Early:
    """An answer to a turn that may go on.

    Attributes:
        name: Its name once it was asked for, else empty.
        url: Where.
        retracted: The turn went on: it is not wanted any more.
        confirmed: The turn was over before it was asked for.
    """

    name: str = ""
    url: str = ""
    retracted: bool = False
    confirmed: bool = False


@dataclass
class _Running:
    """An answer that is being received."""

    name: str
    url: str
    stream: ResponseStream
    stopped: bool = False
    complete: bool = False


class VoiceSession:
    """One call's conversation with the model.

    Attributes:
        id: Name of the session on the server.
    """

    def __init__(self, client: VoiceClient, session_id: str, url: str | None = None) -> None:
        self.id = session_id
        self._client = client
        self._url: str | None = None
        # Whether the replica has answered: then the history is there and nowhere else.
        self._settled = url is not None
        if url is not None:
            self._url = url
            client.attach(url)
        self._turn = _Turn()
        # Whether the replica's tokenizer may hold audio that belongs to no turn any more.
        self._stale = False
        self._order = asyncio.Lock()
        self._feeder: asyncio.Task[None] | None = None
        self._answers = itertools.count()
        self._running: _Running | None = None
        self._early: _Early | None = None
        # Held while one is taken back: the next answer must find the history without it.
        self._retracting = asyncio.Lock()
        # What the turn will be answered with, as far as it is known.
        self._expected: TurnRequest | None = None
        self._closed = False

    @property
    def url(self) -> str | None:
        """Where its replica is; None before it needs one."""
        return self._url

    def push(self, audio: npt.NDArray[np.float32], expected: TurnRequest | None = None) -> None:
        """Add audio to the caller's turn; it is sent while the caller speaks.

        Args:
            audio: float32 [n] at 16 kHz in [-1, 1].
            expected: With what the turn will be answered, as far as it is known now. The language
                model then reads along, so that less is left to do when the turn ends.

        Raises:
            ValueError: The audio has another shape or dtype.
            RuntimeError: The session is closed.
        """
        if audio.ndim != 1 or audio.dtype != np.float32:
            raise ValueError(f"audio is {audio.dtype} {list(audio.shape)}, expected float32 [n]")
        self._require_open()
        self._expected = expected
        self._turn.add(audio)
        if self._turn.held >= self._client.push_samples and not self._turn.broken:
            self._feed()

    def discard(self) -> None:
        """Forget the audio pushed since the last turn: it was no turn."""
        if self._turn.audio:
            self._turn = _Turn()
            self._stale = True

    def answer(self, request: TurnRequest | None = None) -> AsyncIterator[AnswerChunk]:
        """End the turn and answer it.

        The turn ends when this is called, unless the request is typed: then it goes on. The answer
        runs while it is iterated; giving up the iteration stops it.

        With ``request.early`` the turn may go on. Then :meth:`confirm` says that it has not, and
        :meth:`retract` that it has; audio that is pushed before either belongs to the turn, but the
        answer does not know it.

        Args:
            request: Settings of the turn, or an instruction or words to say instead of the audio.

        Yields:
            The answer, in order; the last chunk has ``last`` set unless :meth:`stop` came before.

        Raises:
            ValueError: No audio was pushed and the request has no instruction and nothing to say.
            EngineUnavailable: No replica answers, a model failed, or a chunk did not come in time.
            RuntimeError: The session is closed.
        """
        self._require_open()
        request = request or TurnRequest()
        turn = _Turn() if request.typed else self._turn
        if not turn.audio and not request.typed:
            raise ValueError("nothing to answer: no audio was pushed and the request says nothing")
        early = _Early() if request.early else None
        if early is None and not request.typed:
            self._turn = _Turn()
        before, self._early = self._early, early
        return self._answer(turn, request, early, before)

    def confirm(self) -> None:
        """The turn was over when it was answered early: the answer counts."""
        early, self._early = self._early, None
        if early is not None and not early.name:
            early.confirmed = True
            self._turn = _Turn()
        else:
            self.discard()

    async def retract(self) -> None:
        """The turn goes on: its early answer ends, and the model forgets it."""
        early, self._early = self._early, None
        if early is not None:
            await self._take_back(early)

    async def _take_back(self, early: _Early) -> None:
        async with self._retracting:
            early.retracted = True
            running = self._running
            if running is not None and running.name == early.name:
                running.stopped = True
                running.stream.cancel()
            if early.name:
                await self._stop_models(early.url, early.name, TurnRequest(retract=True))

    async def transcribe(self) -> str:
        """The caller's words in the last turn that was answered.

        Returns:
            Empty if the turn was not spoken or the checkpoint cannot transcribe.

        Raises:
            EngineUnavailable: The language model failed or did not answer in time.
        """
        if self._url is None:
            return ""
        name = f"{self.id}/{next(self._answers)}"
        inputs = {
            "SESSION": string(self.id),
            "TOKENS": NO_TOKENS,
            "REQUEST": string(TurnRequest(transcribe=True).to_json()),
        }
        stream = self._client.replica(self._url).stream(LANGUAGE_MODEL, inputs, name)
        words = []
        seconds = self._client.request_timeout
        try:
            async with asyncio.timeout(seconds):
                async for outputs in stream:
                    words.append(bytes(outputs["TEXT"][0]).decode("utf-8"))
        except TimeoutError:
            raise EngineUnavailable(
                f"{self._url}: model {LANGUAGE_MODEL}: no transcript within {seconds:g} s"
            ) from None
        finally:
            stream.cancel()
        return "".join(words).strip()

    async def stop(self) -> None:
        """Stop the running answer: its iteration ends, and the model within one step."""
        running = self._running
        if running is None:
            return
        running.stopped = True
        running.stream.cancel()
        await self._stop_models(running.url, running.name)

    async def close(self) -> None:
        """End the call and free its state on the server; idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._feeder is not None:
            self._feeder.cancel()
            await asyncio.gather(self._feeder, return_exceptions=True)
        running = self._running
        if running is not None:
            running.stopped = True
            running.stream.cancel()
        if self._url is None:
            return
        await asyncio.gather(
            self._forget_turn(self._url),
            self._stop_models(self._url, running.name if running else "", TurnRequest(close=True)),
        )
        self._client.detach(self._url)
        self._url = None

    def _require_open(self) -> None:
        if self._closed:
            raise RuntimeError(f"session {self.id} is closed")

    def _feed(self) -> None:
        if self._feeder is None or self._feeder.done():
            self._feeder = asyncio.create_task(self._send_held())

    async def _send_held(self) -> None:
        """Send the turn's audio in order, as long as there is enough of it."""
        async with self._order:
            while self._turn.held >= self._client.push_samples and not self._turn.broken:
                turn = self._turn
                pieces = len(turn.audio)
                try:
                    url = self._attach()
                    await self._forget_stale(url)
                    await self._tokenise(url, turn.rest(), self._reading_along())
                except EngineUnavailable as error:
                    # The answer sends it again and, if that fails as well, says so to its caller.
                    logger.bind(error=str(error)).warning("Audio could not be sent yet")
                    turn.broken = True
                else:
                    turn.mark_sent(pieces)

    def _reading_along(self) -> TurnRequest:
        """What goes with audio of a turn that is not over."""
        return replace(self._expected, listen=True) if self._expected else TurnRequest()

    def _attach(self) -> str:
        if self._url is None:
            self._url = self._client.candidates()[0]
            self._client.attach(self._url)
        return self._url

    async def _forget_stale(self, url: str) -> None:
        if self._stale:
            await self._tokenise(url, NO_AUDIO, TurnRequest(close=True))
            self._stale = False

    async def _tokenise(
        self, url: str, audio: npt.NDArray[np.float32], request: TurnRequest
    ) -> None:
        await self._client.replica(url).infer(
            TOKENIZER, self._turn_inputs(audio, request, end=False), self._client.request_timeout
        )

    def _turn_inputs(
        self, audio: npt.NDArray[np.float32], request: TurnRequest, end: bool
    ) -> Tensors:
        return {
            "SESSION": string(self.id),
            "AUDIO": audio,
            "END_OF_TURN": flag(end),
            "REQUEST": string(request.to_json()),
        }

    async def _answer(
        self, turn: _Turn, request: TurnRequest, early: _Early | None, before: _Early | None
    ) -> AsyncIterator[AnswerChunk]:
        await self.stop()
        if before is not None:
            await self._take_back(before)
        async with self._retracting:
            pass  # what was taken back a moment ago is gone, too
        errors: list[str] = []
        for _ in range(len(self._client.candidates())):
            url = self._attach()
            chunks = self._answer_from(url, turn, request, early)
            try:
                async with contextlib.aclosing(chunks):
                    async for chunk in chunks:
                        self._settled = True
                        yield chunk
                return
            except EngineUnavailable as error:
                errors.append(str(error))
                if self._settled:
                    break
                # Nothing of the conversation is there yet: start it elsewhere.
                self._client.detach(url, failed=True)
                self._url = None
                turn.broken = self._turn.broken = True
        raise EngineUnavailable("; ".join(errors))

    async def _answer_from(
        self, url: str, turn: _Turn, request: TurnRequest, early: _Early | None
    ) -> AsyncGenerator[AnswerChunk, None]:
        client = self._client
        # Until the first chunk the turn may not have reached the tokenizer, and the next turn's
        # audio, if the caller goes on speaking, must not overtake it.
        await self._order.acquire()
        ordered = True
        # Only an answer to what was said ends the tokenizer's turn.
        ends = early is None and not request.typed
        running: _Running | None = None
        try:
            if turn.broken:
                self._stale = True
                turn.mark_sent(0)
            await self._forget_stale(url)
            name = f"{self.id}/{next(self._answers)}"
            audio = turn.rest()
            if early is not None:
                # Sent by itself: a retraction may cancel the request that would bring it.
                pieces = len(turn.audio)
                if audio.size:
                    await self._tokenise(url, audio, self._reading_along())
                    turn.mark_sent(pieces)
                audio = NO_AUDIO
                if early.retracted:
                    return
                if early.confirmed:
                    ends, request = True, replace(request, early=False)
                early.name, early.url = name, url
            if ends:
                self._stale = True
            inputs = self._turn_inputs(audio, request, end=True)
            running = _Running(name, url, client.replica(url).stream(ENSEMBLE, inputs, name))
            self._running = running
            timeout = client.first_chunk_timeout
            while (chunk := await self._next_chunk(running, timeout)) is not None:
                if ordered:
                    if ends:
                        self._stale = False
                    self._order.release()
                    ordered = False
                running.complete = chunk.last
                yield chunk
                if chunk.last:
                    return
                if chunk.audio.size:
                    # Text comes first; on a busy decoder its sound may wait its turn for long.
                    timeout = client.chunk_timeout
        finally:
            if ordered:
                self._order.release()
            if running is not None:
                self._finish(running)

    async def _next_chunk(self, running: _Running, seconds: float) -> AnswerChunk | None:
        """The next chunk; None when the answer was stopped."""
        try:
            async with asyncio.timeout(seconds):
                outputs = await anext(running.stream, None)
        except TimeoutError:
            if running.stopped:
                return None
            raise EngineUnavailable(
                f"{running.url}: model {ENSEMBLE}: no piece of the answer within {seconds:g} s"
            ) from None
        except EngineUnavailable:
            if running.stopped:
                return None
            raise
        if outputs is not None:
            return _chunk(outputs)
        if running.stopped:
            return None
        raise EngineUnavailable(
            f"{running.url}: model {ENSEMBLE}: the answer broke off before its last piece"
        )

    def _finish(self, running: _Running) -> None:
        """What is left to do when an answer is over, however it ended."""
        if self._running is running:
            self._running = None
        if running.complete:
            return
        running.stream.cancel()
        if not running.stopped:
            self._client.in_background(self._stop_models(running.url, running.name))

    async def _stop_models(self, url: str, answer: str, request: TurnRequest | None = None) -> None:
        settings = (request or TurnRequest()).to_json()
        replica, seconds = self._client.replica(url), self._client.request_timeout
        results = await asyncio.gather(
            *(
                replica.infer_decoupled(
                    model, stop_inputs(model, self.id, settings), seconds, answer
                )
                for model in (LANGUAGE_MODEL, DECODER)
            ),
            return_exceptions=True,
        )
        for error in results:
            # The decoder stops an answer that nobody takes, and time to live ends the session.
            if isinstance(error, EngineUnavailable):
                logger.bind(error=str(error)).warning("An answer could not be stopped")
            elif isinstance(error, BaseException):
                raise error

    async def _forget_turn(self, url: str) -> None:
        try:
            await self._tokenise(url, NO_AUDIO, TurnRequest(close=True))
        except EngineUnavailable as error:
            logger.bind(error=str(error)).warning("A turn could not be forgotten")


def _chunk(outputs: Tensors) -> AnswerChunk:
    return AnswerChunk(
        sequence=int(outputs["SEQUENCE"][0]),
        text=bytes(outputs["TEXT"][0]).decode("utf-8"),
        audio=outputs["ANSWER_AUDIO"].astype(np.int16, copy=False),
        last=bool(outputs["LAST"][0]),
        timing=json.loads(bytes(outputs["TIMING"][0])),
        tool_call=bytes(outputs["TOOL_CALL"][0]).decode("utf-8"),
        tokens=outputs["SPEECH_TOKENS"],
    )
