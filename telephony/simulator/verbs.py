"""TwiML as values: the verbs that this Twilio executes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class Callback:
    """Where to tell what happens.

    Attributes:
        url: Its address.
        method: ``GET`` or ``POST``.
        events: Which events are told; empty where there is no choice.
    """

    url: str
    method: str = "POST"
    events: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stream:
    """``<Connect><Stream>``: media to and from a WebSocket, until one side ends it.

    Attributes:
        url: Where to connect.
        parameters: Handed to the server in its ``start`` event.
        name: The stream's name in callbacks.
        status_callback: Told when the stream starts, stops or fails, or None.
        action: Asked for what comes next when the stream has ended (``<Connect action>``), or None.
    """

    url: str
    parameters: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    name: str | None = None
    status_callback: Callback | None = None
    action: Callback | None = None


@dataclass(frozen=True)
class Say:
    """``<Say>``: Twilio's own voice; ``loop`` 0 is without end."""

    text: str
    loop: int = 1


@dataclass(frozen=True)
class Play:
    """``<Play>``: a recording, or touch tones; ``loop`` 0 is without end.

    Attributes:
        url: Where the recording is; None plays ``digits``.
        digits: Keys, and ``w`` for half a second of silence.
        loop: How often.
    """

    url: str | None
    digits: str | None = None
    loop: int = 1


@dataclass(frozen=True)
class Pause:
    """``<Pause>``: silence for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Number:
    """``<Dial>`` of a telephone number.

    Attributes:
        number: As written.
        send_digits: Keys that are pressed when it answers.
        status_callback: Told how the call to it goes, or None.
    """

    number: str
    send_digits: str | None = None
    status_callback: Callback | None = None


@dataclass(frozen=True)
class Conference:
    """``<Dial>`` into a conference.

    Attributes:
        name: Its name.
        start_on_enter: The conference begins when this caller joins.
        end_on_exit: It is over when this caller leaves.
        muted: This caller is not heard.
        status_callback: Told who joins and leaves, or None.
    """

    name: str
    start_on_enter: bool = True
    end_on_exit: bool = False
    muted: bool = False
    status_callback: Callback | None = None


@dataclass(frozen=True)
class Dial:
    """``<Dial>``: connect the caller with somebody else.

    Attributes:
        numbers: Telephone numbers, called at the same time; the first to answer is connected.
        conference: The conference that is joined instead, or None.
        action: Asked for what comes next, or None: the next verb does.
        timeout: Seconds for which the far end rings.
        time_limit: Longest conversation in seconds.
        caller_id: The number that is shown, or None: the caller's.
        record: Twilio's ``record`` attribute: whether and from when on.
        recording_callback: Told about the recording, or None.
    """

    numbers: tuple[Number, ...] = ()
    conference: Conference | None = None
    action: Callback | None = None
    timeout: float = 30.0
    time_limit: float = 14400.0
    caller_id: str | None = None
    record: str = "do-not-record"
    recording_callback: Callback | None = None


@dataclass(frozen=True)
class Record:
    """``<Record>``: what the caller says, until silence, a key or the end.

    Attributes:
        action: Asked for what comes next; None asks the current document's URL.
        timeout: Seconds of silence that end it.
        max_length: Its longest duration in seconds.
        finish_on_key: Keys that end it.
        play_beep: A tone comes first.
        recording_callback: Told about the recording, or None.
    """

    action: Callback | None = None
    timeout: float = 5.0
    max_length: float = 3600.0
    finish_on_key: str = "1234567890*#"
    play_beep: bool = True
    recording_callback: Callback | None = None


@dataclass(frozen=True)
class Redirect:
    """``<Redirect>``: go on with the document of another URL."""

    url: str
    method: str = "POST"


@dataclass(frozen=True)
class Hangup:
    """``<Hangup>``: the end of the call."""


@dataclass(frozen=True)
class Reject:
    """``<Reject>``: the call is not answered; ``reason`` is ``rejected`` or ``busy``."""

    reason: str


Verb = Stream | Say | Play | Pause | Dial | Record | Redirect | Hangup | Reject
