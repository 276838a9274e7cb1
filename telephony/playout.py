"""Where the caller is in what was sent: marks that came back, and the clock in between.

Twilio plays what it gets in order, and without gaps while it has something, so the position follows
from when each frame was sent; every mark that returns puts it right. The estimate never runs behind
the last mark that returned nor ahead of the first that has not.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from telephony.media_streams import FRAME_BYTES, SAMPLE_RATE

_CHUNK_MARKS_APART = 0.1
_MARKS_APART = 0.5
_RECENT_FRAMES = 500
"""Frames that may be on their way or in Twilio's buffer: ten seconds, many times the lead."""

_CUT_ANSWERS = 8
"""Answers remembered as silenced; their audio cannot come later than a few answers on."""


@dataclass(frozen=True)
class Heard:
    """How far the caller has heard an answer.

    Attributes:
        answer_id: the answer's context id.
        seconds: of the answer's audio, from its beginning.
        completed: that was all of it.
    """

    answer_id: str
    seconds: float
    completed: bool


@dataclass
class _Answer:
    id: str
    fed: float = 0.0
    """Seconds of audio that came down the pipeline."""
    ended: bool = False
    """No more will come."""
    sent: int = 0
    """Samples sent to the phone, the last frame's padding included."""
    marked: int = 0
    """Samples before the last mark sent."""
    confirmed: int = 0
    """Samples before the last mark returned."""
    closed: bool = False
    """The mark after its last sample has been sent."""
    chunk_ends: deque[float] = field(default_factory=deque)

    def seconds(self, samples: int) -> float:
        return min(samples / SAMPLE_RATE, self.fed)


@dataclass(frozen=True)
class _PendingMark:
    stream_position: int
    answer: _Answer
    answer_position: int
    last: bool


@dataclass(frozen=True)
class Unplayed:
    """What a phone that was emptied has to be sent again.

    Attributes:
        runs: Answer (None: other sound) and samples, in order; whole frames, the first of which it
            may have begun to play.
        marks: Marks that were due before that, under new names.
    """

    runs: tuple[tuple[str | None, int], ...]
    marks: tuple[str, ...]


class Playout:
    """The accounts of one call's outgoing audio; times are seconds of the clock in use."""

    def __init__(self) -> None:
        self._answers: dict[str, _Answer] = {}
        self._current: _Answer | None = None
        self._recent: deque[tuple[_Answer | None, int]] = deque(maxlen=_RECENT_FRAMES)
        self._pending: dict[str, _PendingMark] = {}
        self._cut: deque[str] = deque(maxlen=_CUT_ANSWERS)
        self._marks = 0
        self._sent = 0
        # Two clocks: the pace at which frames leave, and when the phone will have played them.
        # Only the second knows of the network, through the marks that return.
        self._paced_until = float("-inf")
        self._played_until = float("-inf")

    def lead(self, now: float) -> float:
        """Seconds of audio sent ahead of the clock."""
        return max(0.0, self._paced_until - now)

    @property
    def anything_sent(self) -> bool:
        """Whether the phone was sent any audio at all."""
        return self._sent > 0

    def announce(self, answer_id: str | None) -> None:
        """An answer came down the pipeline; its audio is queued behind what is there."""
        if answer_id is not None:
            self._answers.setdefault(answer_id, _Answer(answer_id))

    def was_cut(self, answer_id: str | None) -> bool:
        """Whether audio of this answer comes too late: it was silenced."""
        return answer_id in self._cut

    def feed(self, answer_id: str | None, seconds: float) -> None:
        """A chunk of an answer's audio came down the pipeline."""
        if (answer := self._known(answer_id)) is not None:
            answer.fed += seconds
            answer.chunk_ends.append(answer.fed)

    def end(self, answer_id: str | None) -> None:
        """All of an answer's audio has come down the pipeline."""
        if (answer := self._known(answer_id)) is not None:
            answer.ended = True

    def begin(self, answer_id: str | None) -> None:
        """What is sent from now on belongs to this answer (None: to no answer)."""
        self._current = self._known(answer_id)

    def sent(self, samples: int, now: float, of_answer: bool) -> None:
        """A frame left for the phone, as part of the current answer or as other sound."""
        duration = samples / SAMPLE_RATE
        self._sent += samples
        self._paced_until = max(self._paced_until, now) + duration
        self._played_until = max(self._played_until, now) + duration
        answer = self._current if of_answer else None
        self._recent.append((answer, samples))
        if answer is not None:
            answer.sent += samples

    def due_mark(self) -> str | None:
        """Name of a mark to send now, after the last frame.

        One is due when a chunk of the answer has ended, at least every half second, and after the
        answer's last sample.
        """
        answer = self._current
        if answer is None or answer.closed:
            return None
        sent = answer.sent / SAMPLE_RATE
        last = answer.ended and answer.seconds(answer.sent) >= answer.fed
        chunk_ended = False
        while answer.chunk_ends and answer.chunk_ends[0] <= sent:
            answer.chunk_ends.popleft()
            chunk_ended = True
        since = (answer.sent - answer.marked) / SAMPLE_RATE
        if not (last or since >= _MARKS_APART or (chunk_ended and since >= _CHUNK_MARKS_APART)):
            return None
        answer.marked = answer.sent
        answer.closed = last
        return self._await(_PendingMark(self._sent, answer, answer.sent, last))

    def returned(self, name: str, now: float) -> Heard | None:
        """A mark came back; None if it says nothing: it was not ours, or was cleared."""
        mark = self._pending.pop(name, None)
        if mark is None:
            return None
        self._played_until = now + (self._sent - mark.stream_position) / SAMPLE_RATE
        answer = mark.answer
        answer.confirmed = max(answer.confirmed, mark.answer_position)
        if mark.last:
            self._forget(answer)
        return Heard(answer.id, answer.seconds(answer.confirmed), completed=mark.last)

    def held(self, now: float) -> Unplayed:
        """The phone was emptied for a moment: what it has not played counts as not sent.

        The marks still out will return because of that and are forgotten.
        """
        first = min((mark.stream_position for mark in self._pending.values()), default=self._sent)
        unplayed = max(self._unplayed(now), self._sent - first)
        left = -(-unplayed // FRAME_BYTES) * FRAME_BYTES
        runs: deque[tuple[str | None, int]] = deque()
        while left > 0 and self._recent:
            owner, samples = self._recent.pop()
            taken = min(samples, left)
            if taken < samples:
                self._recent.append((owner, samples - taken))
            left -= taken
            self._sent -= taken
            if owner is not None:
                owner.sent -= taken
                owner.marked = min(owner.marked, owner.sent)
                owner.closed = False
            runs.appendleft((owner.id if owner is not None else None, taken))
        due = [mark for mark in self._pending.values() if mark.stream_position <= self._sent]
        self._pending.clear()
        self._paced_until = self._played_until = float("-inf")
        return Unplayed(tuple(runs), tuple(self._await(mark) for mark in due))

    @property
    def current(self) -> str | None:
        """The answer that is being sent."""
        return self._current.id if self._current is not None else None

    def cleared(self, now: float) -> list[Heard]:
        """The phone was silenced: how far each answer not yet heard to its end was heard.

        The marks still out will return because of the clear and are forgotten.
        """
        heard = [
            Heard(answer.id, answer.seconds(self._position(answer, now)), completed=False)
            for answer in self._answers.values()
        ]
        self._cut.extend(self._answers)
        self._answers.clear()
        self._pending.clear()
        self._recent.clear()
        self._current = None
        self._paced_until = self._played_until = float("-inf")
        return heard

    def new_name(self) -> str:
        """A name that no other mark of this call has."""
        self._marks += 1
        return f"m{self._marks}"

    def _position(self, answer: _Answer, now: float) -> int:
        """Samples of an answer that the phone has played by now."""
        unplayed = self._unplayed(now)
        waiting = 0
        for owner, samples in reversed(self._recent):
            if unplayed <= 0:
                break
            if owner is answer:
                waiting += min(samples, unplayed)
            unplayed -= samples
        pending = [m.answer_position for m in self._pending.values() if m.answer is answer]
        latest = min(pending, default=answer.sent)
        return max(answer.confirmed, min(answer.sent - waiting, latest))

    def _unplayed(self, now: float) -> int:
        """Samples that the phone has and has not played by now."""
        return round(max(0.0, self._played_until - now) * SAMPLE_RATE)

    def _await(self, mark: _PendingMark) -> str:
        name = self.new_name()
        self._pending[name] = mark
        return name

    def _known(self, answer_id: str | None) -> _Answer | None:
        return self._answers.get(answer_id) if answer_id is not None else None

    def _forget(self, answer: _Answer) -> None:
        self._answers.pop(answer.id, None)
        if self._current is answer:
            self._current = None
