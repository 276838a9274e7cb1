"""What the REST API is asked to do, read from its forms; what is wrong becomes Twilio's error."""

import re
from collections.abc import Mapping, Sequence

from telephony.simulator.live_call import Document, Fetch, Program
from telephony.simulator.openapi import Problem
from telephony.simulator.outbound import CallRequest, Detection, RecordingRequest
from telephony.simulator.verbs import Callback

Form = Mapping[str, Sequence[str]]

_CODES = {
    "To": 21201,
    "From": 21213,
    "Url": 21205,
    "FallbackUrl": 21205,
    "SendDigits": 21206,
    "Timeout": 21208,
    "Method": 21209,
    "FallbackMethod": 21209,
    "StatusCallbackMethod": 21209,
    "StatusCallback": 21609,
    "StatusCallbackEvent": 21626,
    "ApplicationSid": 21218,
}
_EVENTS = frozenset({"initiated", "ringing", "answered", "completed"})
_OTHER = 20001
_NUMBER = re.compile(r"\+[1-9][0-9]{1,14}|sip:\S+|client:\S+")


class ApiError(Exception):
    """The API refuses a request.

    Attributes:
        status: HTTP status.
        code: Twilio's error.
    """

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def refuse(problems: Sequence[Problem]) -> None:
    """Refuse a request for what Twilio would refuse; an unknown parameter it ignores.

    Raises:
        ApiError: A parameter is missing or has a wrong value.
    """
    for problem in problems:
        if problem.kind != "unknown":
            raise ApiError(400, _CODES.get(problem.name, _OTHER), problem.detail)


def one(form: Form, name: str, default: str = "") -> str:
    """A field's value."""
    values = form.get(name, ())
    return values[0] if values and values[0] else default


def callback(form: Form, name: str, events: frozenset[str] | None = None) -> Callback | None:
    """Where to tell what happens: the fields NAME, NAMEMethod and NAMEEvent."""
    url = one(form, name)
    # Several events come as several fields or, separated by spaces, in one.
    given = tuple(" ".join(form.get(f"{name}Event", ())).split())
    unknown = [event for event in given if events is not None and event not in events]
    if unknown:
        code = _CODES.get(f"{name}Event", _OTHER)
        raise ApiError(400, code, f"{name}Event: no such event {', '.join(unknown)}")
    return Callback(url, one(form, f"{name}Method", "POST"), given) if url else None


def program(form: Form) -> Program | None:
    """What the call is to do, or None if the form does not say."""
    url = one(form, "Url")
    if url:
        fallback = one(form, "FallbackUrl")
        other = Callback(fallback, one(form, "FallbackMethod", "POST")) if fallback else None
        return Fetch(url, one(form, "Method", "POST"), fallback=other)
    text = one(form, "Twiml")
    return Document(text) if text else None


def call_request(form: Form) -> CallRequest:
    """A call to make.

    Raises:
        ApiError: Twilio would refuse to.
    """
    to, from_ = one(form, "To"), one(form, "From")
    if not _NUMBER.fullmatch(to):
        raise ApiError(400, 21211, f"The phone number you are attempting to call, {to}, is invalid")
    if not _NUMBER.fullmatch(from_):
        raise ApiError(400, 21212, f"The source phone number provided, {from_}, is invalid")
    what = program(form)
    if what is None:
        raise ApiError(400, 21205, "Url parameter is required")
    digits = one(form, "SendDigits")
    if not re.fullmatch(r"[0-9*#wW]*", digits):
        raise ApiError(400, 21206, f"SendDigits: expected 0-9 * # and w, got {digits!r}")
    return CallRequest(
        to=to,
        from_=from_,
        program=what,
        status_callback=callback(form, "StatusCallback", _EVENTS),
        timeout=_number(form, "Timeout", 60, 1, 600),
        time_limit=_number(form, "TimeLimit", 14400, 1, 86400),
        send_digits=digits or None,
        detection=_detection(form),
        recording=recording_request(form) if one(form, "Record").lower() == "true" else None,
    )


def recording_request(form: Form) -> RecordingRequest:
    """How to record.

    Raises:
        ApiError: Twilio would refuse to.
    """
    _choice(form, "Trim", "trim-silence", "do-not-trim")
    events = frozenset({"in-progress", "completed", "absent"})
    return RecordingRequest(
        channels=2 if _choice(form, "RecordingChannels", "mono", "dual") == "dual" else 1,
        track=_choice(form, "RecordingTrack", "both", "inbound", "outbound"),
        callback=callback(form, "RecordingStatusCallback", events),
    )


def time_limit(form: Form) -> float | None:
    """A new limit of the call's duration in seconds, or None."""
    return _number(form, "TimeLimit", 14400, 1, 86400) if one(form, "TimeLimit") else None


def _detection(form: Form) -> Detection | None:
    mode = _choice(form, "MachineDetection", "", "Enable", "DetectMessageEnd")
    if not mode:
        return None
    return Detection(
        mode,
        _number(form, "MachineDetectionTimeout", 30, 3, 59),
        _choice(form, "AsyncAmd", "false", "true") == "true",
        callback(form, "AsyncAmdStatusCallback"),
    )


def _choice(form: Form, name: str, *values: str) -> str:
    """One of some values, the first by default."""
    value = one(form, name, values[0])
    if value not in values:
        named = ", ".join(value for value in values if value)
        raise ApiError(400, _CODES.get(name, _OTHER), f"{name}: expected {named}, got {value!r}")
    return value


def _number(form: Form, name: str, default: int, least: int, most: int) -> int:
    value = int(one(form, name, str(default)))
    if not least <= value <= most:
        code = _CODES.get(name, _OTHER)
        raise ApiError(400, code, f"{name}: expected {least} to {most}, got {value}")
    return value
