"""Sentences that are kept for when the engine cannot say them."""

import asyncio

import numpy as np

from agent.apology import KeptSentences
from agent.replica import EngineUnavailable
from agent.voice_session import AnswerChunk


class Session:
    def __init__(self, engine):
        self._engine = engine

    async def answer(self, request):
        self._engine.said.append(request.say)
        if self._engine.dead:
            raise EngineUnavailable("it is dead")
        for sequence in range(2):
            yield AnswerChunk(sequence, request.say, np.full(3, 7, np.int16), sequence == 1, {})

    async def close(self):
        self._engine.closed += 1


class Engine:
    def __init__(self, dead=False):
        self.said, self.closed, self.dead = [], 0, dead

    def session(self):
        return Session(self)


async def test_a_sentence_is_said_once_and_kept():
    engine = Engine()
    sentences = KeptSentences(engine.session)
    await sentences.say(["Sorry.", "Goodbye.", "Sorry."])
    assert engine.said == ["Sorry.", "Goodbye."]
    assert engine.closed == 2
    kept = sentences.get("Sorry.")
    assert (kept.text, kept.audio.tolist()) == ("Sorry.", [7] * 6)


async def test_an_engine_that_is_not_there_is_asked_again_when_a_call_comes():
    engine = Engine(dead=True)
    sentences = KeptSentences(engine.session)
    await sentences.say(["Sorry.", "Goodbye."])
    assert engine.said == ["Sorry."]
    tones = sentences.get("Sorry.")
    assert tones.text == ""
    assert np.abs(tones.audio).max() > 3000
    engine.dead = False
    sentences.want(["Sorry.", "Goodbye."])
    async with asyncio.timeout(30):
        while not sentences.get("Goodbye.").text:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert engine.closed == 3
    sentences.want(["Sorry.", "Goodbye."])
    await sentences.close()
    assert len(engine.said) == 3
