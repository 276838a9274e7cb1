"""Twilio's REST API, as far as a call centre needs it: make calls, steer them, record them.

What may be asked twice without harm is asked again when Twilio is busy or out of order. A call is
made again only where the first request certainly did nothing: nobody's phone is to ring twice.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp

from telephony.clock import Clock, SystemClock

_SECONDS = 10.0
_ATTEMPTS = 4
_BACKOFF = 0.5
"""Seconds before the second attempt; doubled before each further one."""
_LONGEST_WAIT = 10.0
_DID_NOTHING = frozenset({429, 503})
"""Answers of somebody who has not looked at the request."""
CURRENT_RECORDING = "Twilio.CURRENT"

_Fields = Sequence[tuple[str, str]]


class RestError(RuntimeError):
    """Twilio refused or could not be reached; the message says why.

    Attributes:
        status: HTTP status; None if Twilio could not be reached.
        code: Twilio's error code, such as 21211 (an invalid number); None if there was none.
    """

    def __init__(self, message: str, status: int | None = None, code: int | None = None):
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Detection:
    """Answering machine detection.

    Attributes:
        message_end: Wait for the end of a machine's greeting, so that a message can be left.
        callback: Told the outcome while the call goes on; None: the call waits for it.
        timeout: Seconds after which the outcome is ``unknown``, 3 to 59.
    """

    message_end: bool
    callback: str | None
    timeout: int = 30


@dataclass(frozen=True)
class NewCall:
    """A call to make.

    Attributes:
        to: Whom to call (E.164).
        from_: The number that is shown, one of the account's.
        url: Asked for TwiML when somebody answers; None where ``twiml`` is given.
        twiml: What the call does when somebody answers.
        status_callback: Told how the call goes: ringing, answered, completed.
        ring_secs: So long it rings.
        time_limit: Longest duration in seconds; None: Twilio's four hours.
        detection: Whether a machine answers is found out, and how; None: it is not.
    """

    to: str
    from_: str
    url: str | None = None
    twiml: str | None = None
    status_callback: str | None = None
    ring_secs: int = 30
    time_limit: int | None = None
    detection: Detection | None = None

    def fields(self) -> list[tuple[str, str]]:
        """The request's form."""
        fields = [("To", self.to), ("From", self.from_), ("Timeout", str(self.ring_secs))]
        if self.url is not None:
            fields.append(("Url", self.url))
        if self.twiml is not None:
            fields.append(("Twiml", self.twiml))
        if self.status_callback is not None:
            fields.append(("StatusCallback", self.status_callback))
            events = ("ringing", "answered", "completed")
            fields += [("StatusCallbackEvent", event) for event in events]
        if self.time_limit is not None:
            fields.append(("TimeLimit", str(self.time_limit)))
        detection = self.detection
        if detection is not None:
            mode = "DetectMessageEnd" if detection.message_end else "Enable"
            fields.append(("MachineDetection", mode))
            fields.append(("MachineDetectionTimeout", str(detection.timeout)))
            if detection.callback is not None:
                fields.append(("AsyncAmd", "true"))
                fields.append(("AsyncAmdStatusCallback", detection.callback))
        return fields


class TwilioRest:
    """Makes and steers calls."""

    def __init__(self, auth_token: str, url: str, clock: Clock | None = None):
        """Use an auth token.

        Args:
            auth_token: The account's.
            url: Of the API; that of a loopback Twilio in tests.
            clock: Waits between attempts.
        """
        self._auth_token = auth_token
        self._url = url.rstrip("/")
        self._clock = clock or SystemClock()

    async def create(self, account_sid: str, call: NewCall) -> str:
        """Make a call.

        Returns:
            Its identifier.

        Raises:
            RestError: Twilio refused, or cannot be reached.
        """
        made = await self._post(account_sid, "Calls.json", call.fields(), repeatable=False)
        sid = made.get("sid")
        if not isinstance(sid, str):
            raise RestError("Twilio: expected a call with a sid")
        return sid

    async def execute(self, account_sid: str, call_sid: str, twiml: str) -> None:
        """Have a running call leave what it does and execute a document.

        Args:
            account_sid: The account it belongs to.
            call_sid: The call.
            twiml: The document.

        Raises:
            RestError: Twilio refused, with its code and message, or cannot be reached.
        """
        await self._post(account_sid, f"Calls/{call_sid}.json", [("Twiml", twiml)])

    async def end(self, account_sid: str, call_sid: str) -> None:
        """End a call, whether it rings or runs.

        Raises:
            RestError: Twilio refused, or cannot be reached.
        """
        await self._post(account_sid, f"Calls/{call_sid}.json", [("Status", "completed")])

    async def record(self, account_sid: str, call_sid: str, callback: str) -> str:
        """Record both sides of a running call, apart from each other.

        Args:
            account_sid: The account it belongs to.
            call_sid: The call.
            callback: Told where the recording is.

        Returns:
            The recording's identifier.

        Raises:
            RestError: Twilio refused, or cannot be reached.
        """
        fields = [
            ("RecordingChannels", "dual"),
            ("RecordingStatusCallback", callback),
            ("RecordingStatusCallbackEvent", "completed absent"),
        ]
        path = f"Calls/{call_sid}/Recordings.json"
        made = await self._post(account_sid, path, fields, repeatable=False)
        return str(made.get("sid", ""))

    async def update_recording(
        self, account_sid: str, call_sid: str, status: Literal["paused", "in-progress", "stopped"]
    ) -> None:
        """Pause the recording of a call (with silence in its place), go on, or stop.

        Raises:
            RestError: Twilio refused, or cannot be reached.
        """
        fields: list[tuple[str, str]] = [("Status", status)]
        if status == "paused":
            fields.append(("PauseBehavior", "silence"))
        path = f"Calls/{call_sid}/Recordings/{CURRENT_RECORDING}.json"
        await self._post(account_sid, path, fields)

    async def _post(
        self, account_sid: str, path: str, fields: _Fields, *, repeatable: bool = True
    ) -> Mapping[str, Any]:
        url = f"{self._url}/2010-04-01/Accounts/{account_sid}/{path}"
        credentials = base64.b64encode(f"{account_sid}:{self._auth_token}".encode()).decode()
        headers = {"Authorization": f"Basic {credentials}"}
        timeout = aiohttp.ClientTimeout(total=_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, headers=headers) as session:
            for attempt in range(1, _ATTEMPTS + 1):
                wait = _BACKOFF * 2 ** (attempt - 1)
                try:
                    async with session.post(url, data=aiohttp.FormData(fields)) as response:
                        text = await response.text()
                        if response.status < 300:
                            return _object(text)
                        status = response.status
                        error = _refusal(status, text)
                        again = status in _DID_NOTHING or (repeatable and status >= 500)
                        wait = max(wait, _seconds(response.headers.get("Retry-After")))
                except (aiohttp.ClientError, TimeoutError) as problem:
                    again = repeatable or isinstance(problem, aiohttp.ClientConnectorError)
                    reason = str(problem) or type(problem).__name__
                    error = RestError(f"Twilio's REST API cannot be reached: {reason}")
                if not again or attempt == _ATTEMPTS:
                    raise error
                await self._clock.sleep(min(wait, _LONGEST_WAIT))
        raise AssertionError("unreachable")


def _object(text: str) -> Mapping[str, Any]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        raise RestError("Twilio: expected a JSON object")
    return content


def _refusal(status: int, text: str) -> RestError:
    try:
        content = _object(text)
        return RestError(f"Twilio: {content['message']}", status, int(content["code"]))
    except (RestError, KeyError, TypeError, ValueError):
        return RestError(f"Twilio: HTTP {status}", status)


def _seconds(retry_after: str | None) -> float:
    return float(retry_after) if retry_after is not None and retry_after.isdigit() else 0.0
