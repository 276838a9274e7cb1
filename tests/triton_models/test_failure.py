"""Processes of a real engine are killed and frozen in the middle of an answer.

One supervised server for the whole module; every test leaves it as it found it.
"""

import asyncio
import os
import signal
import time

import numpy as np
import pytest
import pytest_asyncio

from agent.embedded import EmbeddedServer
from agent.failure import FailureWords, Spoken
from agent.failure_settings import FailureSettings
from agent.lasting_session import LastingSession
from agent.speech import LanguageModel, SpeechTokenizer
from agent.speech.generation import GenerationEngine
from agent.speech.request import TurnRequest
from agent.supervisor import stub_processes, supervised
from agent.triton import VoiceClient
from agent.triton_engine import TritonEngine

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECOND = 16_000
GREEDY = TurnRequest(temperature=0.0, max_new_tokens=50)
WORDS = "one two three four " * 8
LONG = TurnRequest(temperature=0.0, max_new_tokens=400, say=WORDS)
APOLOGY = Spoken("One moment.", np.ones(4410, np.int16))
FAREWELL = Spoken("Goodbye.", np.ones(4410, np.int16))
# Patient: the machine may be busy with something else.
SETTINGS = FailureSettings(probe_timeout=5, recovery_timeout=300, frozen_secs=8)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(checkpoint):
    async with (
        EmbeddedServer(checkpoint=checkpoint) as server,
        supervised(server, SETTINGS.frozen_secs, print),
    ):
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(server):
    client = VoiceClient([server.url], chunk_timeout=60, first_chunk_timeout=60)
    yield TritonEngine(client, SETTINGS)
    await client.close()


@pytest.fixture(scope="module")
def told(checkpoint):
    """The words with which a turn is answered after others, without a server."""
    tokenizer = SpeechTokenizer.from_pretrained(checkpoint / "speech_tokenizer")
    model = LanguageModel.from_pretrained(checkpoint / "language_model")

    def tell(turns, audio, request):
        engine = GenerationEngine(model, lead_limit=10_000)
        for turn in turns:
            tokens = tokenizer.encode([turn.samples])[0] if turn.audio is not None else []
            engine.recall("s", np.asarray(tokens, np.int64), turn.request)
        (tokens,) = tokenizer.encode([audio])
        engine.submit("s", tokens, request)
        pieces = []
        while not pieces or not pieces[-1].last:
            pieces += engine.step()
        return "".join(piece.text for piece in pieces)

    return tell


class Events:
    def __init__(self):
        self.all = []

    def event(self, name, /, **fields):
        self.all.append((name, fields))


async def collect(chunks):
    return "".join([chunk.text async for chunk in chunks])


async def kill_server(server):
    os.killpg(server.pid, signal.SIGKILL)


def harm(name, number):
    async def act(server):
        for pid in stub_processes(server.pid, name):
            os.kill(pid, number)

    return act


async def freeze_server(server):
    os.kill(server.pid, signal.SIGSTOP)


HARMS = {
    "killed language model": harm("voice_lm", signal.SIGKILL),
    "killed decoder": harm("speech_decoder", signal.SIGKILL),
    "frozen language model": harm("voice_lm", signal.SIGSTOP),
    "killed server": kill_server,
    "frozen server": freeze_server,
}


@pytest.mark.parametrize("name", HARMS)
async def test_an_answer_that_breaks_off_begins_anew_and_the_call_goes_on(
    name, server, engine, speech, told
):
    session = LastingSession(engine, lambda: FailureWords(APOLOGY, FAREWELL), SETTINGS)
    events = Events()
    session.observe(events)
    session.push(speech[:SECOND])
    await collect(session.answer(GREEDY))

    said, harmed, quiet, apologised = [], 0.0, 0.0, 0.0
    async for chunk in session.answer(LONG):
        now = time.monotonic()
        if chunk.text == APOLOGY.text:
            apologised = now
        said.append(chunk.text)
        if not harmed:
            quiet = max(quiet, now) + chunk.audio.size / 22_050
        if chunk.audio.size and not harmed:
            await HARMS[name](server)
            harmed = now
        elif harmed and not apologised:
            quiet = max(quiet, now) + chunk.audio.size / 22_050
    assert APOLOGY.text in said
    assert "".join(said).strip().endswith(WORDS.strip())

    # It is known what was said before: in words, in tokens, and in what the caller said.
    turns = list(session._past.turns)
    assert [turn.audio is not None for turn in turns] == [True, False]
    session.push(speech[SECOND : 3 * SECOND])
    words = await collect(session.answer(GREEDY))
    assert words == told(turns, speech[SECOND : 3 * SECOND], GREEDY)
    await session.close()

    failed = events.all[0][1]
    # What dies while it is being brought back is a failure of its own.
    recovered = events.all[-1][1]
    assert {name for name, _ in events.all} == {"engine_failed", "engine_recovered"}
    print(
        f"{name}: apology {apologised - harmed:.2f} s after, silence before it "
        f"{max(0.0, apologised - quiet):.2f} s, recovered {recovered['seconds']:.2f} s; "
        f"{failed['message']}"
    )
    assert recovered["where"] == server.url


async def test_a_model_that_died_between_two_answers_has_lost_no_history(
    server, engine, speech, told
):
    session = LastingSession(engine, lambda: FailureWords(APOLOGY, FAREWELL), SETTINGS)
    session.push(speech[:SECOND])
    await collect(session.answer(GREEDY))
    turns = list(session._past.turns)
    gone = stub_processes(server.pid, "voice_lm")
    os.kill(*gone, signal.SIGKILL)
    async with asyncio.timeout(300):
        while stub_processes(server.pid, "voice_lm") in ([], gone):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        while await engine.problem(session._inner, False):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    session.push(speech[SECOND : 3 * SECOND])
    words = await collect(session.answer(GREEDY))
    assert words.removeprefix(APOLOGY.text) == told(turns, speech[SECOND : 3 * SECOND], GREEDY)
    await session.close()
