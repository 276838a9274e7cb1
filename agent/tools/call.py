"""What a tool may do with the call that it is used on."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from agent.events import JSON


class PhoneError(RuntimeError):
    """The phone could not do what was asked; the message says why."""


class Phone(Protocol):
    """What only the side that holds the telephone line can do."""

    async def transfer(
        self, number: str, *, summary: str | None = None, warm: bool = False
    ) -> None:
        """Have the caller connected with a number as soon as the agent leaves the call.

        Args:
            number: In E.164, such as +15550100003.
            summary: What it is about, for whoever answers.
            warm: Return only when somebody is there and has been told what it is about.

        Raises:
            PhoneError: The carrier refused, or nobody came.
        """

    async def take_digits(
        self, after: Awaitable[object], wait_secs: float, longest: int | None, secret: bool
    ) -> str | None:
        """Wait for what the caller types next; nothing is recorded meanwhile.

        Args:
            after: Done when the caller has been asked.
            wait_secs: So long for the first key from then on.
            longest: So many keys are enough; None: as the settings say.
            secret: Keep it from the model and out of everything that is written.

        Returns:
            The keys; None if none came.
        """

    @property
    def typed(self) -> str | None:
        """What the caller typed last; None before that."""

    async def pause_recording(self) -> None:
        """Record nothing until it is resumed."""

    async def resume_recording(self) -> None:
        """Record again."""


class Call(Protocol):
    """The call on which a tool is used.

    A Python function that is a tool gets it for a parameter annotated with this class.
    """

    @property
    def said(self) -> bool:
        """Whether the agent says something before the tool is used, in the same answer."""

    async def words_heard(self) -> bool:
        """Wait until the caller has heard that; False if the caller interrupted it."""

    def after_answer(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do something when the caller has heard what the agent says to the tool's result.

        An interruption until then drops it.
        """

    async def hang_up(self) -> None:
        """End the call, after what is still being said."""

    async def transfer(
        self, number: str, *, summary: str | None = None, warm: bool = False
    ) -> None:
        """Leave the call and have the caller connected with a number.

        Args:
            number: In E.164.
            summary: What it is about, for whoever answers.
            warm: Leave only when somebody is there and has been told what it is about.

        Raises:
            PhoneError: The carrier refused, nobody came, or there is no telephone.
        """

    async def take_digits(
        self, wait_secs: float = 15.0, longest: int | None = None, secret: bool = False
    ) -> str | None:
        """Wait for what the caller types next; nothing is recorded meanwhile.

        Args:
            wait_secs: So long for the first key, once the agent's words have been heard.
            longest: So many keys are enough; None: as the settings say.
            secret: Keep it from the model and out of everything that is written.

        Returns:
            The keys; None if none came.

        Raises:
            PhoneError: There is no telephone.
        """

    @property
    def typed(self) -> str | None:
        """What the caller typed last, secret or not; None before that."""

    async def pause_recording(self) -> None:
        """Record nothing, such as while the caller says a card's number, until it is resumed."""

    async def resume_recording(self) -> None:
        """Record again."""

    async def press(self, digits: str) -> None:
        """Send digits as touch tones, after what is still being said.

        Args:
            digits: Of 0-9, * and #.
        """

    def record(self, name: str, /, **fields: JSON) -> None:
        """Write an event into the call's record."""
