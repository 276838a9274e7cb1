"""What a tool may do with the call that it is used on."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from agent.events import JSON


class PhoneError(RuntimeError):
    """The phone could not do what was asked; the message says why."""


class Phone(Protocol):
    """What only the side that holds the telephone line can do."""

    async def transfer(self, number: str) -> None:
        """Have the caller connected with a number as soon as the agent leaves the call.

        Args:
            number: In E.164, such as +15550100003.

        Raises:
            PhoneError: The carrier refused.
        """


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

    async def transfer(self, number: str) -> None:
        """Leave the call and have the caller connected with a number.

        Raises:
            PhoneError: The carrier refused, or there is no telephone.
        """

    async def press(self, digits: str) -> None:
        """Send digits as touch tones, after what is still being said.

        Args:
            digits: Of 0-9, * and #.
        """

    def record(self, name: str, /, **fields: JSON) -> None:
        """Write an event into the call's record."""
