"""One Silero model for all calls of a process, asked once for all who ask at the same time.

Pipecat gives every call a model, a thread and a hand-over to that thread every 20 ms, which costs
more than the model itself. Here the calls share the model and are answered in the event loop: who
asks during one turn of the loop is answered by one run at its end. Each call keeps its own
recurrent state, so an answer is the same whoever asks beside it (to the rounding of float32); and
the busier the process, the larger the runs and the cheaper each answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnxruntime

Floats = npt.NDArray[np.float32]

SAMPLE_RATE = 16_000
WINDOW = 512
"""Samples judged at once: 32 ms."""
_CONTEXT = 64
"""Samples of the window before that the model looks back at."""
_LARGEST_RUN = 16
"""Windows of one run: more would gain nothing and keep the event loop for milliseconds."""


def _no_state() -> Floats:
    return np.zeros((2, 1, 128), np.float32)


def _no_context() -> Floats:
    return np.zeros(_CONTEXT, np.float32)


@dataclass
class SpeechMemory:
    """What the model remembers of one call.

    Attributes:
        state: Its recurrent state, float32 [2, 1, 128].
        context: The end of the last window, float32 [64].
    """

    state: Floats = field(default_factory=_no_state)
    context: Floats = field(default_factory=_no_context)

    def reset_states(self) -> None:
        """Forget the call; named as Pipecat's analyzer calls it."""
        self.state, self.context = _no_state(), _no_context()


@dataclass(frozen=True)
class _Asked:
    samples: Floats
    memory: SpeechMemory
    answer: asyncio.Future[float]


class SharedSilero:
    """Tells how likely a window is speech, for many calls.

    Args:
        session: Silero v5; holds no call's state.
    """

    def __init__(self, session: onnxruntime.InferenceSession):
        self._session = session
        self._rate = np.array(SAMPLE_RATE, np.int64)
        self._asked: list[_Asked] = []

    async def ask(self, samples: npt.NDArray[np.int16], memory: SpeechMemory) -> float:
        """Judge the next window of a call, together with the other calls' that wait now.

        Args:
            samples: int16 [512] at 16 kHz.
            memory: The call's own; updated. One question at a time.

        Returns:
            Probability of speech, 0 to 1.
        """
        loop = asyncio.get_running_loop()
        if not self._asked:
            loop.call_soon(self._answer)
        asked = _Asked(_floats(samples), memory, loop.create_future())
        self._asked.append(asked)
        return await asked.answer

    def judge(self, samples: npt.NDArray[np.int16], memory: SpeechMemory) -> float:
        """Judge the next window of a call at once; as :meth:`ask`."""
        return self._run([_floats(samples)], [memory])[0]

    def _answer(self) -> None:
        asked = [one for one in self._asked if not one.answer.cancelled()]
        self._asked = []
        for begin in range(0, len(asked), _LARGEST_RUN):
            run = asked[begin : begin + _LARGEST_RUN]
            try:
                answers = self._run([one.samples for one in run], [one.memory for one in run])
            except Exception as error:
                for one in run:
                    one.answer.set_exception(error)
                continue
            for one, answer in zip(run, answers, strict=True):
                one.answer.set_result(answer)

    def _run(self, windows: list[Floats], memories: list[SpeechMemory]) -> list[float]:
        rows = np.empty((len(windows), _CONTEXT + WINDOW), np.float32)
        for row, samples, memory in zip(rows, windows, memories, strict=True):
            row[:_CONTEXT] = memory.context
            row[_CONTEXT:] = samples
        if len(memories) == 1:
            state = memories[0].state
        else:
            state = np.concatenate([memory.state for memory in memories], axis=1)
        answers, state = self._session.run(None, {"input": rows, "state": state, "sr": self._rate})
        for index, (row, memory) in enumerate(zip(rows, memories, strict=True)):
            memory.state = state[:, index : index + 1]
            memory.context = row[-_CONTEXT:]
        confidences: list[float] = answers[:, 0].tolist()
        return confidences


def _floats(samples: npt.NDArray[np.int16]) -> Floats:
    return samples.astype(np.float32) / np.float32(32768.0)
