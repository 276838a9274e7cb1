"""Who judges from outside: a recogniser that reads the agent's audio, a language model that rates.

Both are optional and nothing depends on them: what cannot be asked is unknown. Where they are comes
from the environment:

=========================== ========================================================================
REHEARSAL_ASR_URL           a service with OpenAI's ``/v1/audio/transcriptions``, the whole address
REHEARSAL_ASR_MODEL         its model (whisper-1)
REHEARSAL_ASR_KEY           its key
REHEARSAL_ASR_SENTENCES     without a URL: a file of sentences, one a line, from which pocketsphinx
                            learns what is being talked about
REHEARSAL_JUDGE_URL         a service with OpenAI's ``/v1/chat/completions``, the whole address
REHEARSAL_JUDGE_MODEL       its model (gpt-4o)
REHEARSAL_JUDGE_KEY         its key
=========================== ========================================================================
"""

import functools
import os
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agent.evaluation.services import ChatJudge, Recogniser, UrlRecogniser
from agent.sound import PHONE_RATE, resampled
from telephony.simulator.checks.verdict import Unknown

_one_at_a_time = threading.Lock()
"""Calls of this process share one pocketsphinx."""


class Outside:
    """Asks a recogniser and a judge, where there are any."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """Look for them when they are first needed.

        Args:
            environ: Environment variables; None takes the process's own.
        """
        self._environ = os.environ if environ is None else environ

    def read(self, audio: NDArray[np.int16]) -> str | Unknown:
        """What the recogniser makes out of int16 [n] at 8 kHz."""
        sound = resampled(audio.astype(np.float32) / 32768, PHONE_RATE)
        try:
            if url := self._environ.get("REHEARSAL_ASR_URL"):
                model = self._environ.get("REHEARSAL_ASR_MODEL", "whisper-1")
                key = self._environ.get("REHEARSAL_ASR_KEY", "")
                return UrlRecogniser(url, model, key).recognise(sound)
            with _one_at_a_time:
                recogniser = _pocketsphinx(self._environ.get("REHEARSAL_ASR_SENTENCES"))
                if isinstance(recogniser, Unknown):
                    return recogniser
                return recogniser.recognise(sound)
        except RuntimeError as error:
            return Unknown(f"the recogniser failed: {error}")

    def rate(self, prompt: str) -> float | Unknown:
        """The judge's rating, from 1 to 10."""
        url = self._environ.get("REHEARSAL_JUDGE_URL")
        if not url:
            return Unknown("no judge: REHEARSAL_JUDGE_URL is not set")
        model = self._environ.get("REHEARSAL_JUDGE_MODEL", "gpt-4o")
        key = self._environ.get("REHEARSAL_JUDGE_KEY", "")
        try:
            return ChatJudge(url, model, key).rating(prompt)
        except RuntimeError as error:
            return Unknown(f"the judge failed: {error}")


@functools.cache
def _pocketsphinx(sentences: str | None) -> Recogniser | Unknown:
    try:
        from agent.evaluation.judge import Judge
    except ImportError:
        return Unknown("no recogniser: pocketsphinx is not installed, REHEARSAL_ASR_URL is not set")
    try:
        return Judge(Path(sentences).read_text("utf-8").splitlines() if sentences else None)
    except (OSError, ValueError) as error:
        return Unknown(f"no recogniser: REHEARSAL_ASR_SENTENCES {sentences}: {error}")
