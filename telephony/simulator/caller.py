"""The scripted caller: listens to the agent, speaks its lines, hangs up.

It knows no clock and no network. Every 20 ms it is handed what the phone plays and hands back what
the microphone picks up; positions count samples at 8 kHz since the start of the media stream.
"""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from telephony.simulator.audible import SAMPLE_RATE, Ear, audible_spans
from telephony.simulator.goals import Errand
from telephony.simulator.listening import Listener, NoListener
from telephony.simulator.noise import Background
from telephony.simulator.report import Check
from telephony.simulator.scenario import Moment, Scenario

FRAME = 160
"""Samples in 20 ms."""
AFTER_A_SHORT_ANSWER_MS = 700
"""Silence that ends an answer in the ears of a caller who means to interrupt it."""
_SILENCE = np.zeros(FRAME, np.int16)


@dataclass(frozen=True)
class Line:
    """What a turn puts on the line.

    Attributes:
        audio: int16 [n] at 8 kHz.
        first: Its first audible sample.
        end: The sample after its last audible one.
        keys: Keys that are pressed meanwhile, each at its sample.
    """

    audio: NDArray[np.int16]
    first: int
    end: int
    keys: tuple[tuple[int, str], ...] = ()

    @classmethod
    def of(cls, audio: NDArray[np.int16]) -> "Line":
        """Find out where a recording is audible.

        Raises:
            ValueError: It is not audible anywhere.
        """
        spans = audible_spans(audio)
        if not spans:
            raise ValueError("nothing audible in it")
        return cls(audio, spans[0][0], spans[-1][1])


@dataclass(frozen=True)
class Spoken:
    """A line that was spoken.

    Attributes:
        turn: Index of the turn in the scenario.
        start: First audible sample.
        end: The sample after the last audible one, as far as it was spoken.
        over_agent: The agent was talking when the line started.
        waited_in_vain: The agent did not say what the line had waited for.
    """

    turn: int
    start: int
    end: int
    over_agent: bool
    waited_in_vain: bool


class State(Enum):
    """What the caller does."""

    LISTENING = "listening"
    SPEAKING = "speaking"
    HUNG_UP = "hung up"


class Caller:
    """Speaks the lines of one scenario.

    Attributes:
        state: What it does now.
        spoken: Its lines so far; the current one is added when it starts.
        keys: Keys that it has pressed and the phone has not sent yet.
    """

    def __init__(
        self,
        scenario: Scenario,
        lines: Sequence[Line],
        *,
        background: Background | None = None,
    ) -> None:
        """Prepare a call.

        Args:
            scenario: The script.
            lines: One for each of ``scenario.lines``.
            background: What is heard while the caller says nothing.
        """
        if len(lines) != len(scenario.lines):
            raise ValueError(f"expected {len(scenario.lines)} lines, got {len(lines)}")
        self.state = State.LISTENING
        self.spoken: list[Spoken] = []
        self.keys: deque[str] = deque()
        self._scenario = scenario
        self._lines = lines
        self._background = background
        self._listener: Listener = NoListener()
        self._ear = Ear()
        self._errand = Errand(scenario.goal) if scenario.goal is not None else None
        self._words: Future[str | None] | None = None
        self._plan = _plan(scenario, self._errand)
        self._turns = [scenario.lines[index] for index in self._plan]
        self._longest = _samples(scenario.longest_ms)
        self._next = 0
        self._line_position = 0
        self._waiting_since = 0
        self._expects_agent = scenario.greeting is not None

    def listen_through(self, listener: Listener) -> None:
        """Understand the agent by a listener.

        Without one, a caller with a goal only knows whether the agent spoke.
        """
        self._listener = listener

    @property
    def position(self) -> int:
        """Samples of the call so far."""
        return self._ear.position

    @property
    def script(self) -> Scenario:
        """The scenario; of one with a goal, the turns that have come about so far."""
        if self._errand is None:
            return self._scenario
        turns = tuple(self._turns[: len(self.spoken)])
        return self._scenario.model_copy(update={"turns": turns})

    def checks(self) -> list[Check]:
        """Whether it reached its goal, and what its scenario asks for and nobody here can tell."""
        unknown = "nothing on a phone allows to tell"
        checks = [
            Check(name="not_judged", expected=asked, found=unknown, passed=None)
            for asked in self._scenario.not_judged
        ]
        return checks if self._errand is None else [self._errand.check(), *checks]

    def tick(self, heard: NDArray[np.int16]) -> NDArray[np.int16] | None:
        """Live through 20 ms.

        Args:
            heard: int16 [160]: what the phone plays meanwhile.

        Returns:
            int16 [160]: what the caller says meanwhile; None: it has hung up.
        """
        frame = self._act()
        if frame is not None:
            self._ear.hear(heard)
            self._listener.hear(heard)
        return frame

    def tick_coded(self, heard: bytes) -> NDArray[np.int16] | None:
        """As ``tick``, for a caller without a listener, with sound as it comes from the wire.

        Args:
            heard: mu-law [160].
        """
        frame = self._act()
        if frame is not None:
            self._ear.hear_coded(heard)
        return frame

    def _act(self) -> NDArray[np.int16] | None:
        if self._ear.position >= self._longest:
            self.state = State.HUNG_UP
        if self.state is State.LISTENING:
            self._consider()
        if self.state is State.HUNG_UP:
            return None
        if self.state is State.SPEAKING:
            return self._speak()
        return _SILENCE if self._background is None else self._background.frame(FRAME)

    def _consider(self) -> None:
        if self._next == len(self._turns):
            if self._errand is not None and not self._errand.over:
                self._react(self._errand)
            elif self._is_time(self._scenario.hang_up)[0]:
                self.state = State.HUNG_UP
            return
        ready, in_vain = self._is_time(self._turns[self._next].when)
        if ready:
            self._begin(in_vain)

    def _react(self, errand: Errand) -> None:
        """Understand what was heard, and say what follows from it."""
        when = errand.listen
        ready, in_vain = self._is_time(when)
        if not ready:
            # The agent goes on: what has been understood so far is not all.
            self._words = None
            return
        if self._words is None:
            self._words = self._listener.words()
        if not self._words.done():
            return
        text = self._words.result()
        self._words = None
        errand.follow(text, self._ear.onset is not None)
        index = errand.line()
        if index is not None:
            self._plan.append(index)
            self._turns.append(self._scenario.lines[index].model_copy(update={"when": when}))
            self._begin(in_vain)

    def _begin(self, in_vain: bool) -> None:
        line = self._lines[self._plan[self._next]]
        self.spoken.append(
            Spoken(
                turn=self._next,
                start=self.position + line.first,
                end=self.position + line.end,
                over_agent=self._talking,
                waited_in_vain=in_vain,
            )
        )
        self.state = State.SPEAKING
        self._line_position = 0

    def _is_time(self, when: Moment) -> tuple[bool, bool]:
        """Whether the moment has come, and whether it came because waiting led to nothing."""
        if when.at_ms is not None:
            return self.position >= _samples(when.at_ms), False
        if when.after_caller is not None:
            since = self.spoken[-1].end if self.spoken else 0
            return self.position - since >= _samples(when.after_caller.after_ms), False
        onset = self._ear.onset
        if onset is None:
            if not self._expects_agent and when.after_agent is not None:
                return self._silent_for >= _samples(when.after_agent.silence_ms), False
            patience = _samples(self._scenario.patience_ms)
            return self.position - self._waiting_since >= patience, True
        if when.during_agent is not None:
            if self.position - onset >= _samples(when.during_agent.after_ms):
                return True, not self._talking
            # The answer was shorter than that: nobody is left to interrupt.
            return self._silent_for >= _samples(AFTER_A_SHORT_ANSWER_MS), True
        assert when.after_agent is not None
        return self._silent_for >= _samples(when.after_agent.silence_ms), False

    def _speak(self) -> NDArray[np.int16]:
        line = self._lines[self._plan[self._next]]
        begin = self._line_position
        frame = line.audio[begin : begin + FRAME]
        self._line_position += FRAME
        if line.keys:
            self.keys.extend(key for at, key in line.keys if begin <= at < self._line_position)
        if begin < line.end <= self._line_position and not self._turns[self._next].backchannel:
            # From here on whatever the agent says is an answer, even while the recording runs out.
            self._waiting_since = self.position + line.end - begin
            self._ear.forget()
            self._listener.forget()
            self._expects_agent = True
        if self._line_position >= len(line.audio):
            self.state = State.LISTENING
            self._next += 1
        short = FRAME - len(frame)
        if not short:
            return frame
        rest = _SILENCE if self._background is None else self._background.frame(short)
        return np.concatenate([frame, rest[:short]])

    @property
    def _silent_for(self) -> int:
        return min(self._ear.silent_for, self.position - self._waiting_since)

    @property
    def _talking(self) -> bool:
        return self._ear.last_audible is not None and self._ear.silent_for < _samples(
            AFTER_A_SHORT_ANSWER_MS
        )


def _plan(scenario: Scenario, errand: Errand | None) -> list[int]:
    """Which lines are said, as far as that is known before the call."""
    if errand is None:
        return list(range(len(scenario.lines)))
    first = errand.line()
    assert first is not None
    return [first]


def _samples(milliseconds: int) -> int:
    return milliseconds * SAMPLE_RATE // 1000
