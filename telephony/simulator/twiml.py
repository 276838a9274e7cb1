"""Reads TwiML, what a voice webhook answers, as far as this Twilio executes it."""

import re
import xml.etree.ElementTree as ElementTree
from types import MappingProxyType
from urllib.parse import urlsplit

from telephony.simulator.verbs import (
    Callback,
    Conference,
    Dial,
    Hangup,
    Number,
    Pause,
    Play,
    Record,
    Redirect,
    Reject,
    Say,
    Stream,
    Verb,
)

_CALLBACK = "statusCallback statusCallbackMethod statusCallbackEvent"
_RECORDING = "recordingStatusCallback recordingStatusCallbackMethod recordingStatusCallbackEvent"
_ATTRIBUTES = {
    tag: frozenset(names.split())
    for tag, names in {
        "Response": "",
        "Connect": "action method",
        "Stream": "url name track statusCallback statusCallbackMethod",
        "Parameter": "name value",
        "Say": "voice language loop",
        "Play": "loop digits",
        "Pause": "length",
        "Dial": "action method timeout timeLimit callerId hangupOnStar record trim ringTone"
        f" answerOnBridge recordingTrack sequential {_RECORDING}",
        "Number": f"url method sendDigits byoc phoneNumberSid {_CALLBACK}",
        "Conference": "muted beep startConferenceOnEnter endConferenceOnExit waitUrl waitMethod"
        f" maxParticipants record region trim coach participantLabel eventCallbackUrl {_CALLBACK}"
        f" {_RECORDING}",
        "Record": "action method timeout maxLength finishOnKey playBeep trim transcribe"
        f" transcribeCallback {_RECORDING}",
        "Redirect": "method",
        "Hangup": "",
        "Reject": "reason",
    }.items()
}
"""What Twilio documents. ``track`` and the like are read and change nothing here."""
_RECORD_VALUES = (
    "do-not-record",
    "record-from-answer",
    "record-from-ringing",
    "record-from-answer-dual",
    "record-from-ringing-dual",
)


class TwiMLError(ValueError):
    """The answer cannot be executed; ``code`` is the error that Twilio logs."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def parse_twiml(document: str) -> list[Verb]:
    """Read a TwiML document.

    Twilio logs most of what is wrong in a document as a warning and goes on as well as it can;
    here it ends the call, so that it is noticed.

    Args:
        document: What the webhook answered.

    Returns:
        Its verbs in order.

    Raises:
        TwiMLError: It is no TwiML (12100, 12102), has a verb, a noun or an attribute that is
            missing, wrong or not executed here (12200), or an attribute whose value Twilio has an
            error of its own for (13xxx).
    """
    if "<!DOCTYPE" in document:
        raise TwiMLError(12100, "TwiML has no document type")
    try:
        root = ElementTree.fromstring(document)
    except ElementTree.ParseError as error:
        raise TwiMLError(12100, f"TwiML is not well-formed XML: {error}") from None
    if root.tag != "Response":
        raise TwiMLError(12102, f"TwiML's root is <Response>, got <{root.tag}>")
    return [_verb(element) for element in root]


def _verb(element: ElementTree.Element) -> Verb:
    if element.tag not in _ATTRIBUTES or element.tag in ("Response", "Stream", "Parameter"):
        raise TwiMLError(12200, f"TwiML verb <{element.tag}> is not one that this Twilio executes")
    _known_attributes(element)
    match element.tag:
        case "Connect":
            return _connect(element)
        case "Say":
            return Say(_text(element, 13520), _whole(element, "loop", 1, 13510))
        case "Play":
            return _play(element)
        case "Pause":
            return Pause(_whole(element, "length", 1, 13910))
        case "Dial":
            return _dial(element)
        case "Record":
            return _record(element)
        case "Redirect":
            return Redirect(_text(element, 11100), _method(element, "method", 13710))
        case "Hangup":
            return Hangup()
        case "Reject":
            reason = _one_of(element, "reason", ("rejected", "busy"), 13810)
            return Reject(reason)
    raise TwiMLError(12200, f"<{element.tag}> stands inside another verb")


def _connect(connect: ElementTree.Element) -> Stream:
    nouns = [noun for noun in connect if noun.tag == "Stream"]
    if len(nouns) != 1 or len(connect) != 1:
        raise TwiMLError(12200, "<Connect> holds exactly one <Stream>")
    noun = nouns[0]
    _known_attributes(noun)
    url = noun.get("url", "")
    parts = urlsplit(url)
    loopback = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if parts.scheme != "wss" and not (parts.scheme == "ws" and loopback):
        raise TwiMLError(12200, f"<Stream url> is a wss:// address, got {url!r}")
    if parts.query:
        raise TwiMLError(12200, f"<Stream url> has no query string, got {url!r}")
    parameters: dict[str, str] = {}
    for parameter in noun:
        name, value = parameter.get("name"), parameter.get("value")
        if parameter.tag != "Parameter" or name is None or value is None:
            raise TwiMLError(12200, "<Stream> holds <Parameter name value> and nothing else")
        _known_attributes(parameter)
        parameters[name] = value
    return Stream(
        url,
        MappingProxyType(parameters),
        noun.get("name"),
        _callback(noun, "statusCallback", "statusCallbackMethod"),
        _callback(connect, "action", "method"),
    )


def _play(element: ElementTree.Element) -> Play:
    loop = _whole(element, "loop", 1, 13410)
    digits = element.get("digits")
    url = "".join(element.itertext()).strip() or None
    if (url is None) == (digits is None):
        raise TwiMLError(12200, "<Play> holds the URL of a recording, or has digits")
    if digits is not None and not re.fullmatch(r"[0-9*#wW]+", digits):
        raise TwiMLError(12200, f"<Play digits> are 0-9 * # and w, got {digits!r}")
    return Play(url, digits, loop)


def _dial(element: ElementTree.Element) -> Dial:
    for noun in element:
        if noun.tag not in ("Number", "Conference"):
            raise TwiMLError(13215, f"<Dial> of a <{noun.tag}> is not one that this Twilio makes")
        _known_attributes(noun)
    conferences = [_conference(noun) for noun in element if noun.tag == "Conference"]
    numbers = [_number(noun) for noun in element if noun.tag == "Number"]
    text = (element.text or "").strip()
    if text:
        numbers.append(Number(text))
    if len(conferences) > 1 or bool(conferences) == bool(numbers):
        raise TwiMLError(13215, "<Dial> holds telephone numbers or one <Conference>")
    for number in numbers:
        if not re.fullmatch(r"\+?[0-9() .-]{3,20}", number.number):
            raise TwiMLError(13223, f"<Dial> of {number.number!r}: not a telephone number")
    _one_of(element, "hangupOnStar", ("false", "true"), 13213)
    return Dial(
        numbers=tuple(numbers),
        conference=conferences[0] if conferences else None,
        action=_callback(element, "action", "method", 13210),
        timeout=_whole(element, "timeout", 30, 13212),
        time_limit=_whole(element, "timeLimit", 14400, 13216),
        caller_id=element.get("callerId"),
        record=_one_of(element, "record", _RECORD_VALUES, 13217),
        recording_callback=_recording_callback(element),
    )


def _number(noun: ElementTree.Element) -> Number:
    digits = noun.get("sendDigits")
    if digits is not None and not re.fullmatch(r"[0-9*#wW]+", digits):
        raise TwiMLError(13222, f"<Number sendDigits> are 0-9 * # and w, got {digits!r}")
    callback = _callback(noun, "statusCallback", "statusCallbackMethod", 13221)
    return Number(_text(noun, 13224), digits, callback)


def _conference(noun: ElementTree.Element) -> Conference:
    return Conference(
        name=_text(noun, 13237),
        start_on_enter=_flag(noun, "startConferenceOnEnter", True, 13232),
        end_on_exit=_flag(noun, "endConferenceOnExit", False, 13231),
        muted=_flag(noun, "muted", False, 13230),
        status_callback=_callback(noun, "statusCallback", "statusCallbackMethod"),
    )


def _record(element: ElementTree.Element) -> Record:
    keys = element.get("finishOnKey", "1234567890*#")
    if not re.fullmatch(r"[0-9*#]*", keys):
        raise TwiMLError(13613, f"<Record finishOnKey> are 0-9 * #, got {keys!r}")
    return Record(
        action=_callback(element, "action", "method", 13610),
        timeout=_whole(element, "timeout", 5, 13611),
        max_length=_whole(element, "maxLength", 3600, 13612),
        finish_on_key=keys,
        play_beep=_flag(element, "playBeep", True, 13616),
        recording_callback=_recording_callback(element),
    )


def _known_attributes(element: ElementTree.Element) -> None:
    for name in element.keys():  # noqa: SIM118 (an element iterates over its children)
        if name not in _ATTRIBUTES[element.tag]:
            raise TwiMLError(12200, f"<{element.tag}> has no attribute {name}")


def _text(element: ElementTree.Element, code: int) -> str:
    text = " ".join("".join(element.itertext()).split())
    if not text:
        raise TwiMLError(code, f"<{element.tag}> is empty")
    return text


def _whole(element: ElementTree.Element, name: str, default: int, code: int) -> int:
    value = element.get(name, str(default))
    if not (value.isascii() and value.isdigit()):
        raise TwiMLError(code, f"<{element.tag} {name}> is a whole number, got {value!r}")
    return int(value)


def _one_of(element: ElementTree.Element, name: str, values: tuple[str, ...], code: int) -> str:
    value = element.get(name, values[0])
    if value not in values:
        raise TwiMLError(
            code, f"<{element.tag} {name}> is one of {', '.join(values)}, got {value!r}"
        )
    return value


def _flag(element: ElementTree.Element, name: str, default: bool, code: int) -> bool:
    values = ("true", "false") if default else ("false", "true")
    return _one_of(element, name, values, code) == "true"


def _method(element: ElementTree.Element, name: str, code: int = 12200) -> str:
    return _one_of(element, name, ("POST", "GET"), code)


def _callback(
    element: ElementTree.Element, name: str, method: str, code: int = 12200
) -> Callback | None:
    how = _method(element, method, code)
    url = element.get(name)
    return Callback(url, how, tuple(element.get(f"{name}Event", "").split())) if url else None


def _recording_callback(element: ElementTree.Element) -> Callback | None:
    name = "recordingStatusCallback"
    return _callback(element, name, f"{name}Method")
