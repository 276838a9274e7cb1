"""What judges from outside: a recogniser of speech and a language model, over OpenAI-style URLs.

Nothing else of the evaluation depends on either. The key, where a service wants one, comes from the
environment and appears in no report.
"""

from __future__ import annotations

import io
import json
import os
import re
import urllib.error
import urllib.request
import uuid
from collections.abc import Sequence
from typing import Any, Protocol

import soundfile

from agent.sound import SAMPLE_RATE, Audio

KEY_VARIABLE = "GLM_EVALUATION_KEY"
_TIMEOUT = 120.0

_QUALITY = """\
A person asked a voice assistant a question by telephone. Judge the assistant's answer without \
favour: is it helpful, to the point, correct, and does it go as deep as the question asks? Explain \
your judgement in one or two sentences. Then give a rating from 1 (useless) to 10 (could not be \
better) in double brackets, like this: [[7]].

Question: {question}

Answer: {answer}
"""
_CORRECTNESS = """\
Decide whether an answer to a question is correct. It is if it says or contains what at least one \
of the known answers means; its form and tone do not matter. Explain your decision in one \
sentence. Then write [[correct]] or [[incorrect]].

Question: {question}

Known answers: {known}

Answer: {answer}
"""


class Recogniser(Protocol):
    """Writes down speech, independently of the checkpoint under test."""

    name: str

    def recognise(self, audio: Audio) -> str:
        """Return the words heard in float32 [n] at 16 kHz."""


class UrlRecogniser:
    """Any service with OpenAI's ``/v1/audio/transcriptions``.

    Args:
        url: The whole address.
        model: Its field ``model``.
        key: Its key, empty for none; None takes the evaluation's.
    """

    def __init__(self, url: str, model: str = "whisper-1", key: str | None = None):
        self.name = f"{model} over a URL"
        self._url = url
        self._model = model
        self._key = key

    def recognise(self, audio: Audio) -> str:
        """As :meth:`Recogniser.recognise`.

        Raises:
            RuntimeError: The service does not answer, or not as it should.
        """
        wav = io.BytesIO()
        soundfile.write(wav, audio.clip(-1.0, 1.0), SAMPLE_RATE, subtype="PCM_16", format="WAV")
        boundary = uuid.uuid4().hex
        parts = [
            b'Content-Disposition: form-data; name="model"\r\n\r\n' + self._model.encode(),
            b'Content-Disposition: form-data; name="file"; filename="speech.wav"\r\n'
            b"Content-Type: audio/wav\r\n\r\n" + wav.getvalue(),
        ]
        edge = f"--{boundary}".encode()
        body = b"".join(edge + b"\r\n" + part + b"\r\n" for part in parts) + edge + b"--\r\n"
        answer = _post(self._url, body, f"multipart/form-data; boundary={boundary}", self._key)
        if not isinstance(answer.get("text"), str):
            raise RuntimeError(f"{self._url}: its answer has no field 'text'")
        return str(answer["text"])


class ChatJudge:
    """Rates answers through any service with OpenAI's ``/v1/chat/completions``.

    Args:
        url: The whole address.
        model: Its field ``model``.
        key: Its key, empty for none; None takes the evaluation's.
    """

    def __init__(self, url: str, model: str = "gpt-4o", key: str | None = None):
        self.name = f"{model} over a URL"
        self._url = url
        self._model = model
        self._key = key

    def rate(self, question: str, answer: str) -> float:
        """How good an answer is, from 1 to 10.

        Raises:
            RuntimeError: The service does not answer, or gives no such rating.
        """
        return self.rating(_QUALITY.format(question=question, answer=answer))

    def rating(self, prompt: str) -> float:
        """Put a question whose answer holds a rating from 1 to 10 in double brackets.

        Raises:
            RuntimeError: The service does not answer, or gives no such rating.
        """
        said = self._ask(prompt)
        found = re.findall(r"\[\[\s*(\d+(?:\.\d+)?)\s*\]\]", said)
        if not found or not 1.0 <= float(found[-1]) <= 10.0:
            raise RuntimeError(f"{self._url}: no rating from 1 to 10 in its answer")
        return float(found[-1])

    def correct(self, question: str, answer: str, known: Sequence[str]) -> bool:
        """Whether an answer means the same as one of the known ones.

        Raises:
            RuntimeError: The service does not answer, or does not decide.
        """
        prompt = _CORRECTNESS.format(question=question, known="; ".join(known), answer=answer)
        found = re.findall(r"\[\[\s*(correct|incorrect)\s*\]\]", self._ask(prompt).lower())
        if not found:
            raise RuntimeError(f"{self._url}: neither [[correct]] nor [[incorrect]] in its answer")
        return bool(found[-1] == "correct")

    def _ask(self, prompt: str) -> str:
        request = {
            "model": self._model,
            "temperature": 0,
            "messages": [{"role": "user", "content": prompt}],
        }
        answer = _post(self._url, json.dumps(request).encode(), "application/json", self._key)
        try:
            return str(answer["choices"][0]["message"]["content"])
        except (KeyError, IndexError, TypeError) as error:
            raise RuntimeError(f"{self._url}: its answer has no choices[0].message.content") from (
                error
            )


def _post(url: str, body: bytes, kind: str, key: str | None) -> dict[str, Any]:
    headers = {"Content-Type": kind}
    if key := os.environ.get(KEY_VARIABLE) if key is None else key:
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(url, data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        error.close()
        raise RuntimeError(f"{url}: {error}") from error
    except (OSError, ValueError) as error:
        raise RuntimeError(f"{url}: {error}") from error
    if not isinstance(answer, dict):
        raise RuntimeError(f"{url}: its answer is no JSON object")
    return answer
