"""How the gateway answers a call: a session with the model, begun early, and a pipeline."""

from __future__ import annotations

from collections.abc import Callable

from agent.conversation import SpeechSession
from agent.failure import EngineLost
from agent.lasting_session import LastingSession
from agent.pipeline import SharedModels, greeting_request, run_call
from agent.prepared_session import PreparedSession
from agent.silence import Silence
from telephony.agents import Agent
from telephony.lasting_calls import LastingCalls
from telephony.server import PhoneCall
from telephony.transport import PhoneTransport


class Answering:
    """Answers calls with one engine and one set of turn detection models."""

    def __init__(
        self,
        open_session: Callable[[], SpeechSession],
        models: SharedModels,
        lasting: LastingCalls | None = None,
    ):
        """Be ready.

        Args:
            open_session: A new conversation with the model.
            models: The process's turn detection models.
            lasting: Opens conversations that outlive their engine, in place of the other.
        """
        self._open_session = open_session
        self._models = models
        self._lasting = lasting

    def prepare(self, agent: Agent) -> PreparedSession:
        """Open a call's session and begin its greeting, before the call is there."""
        session = self._open_session() if self._lasting is None else self._lasting.open(agent)
        return PreparedSession(session, greeting_request(agent, agent.toolbox))

    async def answer(self, transport: PhoneTransport, call: PhoneCall) -> None:
        """Run a call to its end.

        Raises:
            EngineLost: The engine has failed and did not come back; the caller has been told.
        """
        session = call.prepared
        if not isinstance(session, PreparedSession):
            session = self.prepare(call.agent)
        if session.ahead is not None:
            call.observer.event("greeting_ready", ahead=session.ahead)
        lasting = session.session if isinstance(session.session, LastingSession) else None
        if lasting is not None:
            lasting.observe(call.observer)
        agent = call.agent
        prompt = agent.turn_taking.silence_prompt or agent.sentences.silence_prompt
        await run_call(
            transport,
            session,
            self._models,
            call.agent,
            call.observer,
            tools=call.agent.toolbox,
            phone=call.phone,
            ending=call.ending,
            notices=call.notices,
            silence=Silence(prompt, call.give_up),
        )
        if lasting is not None and lasting.lost:
            raise EngineLost
