"""What the agent says of its own accord: when the caller says nothing, and in the next gap.

Time is counted in the caller's audio: a silence of the network is not one of the caller's.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from agent.events import CallObserver
from agent.turn_taking import TurnTakingSettings

_GAP_SECS = 0.3
"""Quiet in which something may be said that nobody has asked for."""
_PATIENCE_SECS = 15.0
"""After so long without a gap it is said all the same."""


@dataclass(frozen=True)
class Silence:
    """What is done about a caller who says nothing.

    Attributes:
        prompt: Said word for word.
        give_up: Called when that did not help; the call is to end with a goodbye.
    """

    prompt: str
    give_up: Callable[[], None]


class Speaker(Protocol):
    """Who says it."""

    def is_idle(self) -> bool:
        """Whether only the caller could say something now, and does not."""

    def say(self, words: str) -> None:
        """Say words as they are, after what is being said."""


class Quiet:
    """Follows one call's silences."""

    def __init__(
        self,
        settings: TurnTakingSettings,
        silence: Silence | None,
        speaker: Speaker,
        observer: CallObserver,
    ):
        """Begin at the call's beginning.

        Args:
            settings: How long silences may be.
            silence: What is done about them; None: nothing.
            speaker: The agent.
            observer: Told of prompts.
        """
        self._settings = settings
        self._silence = silence
        self._speaker = speaker
        self._observer = observer
        self._quiet = 0.0
        self._prompts = 0
        self._notices: deque[str] = deque()
        self._waited = 0.0

    def announce(self, words: str) -> None:
        """Have words said in the next gap."""
        self._notices.append(words)

    def caller_acted(self) -> None:
        """The caller has said something, or pressed a key."""
        self._quiet = 0.0
        self._prompts = 0

    def pass_time(self, seconds: float) -> None:
        """So much more of the caller's audio has come."""
        self._quiet = self._quiet + seconds if self._speaker.is_idle() else 0.0
        if self._notices:
            self._waited += seconds
            if self._quiet >= _GAP_SECS or self._waited >= _PATIENCE_SECS:
                self._waited = 0.0
                self._speaker.say(self._notices.popleft())
            return
        longest = self._settings.silence_secs
        if self._silence is None or longest is None or self._quiet < longest:
            return
        self._quiet = 0.0
        if self._prompts == self._settings.silence_prompts:
            self._silence.give_up()
            return
        self._prompts += 1
        self._observer.event("silence_prompt", number=self._prompts, silence=longest)
        self._speaker.say(self._silence.prompt)
