"""How the gateway answers a call: a session with the model, begun early, and a pipeline."""

from __future__ import annotations

from collections.abc import Callable

from agent.conversation import SpeechSession
from agent.pipeline import SharedModels, greeting_request, run_call
from agent.prepared_session import PreparedSession
from agent.tools.building import build_tools
from agent.tools.tool import Tool
from telephony.agents import Agent, Agents
from telephony.server import PhoneCall
from telephony.transport import PhoneTransport


class Answering:
    """Answers calls with one engine and one set of turn detection models."""

    def __init__(self, open_session: Callable[[], SpeechSession], models: SharedModels):
        """Be ready.

        Args:
            open_session: A new conversation with the model.
            models: The process's turn detection models.
        """
        self._open_session = open_session
        self._models = models
        # By the identity of their declarations, which are kept so that it is theirs alone.
        self._built: dict[int, tuple[object, list[Tool]]] = {}

    def check(self, agents: Agents) -> None:
        """Make the agents' tools.

        Raises:
            ValueError: One cannot be made; names it.
        """
        for name in agents:
            self._tools(agents[name])

    def prepare(self, agent: Agent) -> PreparedSession:
        """Open a call's session and begin its greeting, before the call is there."""
        return PreparedSession(self._open_session(), greeting_request(agent, self._tools(agent)))

    async def answer(self, transport: PhoneTransport, call: PhoneCall) -> None:
        """Run a call to its end."""
        session = call.prepared
        if not isinstance(session, PreparedSession):
            session = self.prepare(call.agent)
        if session.ahead is not None:
            call.observer.event("greeting_ready", ahead=session.ahead)
        await run_call(
            transport,
            session,
            self._models,
            call.agent,
            call.observer,
            self._tools(call.agent),
            call.phone,
            call.ending,
        )

    def _tools(self, agent: Agent) -> list[Tool]:
        declared = agent.tools
        if id(declared) not in self._built:
            self._built[id(declared)] = (declared, build_tools(declared))
        return self._built[id(declared)][1]
