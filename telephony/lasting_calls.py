"""Sessions of calls that outlive their engine, and what their callers hear when it fails."""

from __future__ import annotations

from collections.abc import Iterable

from agent.apology import KeptSentences
from agent.failure import Engine, FailureWords
from agent.failure_settings import FailureSettings
from agent.lasting_session import LastingSession
from telephony.agents import Agent
from telephony.clock import Clock, SystemClock


class LastingCalls:
    """Opens them, with the sentences of each agent's language."""

    def __init__(self, engine: Engine, settings: FailureSettings, clock: Clock | None = None):
        """Be ready.

        Args:
            engine: Where conversations with the model come from.
            settings: When the engine counts as failed, and what is done then.
            clock: Paces the watch over the engine.
        """
        self._engine = engine
        self._settings = settings
        self._clock = clock or SystemClock()
        self._sentences = KeptSentences(engine.session)

    async def keep_sentences(self, agents: Iterable[Agent]) -> None:
        """Have the engine say what callers of these agents hear when it fails."""
        await self._sentences.say(text for agent in agents for text in _texts(agent))

    def open(self, agent: Agent) -> LastingSession:
        """A session for a call of an agent."""
        self._sentences.want(_texts(agent))

        def words() -> FailureWords:
            return FailureWords(*map(self._sentences.get, _texts(agent)))

        return LastingSession(self._engine, words, self._settings, self._clock)

    async def close(self) -> None:
        """Give up what is not for a call."""
        await self._sentences.close()


def _texts(agent: Agent) -> tuple[str, str]:
    return agent.sentences.trouble, agent.sentences.lost
