"""Which answers the speech decoder works on next: by the deadlines of their playback, or in turns.

Nothing here knows threads or the time: the owner says what there is and what time it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.speech.answer import PIECE
from agent.speech.prompt import TOKENS_PER_SECOND

PIECE_SECONDS = PIECE / TOKENS_PER_SECOND
# The vocoder keeps back about 20 frames of the first piece until the next one comes.
_FIRST_SECONDS = PIECE_SECONDS - 0.23
# What is left over evens out that pieces take longer at times than on average.
_USABLE = 0.9
_AVERAGE_WEIGHT = 0.1


@dataclass(frozen=True)
class Candidate:
    """An answer as a schedule sees it.

    Attributes:
        joined: When its session was first heard of.
        waiting: Whether speech of it is here to be decoded.
        pieces: Pieces with speech that are still to be decoded; infinity while the answer's end has
            not been seen.
        runs_out: When the audio sent so far will have been played; None: none was sent.
    """

    joined: float
    waiting: bool
    pieces: float
    runs_out: float | None


@dataclass(frozen=True)
class Choice:
    """What to do now.

    Attributes:
        take: Which candidates to decode a piece of, together; may be empty.
        wake: With nothing to take, when to ask again at the latest; None: when something changes.
    """

    take: list[int]
    wake: float | None = None


class Schedule(Protocol):
    """Decides what is decoded next."""

    def choose(self, answers: Sequence[Candidate], now: float) -> Choice:
        """Choose among the answers, of which the one decoded longest ago comes first."""

    def measured(self, pieces: int, seconds: float) -> None:
        """So many pieces that were not the first of their answers took so long together."""

    def carries(self) -> float | None:
        """Answers that can be kept in playback at once without gaps; None where it is not known."""


def create_schedule(name: str, lead_seconds: float, max_batch: int) -> Schedule:
    """The schedule ``"deadline"`` or ``"turns"``."""
    if name == "turns":
        return TurnSchedule(max_batch)
    return DeadlineSchedule(lead_seconds, max_batch)


def extended(runs_out: float | None, now: float, seconds: float) -> float:
    """When playback runs out after more audio is sent; a gap puts off all that follows.

    The listener may begin later than the first audio is sent: a phone line's buffer, or an answer
    made before the turn detector was sure, which is kept back until it is. Then there is more time
    than this says.
    """
    return (now if runs_out is None else max(runs_out, now)) + seconds


class TurnSchedule:
    """An answer of which nothing has been heard goes first; the others take turns.

    Args:
        max_batch: Most pieces to decode together.
    """

    def __init__(self, max_batch: int = 1) -> None:
        self._max_batch = max_batch

    def choose(self, answers: Sequence[Candidate], now: float) -> Choice:
        """Choose a silent answer, or those whose turn it is."""
        waiting = [i for i, answer in enumerate(answers) if answer.waiting]
        silent = next((i for i in waiting if answers[i].runs_out is None), None)
        return Choice(waiting[: self._max_batch] if silent is None else [silent])

    def measured(self, pieces: int, seconds: float) -> None:
        """Turns do not depend on it."""

    def carries(self) -> float | None:
        """Turns do not know."""
        return None


class DeadlineSchedule:
    """The answer whose playback runs out first goes first; none runs far ahead.

    The first piece of an answer goes before all others if, even so, every piece of the answers in
    playback and of the new one can be ready when its listener needs it. That is the test of
    processor demand for earliest deadline first (Baruah, Rosier and Howell, 1990): whatever the
    moment, the work that is due until then must fit into the time until then. An answer whose end
    has not been seen is taken to go on for ever. Otherwise the new answer waits: when more is asked
    for than the machine can do, later callers wait for their first sound, and those who listen hear
    no gaps. Of several new answers, that of the session that has been here longest goes first.

    Args:
        lead_seconds: An answer is not decoded while more audio than this is out and unplayed; more
            than is buffered between here and the listener.
        max_batch: Most pieces to decode together. A first piece is always decoded alone.
    """

    def __init__(self, lead_seconds: float = 3.0, max_batch: int = 1) -> None:
        self._lead = lead_seconds
        self._max_batch = max_batch
        # Running average of the seconds a piece takes; None before one was measured.
        self._cost: float | None = None
        self._measurements = 0

    def choose(self, answers: Sequence[Candidate], now: float) -> Choice:
        """Choose a first piece, or what must be ready first, or to wait until something is due."""
        new: int | None = None
        waiting: list[tuple[float, int]] = []
        wakes: list[float] = []
        for index, answer in enumerate(answers):
            if answer.runs_out is not None:
                if answer.waiting:
                    waiting.append((answer.runs_out, index))
                    wakes.append(answer.runs_out - self._lead)
                elif answer.runs_out > now:
                    # Then it holds back nobody any more.
                    wakes.append(answer.runs_out)
            elif answer.waiting and (new is None or answer.joined < answers[new].joined):
                new = index
        if new is not None and self._admits(answers, new, now):
            return Choice([new])
        due = [item for item in sorted(waiting) if item[0] - self._lead <= now]
        if due:
            return Choice([index for _, index in due[: self._batch(due[0][0] - now, len(due))]])
        return Choice([], min(wakes, default=None))

    def measured(self, pieces: int, seconds: float) -> None:
        """Learn what a piece costs."""
        self._measurements += 1
        # A plain average at first, so that a slow start is soon forgotten.
        weight = max(1 / self._measurements, _AVERAGE_WEIGHT)
        before = self._cost or 0.0
        self._cost = before + weight * (seconds / pieces - before)

    def carries(self) -> float | None:
        """As many as the test of demand would let in, if all of them went on for ever."""
        return _USABLE * PIECE_SECONDS / self._cost if self._cost else None

    def _batch(self, slack: float, most: int) -> int:
        """How many to decode together so that the most urgent is still ready in time."""
        most = min(most, self._max_batch)
        if not self._cost:
            return 1
        in_time = int(slack / self._cost)
        # Too late for one alone: then all that counts is to get through.
        return most if in_time < 1 else min(most, in_time)

    def _admits(self, answers: Sequence[Candidate], new: int, now: float) -> bool:
        """Whether a new answer leaves everybody in playback, and itself, without gaps."""
        cost = self._cost
        # One that has run dry with nothing here to decode waits for the language model, not for us.
        playing = [
            (answer.runs_out, answer.pieces)
            for answer in answers
            if answer.runs_out is not None and (answer.waiting or answer.runs_out > now)
        ]
        if cost is None or not playing:
            return True
        playing.append((now + cost + _FIRST_SECONDS, answers[new].pieces - 1))
        playing = [(runs_out, pieces) for runs_out, pieces in playing if pieces > 0]
        endless = sum(pieces == math.inf for _, pieces in playing)
        if endless * cost > _USABLE * PIECE_SECONDS:
            return False
        # Between these moments demand grows evenly, so it cannot exceed the time only there.
        moments = [runs_out for runs_out, _ in playing]
        moments += [
            runs_out + (pieces - 1) * PIECE_SECONDS
            for runs_out, pieces in playing
            if pieces < math.inf
        ]
        return all(
            cost * (1 + sum(_due(*answer, moment) for answer in playing))
            <= _USABLE * (moment - now)
            for moment in moments
        )


def _due(runs_out: float, pieces: float, moment: float) -> float:
    """Pieces of an answer that must be ready at a moment, at most (parts of the next counted)."""
    if moment < runs_out:
        return 0.0
    return min(pieces, (moment - runs_out) / PIECE_SECONDS + 1)
