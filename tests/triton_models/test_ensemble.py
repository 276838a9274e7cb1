"""The model repository in a real tritonserver, with the golden checkpoints.

One server for the whole module. Its decoder takes 2 Euler steps instead of 10: what is tested here
does not depend on how good the mel is.
"""

import asyncio
import os
import re
import signal
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
import torch
import tritonclient.grpc.aio as grpcclient

from agent.embedded import EmbeddedServer
from agent.replica import EngineUnavailable, Replica, flag, string
from agent.serving.parameters import ModelParameters
from agent.speech import LanguageModel, SpeechDecoder, SpeechTokenizer
from agent.speech.generation import GenerationEngine
from agent.speech.request import TurnRequest
from agent.supervisor import stub_processes
from agent.triton import VoiceClient

pytestmark = pytest.mark.asyncio(loop_scope="module")

GREEDY = TurnRequest(temperature=0.0, max_new_tokens=50)
# Many speech tokens, whatever the random weights would say.
LONG = TurnRequest(temperature=0.0, max_new_tokens=1000, say="one two three four " * 15)
LEAD_LIMIT = 40


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(checkpoint):
    environment = {"GLM_MODEL_LEAD_LIMIT": str(LEAD_LIMIT)}
    async with EmbeddedServer(checkpoint=checkpoint, environment=environment) as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(server):
    # Patient: the machine may be busy with something else.
    client = VoiceClient([server.url], chunk_timeout=60.0, first_chunk_timeout=60.0)
    yield client
    await client.close()


@pytest_asyncio.fixture(loop_scope="module")
async def replica(server):
    replica = Replica(server.url)
    yield replica
    await replica.close()


@pytest.fixture(scope="module")
def expected(checkpoint) -> Callable[[np.ndarray, TurnRequest], tuple[str, np.ndarray]]:
    """Text and audio of a session's first answer, computed here without a server."""
    tokenizer = SpeechTokenizer.from_pretrained(checkpoint / "speech_tokenizer")
    model = LanguageModel.from_pretrained(checkpoint / "language_model")
    decoder = SpeechDecoder.from_pretrained(checkpoint / "speech_decoder")

    def compute(audio, request):
        (tokens,) = tokenizer.encode([audio])
        engine = GenerationEngine(model, lead_limit=10_000)
        engine.submit("s", tokens, request)
        pieces = []
        while not pieces or not pieces[-1].last:
            pieces += engine.step()
        sound = decoder.stream()
        audio = [sound.push(torch.from_numpy(p.speech_tokens), p.last) for p in pieces]
        return "".join(p.text for p in pieces), torch.cat(audio).numpy()

    return compute


async def collect(session, request):
    return [chunk async for chunk in session.answer(request)]


def joined(chunks) -> np.ndarray:
    return np.concatenate([chunk.audio for chunk in chunks])


def sessions_held(server, model: str) -> int:
    with urllib.request.urlopen(server.metrics_url) as response:
        found = re.search(
            rf'^glm_voice_sessions{{model="{model}"}} (\d+)', response.read().decode(), re.M
        )
    return int(found[1])


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(120):
        while not await condition():  # noqa: ASYNC110 (the event is in another process)
            await asyncio.sleep(0.02)


async def held(server, model: str, count: int) -> None:
    async def reached() -> bool:
        return await asyncio.to_thread(sessions_held, server, model) == count

    await until(reached)


def lm_inputs(session: str, request: TurnRequest, stop: bool = False) -> dict:
    return {
        "SESSION": string(session),
        "TOKENS": np.zeros(0, dtype=np.int32),
        "REQUEST": string(request.to_json()),
        "STOP": flag(stop),
    }


def turn_inputs(session: str, request: str, audio: np.ndarray | None = None) -> dict:
    return {
        "SESSION": string(session),
        "AUDIO": np.zeros(0, dtype=np.float32) if audio is None else audio,
        "END_OF_TURN": flag(True),
        "REQUEST": string(request),
    }


async def test_the_server_is_ready(client):
    await client.ready()


async def test_an_answer_is_what_the_models_say_without_a_server(client, speech, expected):
    session = client.session()
    for start in range(0, len(speech), 320):
        session.push(speech[start : start + 320])
        if start % 16_000 == 0:
            await asyncio.sleep(0)
    chunks = await collect(session, GREEDY)
    text, audio = expected(speech, GREEDY)
    assert [chunk.sequence for chunk in chunks] == list(range(len(chunks)))
    assert [chunk.last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert "".join(chunk.text for chunk in chunks) == text
    assert len(joined(chunks)) == len(audio)
    assert np.abs(joined(chunks) / 32767 - audio).max() < 1e-3
    # Text leads the speech that says it.
    first_text = next(i for i, chunk in enumerate(chunks) if chunk.text)
    first_audio = next(i for i, chunk in enumerate(chunks) if len(chunk.audio))
    assert first_text < first_audio
    assert set(chunks[-1].timing) == {
        "tokenise",
        "first_token",
        "decoder_queue",
        "first_audio",
        "carries",
    }
    await session.close()


async def test_four_calls_at_once_each_get_their_own_whole_answer(client, speech, expected):
    turns = [speech[: 16_000 * seconds] for seconds in (1, 2, 3, 4)]
    sessions = [client.session() for _ in turns]
    for session, turn in zip(sessions, turns, strict=True):
        session.push(turn)
    answers = await asyncio.gather(*(collect(session, GREEDY) for session in sessions))
    for turn, chunks in zip(turns, answers, strict=True):
        text, audio = expected(turn, GREEDY)
        assert "".join(chunk.text for chunk in chunks) == text
        assert len(joined(chunks)) == len(audio)
        assert np.abs(joined(chunks) / 32767 - audio).max() < 1e-3
    await asyncio.gather(*(session.close() for session in sessions))


async def test_a_second_turn_knows_the_first(client, speech, expected):
    session = client.session()
    session.push(speech[:16_000])
    await collect(session, GREEDY)
    session.push(speech[:16_000])
    again = "".join(chunk.text for chunk in await collect(session, GREEDY))
    assert again != expected(speech[:16_000], GREEDY)[0]
    await session.close()


async def test_stop_ends_a_long_answer_early_and_the_call_goes_on(client, server):
    session = client.session()
    received = []
    async for chunk in session.answer(LONG):
        received.append(chunk)
        if len(chunk.audio):
            await session.stop()
    assert not received[-1].last
    await held(server, "speech_decoder", 0)
    chunks = await collect(session, TurnRequest(temperature=0.0, max_new_tokens=60, say="yes"))
    assert chunks[0].text == "yes"
    assert chunks[-1].last
    await session.close()


async def test_the_language_model_waits_for_the_decoder_and_stops_within_a_step(replica):
    """The lead limit, seen from outside: nothing is decoded unless this test says so."""

    async def speech_tokens(stream, wanted: int) -> int:
        count = 0
        while count < wanted:
            count += len((await anext(stream))["SPEECH_TOKENS"])
        return count

    fast = replica.stream("voice_lm", lm_inputs("fast", LONG), "fast/0")
    assert await speech_tokens(fast, LEAD_LIMIT) == LEAD_LIMIT
    # Enough steps for the first answer to go on, if it could.
    other = replica.stream("voice_lm", lm_inputs("other", LONG), "other/0")
    assert await speech_tokens(other, LEAD_LIMIT) == LEAD_LIMIT
    credit = lm_inputs("fast", TurnRequest(decoded=10))
    await replica.infer_decoupled("voice_lm", credit, 60.0, "fast/0")
    more = [await speech_tokens(fast, 10)]
    for name in ("fast", "other"):
        stop = lm_inputs(name, TurnRequest(close=True), stop=True)
        await replica.infer_decoupled("voice_lm", stop, 60.0, f"{name}/0")
    rest = [outputs async for outputs in fast]
    more += [len(outputs["SPEECH_TOKENS"]) for outputs in rest]
    assert sum(more) == 10
    assert rest[-1]["LAST"][0]
    assert [outputs async for outputs in other][-1]["LAST"][0]


async def test_a_client_that_vanishes_stops_the_language_model(replica, server):
    statistics = grpcclient.InferenceServerClient(server.url)

    async def pieces() -> int:
        found = await statistics.get_inference_statistics("speech_decoder", as_json=True)
        return int(found["model_stats"][0].get("inference_count", 0))

    before = await pieces()
    stream = replica.stream("glm_voice", turn_inputs("gone", LONG.to_json()), "gone/0")
    while not len((await anext(stream))["ANSWER_AUDIO"]):
        pass
    stream.cancel()  # no STOP, as when a gateway is killed
    await held(server, "speech_decoder", 0)
    # The whole answer has over fifty pieces; the lead limit allows for a few.
    assert await pieces() - before < 25
    await statistics.close()
    await replica.infer_decoupled(
        "voice_lm", lm_inputs("gone", TurnRequest(close=True), stop=True), 60.0
    )


async def test_the_language_model_reads_along_and_answers_the_same(
    client, server, speech, expected
):
    session = client.session()
    session.push(speech[:72_000], GREEDY)  # more than a block of 4 s
    await held(server, "voice_lm", 1)
    session.push(speech[72_000:], GREEDY)
    chunks = await collect(session, GREEDY)
    text, audio = expected(speech, GREEDY)
    assert "".join(chunk.text for chunk in chunks) == text
    assert len(joined(chunks)) == len(audio)
    await session.close()
    await held(server, "voice_lm", 0)


async def test_an_early_answer_is_taken_back_whole(client, server, speech, expected):
    """A caller who pauses and goes on is answered as one who never paused."""
    session = client.session()
    session.push(speech[:40_000])
    early = session.answer(replace(LONG, early=True))
    while not len((await anext(early)).audio):
        pass
    await session.retract()
    assert not [chunk async for chunk in early]
    await held(server, "speech_decoder", 0)
    session.push(speech[40_000:])
    chunks = await collect(session, GREEDY)
    text, audio = expected(speech, GREEDY)
    assert "".join(chunk.text for chunk in chunks) == text
    assert np.abs(joined(chunks) / 32767 - audio).max() < 1e-3
    await session.close()


async def test_an_early_answer_counts_once_confirmed(client, speech, expected):
    session = client.session()
    session.push(speech[:16_000])
    early = session.answer(replace(GREEDY, early=True))
    first = await anext(early)
    session.push(speech[16_000:20_000])  # the silence that ended the turn
    session.confirm()
    text = first.text + "".join([chunk.text async for chunk in early])
    assert text == expected(speech[:16_000], GREEDY)[0]
    session.push(speech[:16_000])
    again = "".join(chunk.text for chunk in await collect(session, GREEDY))
    other = client.session()
    for _ in range(2):
        other.push(speech[:16_000])
        plain = "".join(chunk.text for chunk in await collect(other, GREEDY))
    assert again == plain
    await session.close()
    await other.close()


async def test_a_tool_call_passes_the_decoder_with_the_last_piece(client, replica, speech):
    piece = {
        "SESSION": string("calls"),
        "SPEECH_TOKENS": np.array([1, 2, 3], dtype=np.int32),
        "TEXT": string(""),
        "SEQUENCE": np.zeros(1, dtype=np.int32),
        "LAST": flag(True),
        "TOOL_CALL": string('look_up\n{"doctor": "Smith"}'),
    }
    outputs = await replica.infer_decoupled("speech_decoder", piece, 60.0, "calls/0")
    assert bytes(outputs["TOOL_CALL"][0]) == b'look_up\n{"doctor": "Smith"}'
    assert len(outputs["AUDIO"])
    session = client.session()
    session.push(speech[:16_000])
    assert {chunk.tool_call for chunk in await collect(session, GREEDY)} == {""}
    await session.close()


async def test_what_is_said_aside_and_taken_back_changes_no_answer(client, speech):
    """A filler between a call and its result: the model answers as if it had not been."""
    answers = []
    for aside in (False, True):
        session = client.session()
        session.push(speech[:16_000])
        await collect(session, GREEDY)
        if aside:
            said = TurnRequest(temperature=0.0, max_new_tokens=60, say="one moment", early=True)
            filler = await collect(session, said)
            assert "".join(chunk.text for chunk in filler) == "one moment"
            assert len(joined(filler))
            await session.retract()
        answers.append(
            "".join(c.text for c in await collect(session, replace(GREEDY, result="Monday")))
        )
        session.push(speech[16_000:32_000])
        answers[-1] += "".join(
            c.text for c in await collect(session, replace(GREEDY, result_before="booked"))
        )
        await session.close()
    assert answers[0] == answers[1]
    assert answers[0]


async def test_a_checkpoint_that_cannot_transcribe_says_nothing(client, speech):
    session = client.session()
    session.push(speech[:16_000])
    await collect(session, GREEDY)
    assert await session.transcribe() == ""
    await session.close()


async def test_close_frees_what_every_model_holds(client, server, speech):
    session = client.session()
    session.push(speech[:16_000])
    await held(server, "speech_tokenizer", 1)
    await collect(session, GREEDY)
    assert await asyncio.to_thread(sessions_held, server, "voice_lm") == 1
    session.push(speech[:16_000])
    await held(server, "speech_tokenizer", 1)
    await session.close()
    for model in ("speech_tokenizer", "voice_lm", "speech_decoder"):
        await held(server, model, 0)


@pytest.mark.parametrize(
    ("request_json", "message"),
    [
        ('{"temperature": -1}', "request field 'temperature' is -1"),
        ('{"temprature": 1}', "request field 'temprature' is unknown"),
        ("{", "request is not JSON"),
        ("{}", "an empty turn"),
    ],
)
async def test_a_bad_request_is_an_error_that_names_the_field(replica, request_json, message):
    stream = replica.stream("glm_voice", turn_inputs("bad", request_json))
    with pytest.raises(EngineUnavailable, match=f"model glm_voice: .*{message}"):
        await anext(stream)


async def test_an_error_of_one_call_is_no_other_calls_error(client, replica, speech, expected):
    session = client.session()
    session.push(speech[:16_000])
    running = asyncio.create_task(collect(session, GREEDY))
    bad = speech[:100].copy()
    bad[7] = np.nan
    with pytest.raises(EngineUnavailable, match="speech_tokenizer: samples"):
        await anext(replica.stream("glm_voice", turn_inputs("bad", "", bad)))
    piece = {
        "SESSION": string("bad"),
        "SPEECH_TOKENS": np.array([99_999], dtype=np.int32),
        "TEXT": string(""),
        "SEQUENCE": np.zeros(1, dtype=np.int32),
        "LAST": flag(True),
    }
    with pytest.raises(EngineUnavailable, match="speech_decoder: tokens holds 99999"):
        await replica.infer_decoupled("speech_decoder", piece, 60.0)
    assert "".join(c.text for c in await running) == expected(speech[:16_000], GREEDY)[0]
    await session.close()


async def test_a_request_without_a_session_is_refused(replica):
    with pytest.raises(EngineUnavailable, match="speech_tokenizer: input SESSION is empty"):
        await anext(replica.stream("glm_voice", turn_inputs("", "{}")))


async def test_the_configs_name_known_parameters():
    repository = Path(__file__).parents[2] / "triton_models"
    pattern = re.compile(r'parameters { key: "(\w+)" value { string_value: "(.*)" } }')
    configs = sorted(repository.glob("*/config.pbtxt"))
    assert len(configs) == 4
    for config in configs:
        found = {key: {"string_value": value} for key, value in pattern.findall(config.read_text())}
        ModelParameters.read({"name": config.parent.name, "parameters": found}, {})


async def test_ready_notices_a_killed_model_though_triton_stays_well(client, server):
    """The last test of the module: the model stays dead."""
    os.kill(stub_processes(server.pid, "speech_decoder")[0], signal.SIGKILL)
    health = grpcclient.InferenceServerClient(server.url)
    assert await health.is_server_ready()
    assert await health.is_model_ready("speech_decoder")
    await health.close()
    with pytest.raises(EngineUnavailable, match=f"{server.url}: model speech_decoder: "):
        await client.ready()
