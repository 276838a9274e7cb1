"""Keeps long answers from going round in circles."""

from __future__ import annotations

from collections import deque

# Speech codes at 12.5 a second: the longest steady sound or silence, 3 s, ...
LONGEST_RUN = 38
# ... and the span that may be said twice in an answer, but not a third time: 1.28 s.
SPEECH_SPAN = 16
# The same for text: a run of the interleave.
TEXT_SPAN = 13
_TIMES = 2


class RepetitionGuard:
    """Says which next ids would complete something an answer has said too often already.

    GLM-4-Voice's answers may fall into noise or loops past some 500 tokens. Three things are
    barred: the same speech code more than ``LONGEST_RUN`` times on end, and a third verbatim
    occurrence of ``speech_span`` speech codes or of ``TEXT_SPAN`` text ids. Speech and text are
    followed apart, so that the interleave does not hide a repetition. Occurrences that overlap
    count once, and a span of one code alone is left to the first rule, since pauses recur.

    A token costs the same however long the answer is.

    Args:
        audio: First and last + 1 of the ids of speech codes.
        speech_span: Length of a speech span.

    Raises:
        ValueError: A span of fewer than 2 codes.
    """

    def __init__(self, audio: tuple[int, int], speech_span: int = SPEECH_SPAN):
        if speech_span < 2:
            raise ValueError(f"speech_span is {speech_span}, expected 2 or more")
        self._start, self._stop = audio
        self._speech = _Spans(speech_span, steady=False)
        self._text = _Spans(TEXT_SPAN, steady=True)
        self._last = -1
        self._run = 0

    def push(self, token: int) -> None:
        """Take in the answer's next id."""
        if not self._start <= token < self._stop:
            self._text.push(token)
            return
        self._run = self._run + 1 if token == self._last else 1
        self._last = token
        self._speech.push(token)

    @property
    def barred(self) -> set[int]:
        """Ids that must not come next."""
        barred = self._speech.completing() | self._text.completing()
        if self._run >= LONGEST_RUN:
            barred.add(self._last)
        return barred


class _Spans:
    """Counts the spans of one length in a growing row of ids.

    Args:
        length: Of a span, at least 2.
        steady: Whether a span of the same id over and over counts.
    """

    def __init__(self, length: int, steady: bool):
        self._length = length
        self._steady = steady
        self._recent: deque[int] = deque(maxlen=length - 1)
        self._said = 0
        # After which ids which id has completed a span: how often, and where it last began.
        self._spans: dict[tuple[int, ...], dict[int, tuple[int, int]]] = {}

    def push(self, token: int) -> None:
        if len(self._recent) == self._length - 1:
            before = tuple(self._recent)
            if self._steady or any(earlier != token for earlier in before):
                ends = self._spans.setdefault(before, {})
                times, begun = ends.get(token, (0, -self._length))
                begins = self._said - self._length + 1
                if begins - begun >= self._length:
                    ends[token] = times + 1, begins
        self._recent.append(token)
        self._said += 1

    def completing(self) -> set[int]:
        """Ids that would complete a span once more than it may be said."""
        ends = self._spans.get(tuple(self._recent), {})
        begins = self._said - self._length + 1
        return {
            token
            for token, (times, begun) in ends.items()
            if times >= _TIMES and begins - begun >= self._length
        }
