"""VoiceClient and VoiceSession against replicas that answer from a script."""

import asyncio
import json
import socket

import numpy as np
import pytest

from agent.replica import EngineUnavailable, Replica
from agent.speech.request import TurnRequest
from agent.triton import VoiceClient

SECOND = 16_000


def outputs(sequence: int, last: bool, text: str = "", samples: int = 4) -> dict:
    return {
        "ANSWER_SESSION": np.array([b"s"], dtype=object),
        "ANSWER_AUDIO": np.full(samples, sequence, dtype=np.int16),
        "SPEECH_TOKENS": np.full(samples // 4, sequence, dtype=np.int32),
        "TEXT": np.array([text.encode()], dtype=object),
        "SEQUENCE": np.array([sequence], dtype=np.int32),
        "LAST": np.array([last]),
        "TIMING": np.array([b'{"tokenise": 0.25}'], dtype=object),
        "TOOL_CALL": np.array([b"look_up\n{}" if last else b""], dtype=object),
    }


class FakeStream:
    """Gives what the replica's script holds; None in a script is silence until cancelled."""

    def __init__(self, script):
        self.script = list(script)
        self.cancelled = asyncio.Event()

    def __aiter__(self):
        return self

    async def __anext__(self):
        await asyncio.sleep(0)
        if self.cancelled.is_set() or not self.script:
            raise StopAsyncIteration
        item = self.script.pop(0)
        if item is None:
            await self.cancelled.wait()
            raise StopAsyncIteration
        if isinstance(item, Exception):
            raise item
        return item

    def cancel(self):
        self.cancelled.set()


class FakeReplica:
    """Records what it is asked; `script` is every answer's, `dead` names models that fail."""

    def __init__(self, url):
        self.url = url
        self.log: list[tuple] = []
        self.script: list = [outputs(0, False, "hello"), outputs(1, True)]
        self.dead: set[str] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.closed = False
        self.timing: dict = {}
        self.hushed: list[str] = []
        self.heard: list[dict] = []

    def _check(self, model):
        if model in self.dead:
            raise EngineUnavailable(f"{self.url}: model {model}: it is dead")

    async def infer(self, model, inputs, seconds, request_id=""):
        await self.gate.wait()
        self._check(model)
        request = json.loads(inputs["REQUEST"][0])
        self.log.append(("close",) if request.get("close") else ("audio", len(inputs["AUDIO"])))
        self.heard.append(request)
        return {}

    async def infer_decoupled(self, model, inputs, seconds, request_id=""):
        self._check(model)
        if model == "voice_lm" and "STOP" in inputs:
            request = json.loads(inputs["REQUEST"][0])
            kind = (
                "end" if request.get("close") else "retract" if request.get("retract") else "stop"
            )
            self.log.append((kind, request_id))
        elif "STOP" in inputs:
            self.hushed.append(request_id)
        return {"TIMING": np.array([json.dumps(self.timing).encode()], dtype=object)}

    def stream(self, model, inputs, request_id=""):
        request = json.loads(inputs["REQUEST"][0])
        samples = len(inputs.get("AUDIO", ()))
        self.log.append(
            ("words" if request.get("transcribe") else "turn", samples, request_id, request)
        )
        if model in self.dead:
            return FakeStream([EngineUnavailable(f"{self.url}: model {model}: it is dead")])
        return FakeStream(self.script)

    async def require_model(self, model, seconds):
        self._check(model)

    async def close(self):
        self.closed = True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def replicas():
    return {}


@pytest.fixture
def make(replicas):
    def make(*urls, **settings):
        def connect(url):
            return replicas.setdefault(url, FakeReplica(url))

        for url in urls or ("one:1",):
            connect(url)
        return VoiceClient(urls or ("one:1",), connect=connect, **settings)

    return make


def audio(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * SECOND), dtype=np.float32)


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


async def collect(session, request=None):
    return [chunk async for chunk in session.answer(request)]


HELLO = TurnRequest(instruction="Say hello.")


async def test_an_answer_comes_as_chunks_in_order(make):
    chunks = await collect(make().session(), HELLO)
    assert [(c.sequence, c.text, c.last) for c in chunks] == [(0, "hello", False), (1, "", True)]
    assert chunks[1].audio.dtype == np.int16
    assert chunks[0].timing == {"tokenise": 0.25}
    assert [c.tool_call for c in chunks] == ["", "look_up\n{}"]


async def test_audio_is_sent_while_the_caller_speaks_and_the_rest_with_the_turn(make, replicas):
    session = make(push_seconds=0.2).session("s")
    for _ in range(25):  # half a second in frames of 20 ms
        session.push(audio(0.02))
        await settle()
    await collect(session)
    log = replicas["one:1"].log
    assert log[:2] == [("audio", 3200), ("audio", 3200)]
    assert log[2][:2] == ("turn", 1600)


async def test_push_does_not_wait_and_keeps_the_order(make, replicas):
    session = make().session("s")
    replicas["one:1"].gate.clear()
    for seconds in (0.2, 0.3, 0.1):
        session.push(audio(seconds))
    await settle()
    session.push(audio(0.25))
    replicas["one:1"].gate.set()
    await collect(session)
    sent = [entry[1] for entry in replicas["one:1"].log]
    assert sum(sent) == round(0.85 * SECOND)
    assert replicas["one:1"].log[-1][0] == "turn"


async def test_audio_of_the_next_turn_does_not_overtake_the_end_of_this_one(make, replicas):
    replica_script = [None]
    session = make().session("s")
    replicas["one:1"].script = replica_script
    session.push(audio(0.1))
    running = asyncio.create_task(collect(session))
    await settle()
    session.push(audio(1.0))
    await settle()
    assert [entry[0] for entry in replicas["one:1"].log] == ["turn"]
    await session.stop()
    assert await running == []
    await settle()
    # Nobody knows whether the stopped turn reached the tokenizer: it is told to forget.
    assert replicas["one:1"].log[-2:] == [("close",), ("audio", SECOND)]


async def test_discarded_audio_is_part_of_no_turn(make, replicas):
    session = make().session("s")
    session.push(audio(1.0))
    await settle()
    session.discard()
    session.push(audio(0.5))
    await collect(session)
    assert [entry[:2] for entry in replicas["one:1"].log] == [
        ("audio", SECOND),
        ("close",),
        ("turn", SECOND // 2),
    ]


async def test_a_turn_without_anything_to_answer_is_refused(make):
    session = make().session()
    with pytest.raises(ValueError, match="nothing to answer"):
        session.answer()
    session.push(audio(1.0))
    session.discard()
    with pytest.raises(ValueError, match="nothing to answer"):
        session.answer()


@pytest.mark.parametrize("bad", [np.zeros(4), np.zeros((2, 2), dtype=np.float32)])
async def test_audio_of_another_kind_is_refused(make, bad):
    with pytest.raises(ValueError, match=r"expected float32 \[n\]"):
        make().session().push(bad)


async def test_stop_ends_the_iteration_and_names_the_answer_to_the_model(make, replicas):
    session = make().session("s")
    replicas["one:1"].script = [outputs(0, False), None]
    answer = session.answer(HELLO)
    assert (await anext(answer)).sequence == 0
    await session.stop()
    assert [chunk async for chunk in answer] == []
    assert replicas["one:1"].log[-1] == ("stop", "s/0")
    assert replicas["one:1"].hushed == ["s/0"]
    await session.stop()
    assert replicas["one:1"].log.count(("stop", "s/0")) == 1


async def test_giving_up_the_iteration_stops_the_model(make, replicas):
    client = make()
    session = client.session("s")
    replicas["one:1"].script = [outputs(0, False), None]
    answer = session.answer(HELLO)
    await anext(answer)
    await answer.aclose()
    await client.close()
    assert ("stop", "s/0") in replicas["one:1"].log


async def test_a_complete_answer_is_not_stopped(make, replicas):
    client = make()
    await collect(client.session("s"), HELLO)
    await client.close()
    assert [entry[0] for entry in replicas["one:1"].log] == ["turn"]


EARLY = TurnRequest(early=True)


async def test_an_early_answer_takes_the_turn_away(make, replicas):
    """The caller goes on after a pause: the turn is whole, its early answer is taken back."""
    session = make().session("s")
    replicas["one:1"].script = [outputs(0, False), None]
    session.push(audio(0.5))
    answer = session.answer(EARLY)
    assert (await anext(answer)).sequence == 0
    await session.retract()
    assert [chunk async for chunk in answer] == []
    session.push(audio(0.3))
    await settle()
    replicas["one:1"].script = [outputs(0, True)]
    await collect(session, TurnRequest())
    assert [entry[:2] for entry in replicas["one:1"].log] == [
        ("audio", SECOND // 2),
        ("turn", 0),
        ("retract", "s/0"),
        ("audio", round(0.3 * SECOND)),
        ("turn", 0),
    ]
    assert replicas["one:1"].log[1][3] == {"early": True}
    assert replicas["one:1"].hushed == ["s/0"]
    await session.retract()
    assert replicas["one:1"].log[-1][0] == "turn"


async def test_an_early_answer_that_counts_leaves_its_audio_to_the_next_turn(make, replicas):
    session = make().session("s")
    session.push(audio(0.1))
    answer = session.answer(EARLY)
    assert (await anext(answer)).sequence == 0
    session.push(audio(0.2))
    session.confirm()
    assert [chunk.sequence async for chunk in answer] == [1]
    session.push(audio(0.1))
    await collect(session, TurnRequest())
    sent = [entry[:2] for entry in replicas["one:1"].log]
    assert sent[:2] == [("audio", SECOND // 10), ("turn", 0)]
    assert sent[-2:] == [("close",), ("turn", SECOND // 10)]
    assert not any(entry[0] in ("retract", "stop") for entry in sent)


async def test_a_complete_early_answer_stays_in_the_models_history(make, replicas):
    session = make().session("s")
    session.push(audio(0.1))
    assert len(await collect(session, EARLY)) == 2
    await session.retract()
    assert replicas["one:1"].log[-1] == ("retract", "s/0")


@pytest.mark.parametrize("goes_on", [True, False])
async def test_the_decision_comes_before_the_early_answer_is_asked_for(make, replicas, goes_on):
    """The tokenizer is slow: nothing of the turn may be lost or forgotten."""
    session = make().session("s")
    replicas["one:1"].gate.clear()
    session.push(audio(0.5))
    running = asyncio.create_task(collect(session, EARLY))
    await settle()
    if goes_on:
        await session.retract()
    else:
        session.confirm()
    replicas["one:1"].gate.set()
    chunks = await running
    log = [entry[:2] for entry in replicas["one:1"].log]
    if goes_on:
        assert chunks == []
        assert log == [("audio", SECOND // 2)]
        session.push(audio(0.1))
        await collect(session, TurnRequest())
        assert replicas["one:1"].log[-1][:2] == ("turn", SECOND // 10)
    else:
        assert len(chunks) == 2
        assert log == [("audio", SECOND // 2), ("turn", 0)]
        assert replicas["one:1"].log[-1][3] == {}
        session.push(audio(0.1))
        await collect(session, TurnRequest())
        assert replicas["one:1"].log[-1][:2] == ("turn", SECOND // 10)
        assert ("close",) not in replicas["one:1"].log


async def test_words_to_say_swallow_what_the_caller_is_saying(make, replicas):
    """A disclosure in the middle of the caller's turn: the turn is answered whole afterwards."""
    session = make().session("s")
    session.push(audio(0.5))
    await settle()
    session.push(audio(0.1))
    await collect(session, TurnRequest(say="This call is recorded."))
    session.push(audio(0.1))
    await collect(session, TurnRequest())
    assert [entry[:2] for entry in replicas["one:1"].log] == [
        ("audio", SECOND // 2),
        ("turn", 0),
        ("turn", SECOND // 5),
    ]


async def test_a_call_that_moves_loses_what_the_caller_is_saying(make, replicas):
    client = make("one:1", "two:2")
    replicas["one:1"].dead = {"glm_voice"}
    session = client.session("s")
    session.push(audio(0.5))
    await settle()
    await collect(session, TurnRequest(say="This call is recorded."))
    await collect(session, TurnRequest())
    assert [entry[:2] for entry in replicas["two:2"].log if entry[0] == "turn"] == [
        ("turn", 0),
        ("turn", SECOND // 2),
    ]


async def test_an_early_answer_that_never_began_cannot_be_taken_back(make, replicas):
    session = make().session("s")
    session.push(audio(0.1))
    answer = session.answer(EARLY)
    await session.retract()
    assert [chunk async for chunk in answer] == []
    assert not any(entry[0] == "turn" for entry in replicas["one:1"].log)


async def test_another_answer_overtakes_the_retraction_of_an_early_one(make, replicas):
    session = make().session("s")
    replicas["one:1"].script = [outputs(0, False), None]
    session.push(audio(0.1))
    first = session.answer(EARLY)
    await anext(first)
    replicas["one:1"].script = [outputs(0, True)]
    assert len(await collect(session, TurnRequest())) == 1
    kinds = [entry[0] for entry in replicas["one:1"].log]
    assert kinds.index("retract") < len(kinds) - 1 - kinds[::-1].index("turn")


async def test_the_language_model_reads_along_with_what_the_turn_will_be_asked(make, replicas):
    session = make().session("s")
    session.push(audio(0.5), TurnRequest(system="Be kind.", heard_seconds=1.5))
    await settle()
    session.push(audio(0.5))
    await settle()
    assert replicas["one:1"].heard == [
        {"system": "Be kind.", "heard_seconds": 1.5, "listen": True},
        {},
    ]


async def test_the_callers_words_are_asked_of_the_language_model(make, replicas):
    session = make().session("s")
    assert await session.transcribe() == ""  # nothing was ever said
    await collect(session, HELLO)
    replicas["one:1"].script = [outputs(0, False, "when do "), outputs(1, True, "you open ")]
    assert await session.transcribe() == "when do you open"
    assert replicas["one:1"].log[-1] == ("words", 0, "s/1", {"transcribe": True})


async def test_a_transcript_that_never_ends_holds_up_the_call(make, replicas):
    session = make(request_timeout=0.0).session("s")
    await collect(session, HELLO)
    replicas["one:1"].script = [None]
    with pytest.raises(EngineUnavailable, match="one:1: model voice_lm: no transcript within 0 s"):
        await session.transcribe()


async def test_a_new_turn_stops_the_answer_before_it(make, replicas):
    session = make().session("s")
    replicas["one:1"].script = [outputs(0, False), None]
    first = session.answer(HELLO)
    await anext(first)
    replicas["one:1"].script = [outputs(0, True)]
    assert len(await collect(session, HELLO)) == 1
    assert [chunk async for chunk in first] == []
    entries = [entry for entry in replicas["one:1"].log if entry[0] in ("stop", "turn")]
    assert [(e[0], e[1] if e[0] == "stop" else e[2]) for e in entries] == [
        ("turn", "s/0"),
        ("stop", "s/0"),
        ("turn", "s/1"),
    ]


@pytest.mark.parametrize("chunks", [0, 1])
async def test_a_missing_chunk_is_an_error_that_names_the_server(make, replicas, chunks):
    client = make(chunk_timeout=0.0, first_chunk_timeout=0.0 if chunks == 0 else 60.0)
    session = client.session("s")
    replicas["one:1"].script = [outputs(0, False)] * chunks + [None]
    with pytest.raises(EngineUnavailable, match="one:1: model glm_voice: no piece of the answer"):
        await collect(session, HELLO)
    await client.close()
    assert replicas["one:1"].log[-1] == ("stop", "s/0")


async def test_an_answer_that_waits_for_its_first_sound_is_given_up(make, replicas):
    """Text is there at once; its sound waits until the decoder has time for a later call."""
    session = make(chunk_timeout=0.0, first_chunk_timeout=60.0).session("s")
    replicas["one:1"].script = [outputs(0, False, "hello", samples=0), outputs(1, True)]
    assert len(await collect(session, HELLO)) == 2


async def test_an_answer_that_breaks_off_is_an_error(make, replicas):
    session = make().session("s")
    replicas["one:1"].script = [outputs(0, False)]
    with pytest.raises(EngineUnavailable, match="broke off before its last piece"):
        await collect(session, HELLO)


async def test_a_replica_that_fails_at_the_start_is_replaced_and_gets_the_whole_turn(
    make, replicas
):
    client = make("one:1", "two:2")
    replicas["one:1"].dead = {"glm_voice"}
    session = client.session("s")
    session.push(audio(1.0))
    await settle()
    assert len(await collect(session)) == 2
    assert replicas["one:1"].log[0] == ("audio", SECOND)
    turn = next(entry for entry in replicas["two:2"].log if entry[0] == "turn")
    assert turn[1] == SECOND


async def test_a_tokenizer_that_fails_while_the_caller_speaks_loses_nothing(make, replicas):
    session = make().session("s")
    replicas["one:1"].dead = {"speech_tokenizer"}
    for _ in range(5):
        session.push(audio(0.2))
        await settle()
    replicas["one:1"].dead = set()
    await collect(session)
    assert [entry[:2] for entry in replicas["one:1"].log] == [("close",), ("turn", SECOND)]


async def test_a_call_does_not_leave_the_replica_that_holds_its_history(make, replicas):
    session = make("one:1", "two:2").session("s")
    await collect(session, HELLO)
    replicas["one:1"].dead = {"glm_voice"}
    with pytest.raises(EngineUnavailable, match="one:1: model glm_voice: it is dead"):
        await collect(session, HELLO)
    assert replicas["two:2"].log == []


async def test_when_every_replica_fails_the_error_names_all(make, replicas):
    client = make("one:1", "two:2")
    for replica in replicas.values():
        replica.dead = {"glm_voice"}
    with pytest.raises(EngineUnavailable, match=r"one:1: .*; two:2: "):
        await collect(client.session(), HELLO)


async def test_calls_spread_over_the_replicas(make, replicas):
    client = make("one:1", "two:2")
    sessions = [client.session(name) for name in "abcd"]
    for session in sessions:
        await collect(session, HELLO)
    assert [len(replica.log) for replica in replicas.values()] == [2, 2]
    await sessions[1].close()
    await collect(client.session("e"), HELLO)
    assert replicas["two:2"].log[-1][2] == "e/0"


async def test_a_failed_replica_is_avoided_for_a_while_only(make, replicas):
    clock = Clock()
    client = make("one:1", "two:2", retry_seconds=10.0, clock=clock)
    replicas["one:1"].dead = {"glm_voice"}
    await collect(client.session("a"), HELLO)
    replicas["one:1"].dead = set()
    replicas["one:1"].log.clear()
    await collect(client.session("b"), HELLO)
    assert replicas["one:1"].log == []
    clock.now = 11.0
    await collect(client.session("c"), HELLO)
    assert replicas["one:1"].log[-1][2] == "c/0"


async def test_close_frees_both_models_once_and_ends_the_answer(make, replicas):
    session = make().session("s")
    replicas["one:1"].script = [outputs(0, False), None]
    answer = session.answer(HELLO)
    await anext(answer)
    await session.close()
    await session.close()
    assert [chunk async for chunk in answer] == []
    assert sorted(replicas["one:1"].log[1:]) == [("close",), ("end", "s/0")]
    with pytest.raises(RuntimeError, match="session s is closed"):
        session.push(audio(0.1))
    with pytest.raises(RuntimeError, match="session s is closed"):
        session.answer(HELLO)


async def test_close_of_a_session_that_never_spoke_asks_nothing(make, replicas):
    await make().session("s").close()
    assert replicas["one:1"].log == []


async def test_close_survives_a_dead_server(make, replicas):
    session = make().session("s")
    await collect(session, HELLO)
    replicas["one:1"].dead = {"voice_lm", "speech_tokenizer"}
    await session.close()


@pytest.mark.parametrize("model", ["glm_voice", "speech_tokenizer", "voice_lm", "speech_decoder"])
async def test_ready_goes_through_every_model(make, replicas, model):
    client = make()
    await client.ready()
    replicas["one:1"].dead = {model}
    with pytest.raises(EngineUnavailable, match=f"one:1: model {model}: it is dead"):
        await client.ready()


async def test_one_live_replica_is_enough_to_be_ready(make, replicas):
    client = make("one:1", "two:2")
    replicas["one:1"].dead = {"voice_lm"}
    await client.ready()
    replicas["two:2"].dead = {"glm_voice"}
    with pytest.raises(EngineUnavailable, match=r"one:1: model voice_lm.*two:2: model glm_voice"):
        await client.ready()


async def test_what_the_replicas_that_live_can_carry_is_added_up(make, replicas):
    client = make("one:1", "two:2", "three:3")
    assert client.carries is None
    await client.ready()
    assert client.carries is None
    replicas["one:1"].timing = {"carries": 2.5}
    replicas["two:2"].timing = {"carries": 4.0}
    await client.ready()
    assert client.carries == 6.5
    replicas["two:2"].dead = {"voice_lm"}
    await client.ready()
    assert client.carries == 2.5
    replicas["one:1"].dead = replicas["three:3"].dead = {"voice_lm"}
    with pytest.raises(EngineUnavailable):
        await client.ready()
    assert client.carries is None


@pytest.mark.parametrize("urls", [[], ["localhost"], ["http://localhost:8001"], [":8001"]])
def test_a_url_that_is_no_host_and_port_is_refused(urls):
    with pytest.raises(ValueError, match="host:port"):
        VoiceClient(urls)


async def test_an_unreachable_server_is_named():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, but nobody listens
        url = f"127.0.0.1:{unused.getsockname()[1]}"
        client = VoiceClient([url], connect=Replica)
        with pytest.raises(EngineUnavailable, match=f"{url}: model glm_voice: "):
            await client.ready()
        with pytest.raises(EngineUnavailable, match=f"{url}: model glm_voice: "):
            await collect(client.session(), HELLO)
        await client.close()
