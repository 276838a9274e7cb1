"""Judges behind URLs, against a service in this process."""

import asyncio
import io

import numpy as np
import pytest
import soundfile
from aiohttp import web
from aiohttp.test_utils import TestServer

from agent.evaluation.services import KEY_VARIABLE, ChatJudge, UrlRecogniser


@pytest.fixture
async def service():
    """Serves one answer at every path and remembers what it was asked."""

    class Service:
        answer: object = None
        status = 200

        async def handle(self, request):
            self.headers = request.headers
            if request.content_type == "application/json":
                self.asked = await request.json()
            else:
                self.form = await request.post()
                self.wav = self.form["file"].file.read()
            return web.json_response(self.answer, status=self.status)

        def url(self, path):
            return str(server.make_url(path))

    service = Service()
    application = web.Application()
    application.router.add_post("/{path:.*}", service.handle)
    server = TestServer(application)
    await server.start_server()
    yield service
    await server.close()


def said(text):
    return {"choices": [{"message": {"role": "assistant", "content": text}}]}


async def test_a_recogniser_gets_a_wav_file_and_gives_its_text(service, monkeypatch):
    monkeypatch.setenv(KEY_VARIABLE, "secret")
    service.answer = {"text": "we are open"}
    audio = np.linspace(-0.5, 0.5, 1_600, dtype=np.float32)
    recogniser = UrlRecogniser(service.url("/v1/audio/transcriptions"), "small")
    assert await asyncio.to_thread(recogniser.recognise, audio) == "we are open"
    assert service.form["model"] == "small"
    heard, rate = soundfile.read(io.BytesIO(service.wav), dtype="float32")
    assert rate == 16_000
    np.testing.assert_allclose(heard, audio, atol=1e-4)
    assert service.headers["Authorization"] == "Bearer secret"
    assert "secret" not in recogniser.name


async def test_a_judge_is_told_question_answer_and_known_answers(service, monkeypatch):
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    judge = ChatJudge(service.url("/v1/chat/completions"), "m")
    service.answer = said("Out of [[10]], helpful. Rating: [[8.5]]")
    assert await asyncio.to_thread(judge.rate, "When {x}?", "At eight.") == 8.5
    prompt = service.asked["messages"][0]["content"]
    assert "When {x}?" in prompt
    assert "At eight." in prompt
    assert service.asked["model"] == "m"
    assert "Authorization" not in service.headers

    service.answer = said("It says so. [[Correct]]")
    assert await asyncio.to_thread(judge.correct, "Who?", "Ann", ["Anne", "Ann"])
    assert "Anne; Ann" in service.asked["messages"][0]["content"]
    service.answer = said("No. [[incorrect]]")
    assert not await asyncio.to_thread(judge.correct, "Who?", "Bob", ["Ann"])


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        (said("Very good."), 200, "no rating from 1 to 10"),
        (said("[[11]]"), 200, "no rating from 1 to 10"),
        ({"error": "busy"}, 200, "has no choices"),
        ([], 200, "no JSON object"),
        (said("[[5]]"), 503, "503"),
    ],
)
async def test_a_service_that_fails_is_named(service, answer, status, message):
    service.answer, service.status = answer, status
    judge = ChatJudge(service.url("/v1/chat/completions"))
    with pytest.raises(RuntimeError, match=message) as error:
        await asyncio.to_thread(judge.rate, "When?", "At eight.")
    assert "/v1/chat/completions" in str(error.value)


async def test_a_recogniser_without_text_is_named(service):
    service.answer = {"words": []}
    recogniser = UrlRecogniser(service.url("/v1/audio/transcriptions"))
    with pytest.raises(RuntimeError, match="no field 'text'"):
        await asyncio.to_thread(recogniser.recognise, np.zeros(160, np.float32))
