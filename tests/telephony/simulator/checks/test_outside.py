"""A recogniser and a judge behind URLs: what they are asked, and what is so without them."""

import asyncio
import io

import numpy as np
import pytest
import soundfile
from aiohttp import web

from telephony.simulator.checks.judgement import check_judgement
from telephony.simulator.checks.outside import Outside
from telephony.simulator.checks.verdict import Unknown
from telephony.simulator.expectation import Judgement


@pytest.fixture
async def service(aiohttp_server):
    """Answers as it is told and remembers what it was asked."""

    class Service:
        text: object = "We are open."
        rating = "Polite enough. [[7]]"

        async def transcriptions(self, request):
            self.key = request.headers.get("Authorization")
            form = await request.post()
            self.wav = form["file"].file.read()
            return web.json_response({"text": self.text})

        async def completions(self, request):
            self.key = request.headers.get("Authorization")
            self.prompt = (await request.json())["messages"][0]["content"]
            return web.json_response({"choices": [{"message": {"content": self.rating}}]})

    service = Service()
    app = web.Application()
    app.add_routes(
        [web.post("/asr", service.transcriptions), web.post("/chat", service.completions)]
    )
    server = await aiohttp_server(app)
    service.environ = {
        "REHEARSAL_ASR_URL": str(server.make_url("/asr")),
        "REHEARSAL_ASR_KEY": "ears",
        "REHEARSAL_JUDGE_URL": str(server.make_url("/chat")),
    }
    return service


async def judge(service, **fields):
    expect = Judgement(criterion="It is polite.", **fields)
    outside = Outside(service.environ)
    return await asyncio.to_thread(check_judgement, expect, "agent: {criterion} Hello.", outside)


async def test_a_recogniser_hears_the_phone_at_its_own_rate(service, monkeypatch):
    monkeypatch.setenv("GLM_EVALUATION_KEY", "of another service")
    audio = (8000 * np.sin(np.arange(1600) / 5)).astype(np.int16)

    assert await asyncio.to_thread(Outside(service.environ).read, audio) == "We are open."

    heard, rate = soundfile.read(io.BytesIO(service.wav), dtype="float32")
    assert rate == 16_000
    np.testing.assert_allclose(heard[200:-200:2], audio[100:-100] / 32768, atol=0.01)
    assert service.key == "Bearer ears"


async def test_a_rating_holds_from_the_threshold_on(service, monkeypatch):
    monkeypatch.setenv("GLM_EVALUATION_KEY", "of another service")

    assert (await judge(service)).passed
    assert (await judge(service, threshold=7.5)).passed is False
    assert "It is polite." in service.prompt
    # Braces in what was said are not filled in.
    assert "agent: {criterion} Hello." in service.prompt
    assert service.key is None


async def test_a_prompt_of_ones_own_is_asked(service):
    await judge(service, prompt='{"about": "{criterion}"} of {transcript}')

    assert service.prompt == '{"about": "It is polite."} of agent: {criterion} Hello.'


async def test_a_service_that_fails_makes_the_check_unknown(service):
    service.rating = "Very good!"
    check = await judge(service)
    assert check.passed is None
    assert "no rating from 1 to 10" in check.found

    service.text = None
    outside = Outside(service.environ)
    heard = await asyncio.to_thread(outside.read, np.zeros(800, np.int16))
    assert isinstance(heard, Unknown)
    assert "no field 'text'" in heard.reason


def test_without_a_judge_a_check_is_unknown_and_says_what_is_missing():
    check = check_judgement(Judgement(criterion="It is polite."), "agent: Hello.", Outside({}))

    assert check.passed is None
    assert "REHEARSAL_JUDGE_URL" in check.found


def test_sentences_that_cannot_be_read_make_the_audio_unknown(tmp_path):
    pytest.importorskip("pocketsphinx", reason="the recogniser comes with the extra 'train'")
    path = tmp_path / "sentences.txt"

    heard = Outside({"REHEARSAL_ASR_SENTENCES": str(path)}).read(np.zeros(800, np.int16))

    assert isinstance(heard, Unknown)
    assert "sentences.txt" in heard.reason


def test_a_prompt_without_a_place_for_the_conversation_is_refused():
    with pytest.raises(ValueError, match="transcript"):
        Judgement(criterion="It is polite.", prompt="Is {criterion} so?")
