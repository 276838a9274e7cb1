"""Replicas of the voice model as an engine whose sessions can be taken over."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from agent.conversation import SpeechSession
from agent.failure_settings import FailureSettings
from agent.liveness import forgotten, problem
from agent.past import PastTurn
from agent.replica import (
    LANGUAGE_MODEL,
    NO_TOKENS,
    TOKENIZER,
    EngineUnavailable,
    Replica,
    flag,
    string,
)
from agent.speech.request import TurnRequest
from agent.triton import VoiceClient
from agent.voice_session import VoiceSession


class TritonEngine:
    """An :class:`agent.failure.Engine` over the replicas of a client."""

    def __init__(self, client: VoiceClient, settings: FailureSettings):
        """Use a client's replicas.

        Args:
            client: The client.
            settings: How long a replica may take to show a sign of life.
        """
        self._client = client
        self._timeout = settings.probe_timeout
        # Calls that wonder at the same time share the answer.
        self._asking: dict[str, asyncio.Task[str | None]] = {}

    def session(self) -> SpeechSession:
        """A new conversation."""
        return self._client.session()

    async def problem(self, session: SpeechSession, known: bool) -> str | None:
        """Why the replica cannot go on with a session; None where it shows signs of life."""
        url = session.url if isinstance(session, VoiceSession) else None
        found = await self._problem(url or self._client.candidates()[0])
        if found is None and known and url is not None and isinstance(session, VoiceSession):
            found = await forgotten(self._client.replica(url), session.id, self._timeout)
        return found

    async def rebuild(self, turns: Sequence[PastTurn]) -> tuple[SpeechSession, str]:
        """A session that knows what was said before, on the first replica that lives; its URL.

        Raises:
            EngineUnavailable: None does, or it would not take the turns.
        """
        url = await self._living()
        session = self._client.session(url=url)
        try:
            await _recall(self._client.replica(url), session.id, turns, self._client)
        except BaseException:
            self.abandon(session)
            raise
        return session, url

    def abandon(self, session: SpeechSession) -> None:
        """A session's replica has failed: others are tried first, and its end waits for nobody."""
        if isinstance(session, VoiceSession) and session.url is not None:
            self._client.avoid(session.url)
        self._client.in_background(session.close())

    async def _living(self) -> str:
        """The first replica to show that it lives, of those the best."""
        urls = self._client.candidates()
        asking = {asyncio.ensure_future(self._problem(url)): url for url in urls}
        waiting = set(asking)
        problems = []
        while waiting:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=lambda task: urls.index(asking[task])):
                if (found := task.result()) is None:
                    return asking[task]
                problems.append(found)
        raise EngineUnavailable("; ".join(problems))

    async def _problem(self, url: str) -> str | None:
        task = self._asking.get(url)
        if task is None or task.done():
            task = asyncio.create_task(problem(self._client.replica(url), self._timeout))
            self._asking[url] = task
        # Whoever gives up must not end it for the others.
        return await asyncio.shield(task)


async def _recall(
    replica: Replica, session: str, turns: Sequence[PastTurn], client: VoiceClient
) -> None:
    """Tell a replica what was said in a conversation, turn by turn."""
    seconds = client.first_chunk_timeout
    for turn in turns:
        tokens = NO_TOKENS
        if turn.audio is not None:
            said = {
                "SESSION": string(session),
                "AUDIO": turn.samples,
                "END_OF_TURN": flag(True),
                "REQUEST": string(TurnRequest().to_json()),
            }
            tokens = (await replica.infer(TOKENIZER, said, seconds))["TOKENS"]
        known = {
            "SESSION": string(session),
            "TOKENS": tokens,
            "REQUEST": string(turn.request.to_json()),
        }
        await replica.infer_decoupled(LANGUAGE_MODEL, known, seconds)
