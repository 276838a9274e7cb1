"""Twilio's REST API for calls and recordings, over a loopback Twilio.

Whatever is asked is held against Twilio's own description first. What that does not allow is a
fault of the agent's: it is kept in ``faults``, for a test to fail on, and answered as Twilio does.
"""

import base64
import binascii
import hmac
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from telephony.simulator.carrier import LoopbackTwilio
from telephony.simulator.live_call import API_VERSION, OVER, End, LiveCall
from telephony.simulator.openapi import Description
from telephony.simulator.recordings import Recording
from telephony.simulator.rest_forms import (
    ApiError,
    Form,
    call_request,
    callback,
    one,
    program,
    recording_request,
    refuse,
    time_limit,
)
from telephony.simulator.rest_resources import (
    Resource,
    call_resource,
    error_resource,
    page,
    recording_resource,
)
from telephony.simulator.trace import Cause

CURRENT = "Twilio.CURRENT"
"""Stands for the recording that is being made."""

_Answer = tuple[int, Resource | None]
_MEDIA = {"": "WAV", ".wav": "WAV", ".mp3": "MP3"}


@dataclass(frozen=True)
class _Asked:
    """A request that the description allows: its path, the path's identifiers, its parameters."""

    path: str
    ids: Mapping[str, str]
    form: Form
    query: Form

    @property
    def of_call(self) -> bool:
        """It is about a call's recordings, not the account's."""
        return "CallSid" in self.ids


class RestApi:
    """The API of one account.

    Attributes:
        faults: What agents asked for that Twilio's description does not allow, in words.
        asked: Every operation that was asked for, by its ``operationId``, in order.
    """

    def __init__(self, twilio: LoopbackTwilio) -> None:
        """Serve the calls of a Twilio."""
        self.faults: list[str] = []
        self.asked: list[str] = []
        self._twilio = twilio
        self._description = Description.shipped()
        self._handlers: dict[str, Callable[[_Asked], _Answer]] = {
            "CreateCall": self._create_call,
            "FetchCall": self._fetch_call,
            "UpdateCall": self._update_call,
            "DeleteCall": self._delete_call,
            "ListCall": self._list_calls,
            "CreateCallRecording": self._create_recording,
            "FetchCallRecording": self._fetch_recording,
            "UpdateCallRecording": self._update_recording,
            "DeleteCallRecording": self._delete_recording,
            "ListCallRecording": self._list_recordings,
            "FetchRecording": self._fetch_recording,
            "DeleteRecording": self._delete_recording,
            "ListRecording": self._list_recordings,
        }

    def app(self) -> web.Application:
        """The API as an application."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        return app

    async def _serve(self, request: web.Request) -> web.Response:
        try:
            self._authorise(request)
            media = self._media(request)
            if media is not None:
                return media
            status, body = await self._operate(request)
        except ApiError as error:
            status = error.status
            body = error_resource(status, error.code, str(error))
        if body is None:
            return web.Response(status=status)
        return web.json_response(body, status=status)

    def _authorise(self, request: web.Request) -> None:
        """Whoever asks is the account, with its auth token."""
        target = self._twilio.target
        scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
        try:
            given = base64.b64decode(credentials, validate=True)
        except (binascii.Error, ValueError):
            given = b""
        expected = f"{target.account_sid}:{target.auth_token}".encode()
        if scheme.lower() != "basic" or not hmac.compare_digest(given, expected):
            raise ApiError(401, 20003, "Authenticate")
        if not request.path.startswith(f"/{API_VERSION}/Accounts/{target.account_sid}/"):
            raise _not_found(request.path)

    async def _operate(self, request: web.Request) -> _Answer:
        operation = self._description.operation(request.method, request.path)
        if operation is None:
            allowed = self._description.methods(request.path)
            self.faults.append(f"{request.method} {request.path}: no such operation")
            if allowed:
                raise ApiError(405, 20004, f"Method not allowed: {request.method}")
            raise _not_found(request.path)
        self.asked.append(operation.id)
        query = {name: request.query.getall(name) for name in request.query}
        fields = await request.post()
        form = {name: [str(value) for value in fields.getall(name)] for name in fields}
        problems = [
            problem
            for problem in self._description.request_problems(operation, query, form)
            # The description does not say so, but Twilio's documentation does.
            if operation.path.get(problem.name) != CURRENT
        ]
        self.faults += [f"{operation.id}: {problem.detail}" for problem in problems]
        # A path that is not one of an identifier leads nowhere.
        refuse([problem for problem in problems if problem.name not in operation.path])
        return self._handlers[operation.id](_Asked(request.path, operation.path, form, query))

    # ---- calls

    def _create_call(self, asked: _Asked) -> _Answer:
        call = self._twilio.dial(call_request(asked.form))
        return 201, call_resource(call)

    def _fetch_call(self, asked: _Asked) -> _Answer:
        return 200, call_resource(self._call(asked))

    def _update_call(self, asked: _Asked) -> _Answer:
        call = self._call(asked)
        status, what, limit = one(asked.form, "Status"), program(asked.form), time_limit(asked.form)
        if status:
            self._end(call, status)
        elif what is not None:
            if call.status != "in-progress" or call.parent_sid is not None:
                raise ApiError(400, 21220, "Call is not in-progress. Cannot redirect.")
            call.steer(what)
        elif limit is not None and call.status not in OVER:
            call.limit(limit)
        told = callback(asked.form, "StatusCallback")
        if told is not None:
            call.status_callback = told
        return 200, call_resource(call)

    def _end(self, call: LiveCall, status: str) -> None:
        """Twilio leaves a call alone that is over, and one in progress that is to be cancelled."""
        waiting = call.status in ("queued", "ringing")
        if waiting or (call.status == "in-progress" and status == "completed"):
            call.steer(End(Cause.AGENT_HUNG_UP))

    def _delete_call(self, asked: _Asked) -> _Answer:
        call = self._call(asked)
        if call.status not in OVER:
            raise ApiError(409, 20409, "A call in progress cannot be deleted")
        del self._twilio.calls[call.sid]
        return 204, None

    def _list_calls(self, asked: _Asked) -> _Answer:
        wanted = {
            name: one(asked.query, parameter)
            for name, parameter in {
                "to": "To",
                "from": "From",
                "status": "Status",
                "parent_call_sid": "ParentCallSid",
            }.items()
        }
        # The latest call comes first.
        shown = [call_resource(call) for call in reversed(self._twilio.calls.values())]
        for name, value in wanted.items():
            shown = [call for call in shown if value in ("", call[name])]
        return 200, page("calls", shown, asked.path, asked.query)

    # ---- recordings

    def _create_recording(self, asked: _Asked) -> _Answer:
        call = self._call(asked)
        if call.status != "in-progress":
            raise ApiError(400, 21220, "Requested resource is not eligible for recording")
        settings = recording_request(asked.form)
        recording = call.record("StartCallRecordingAPI", **vars(settings))
        return 201, recording_resource(call, recording, of_call=True)

    def _fetch_recording(self, asked: _Asked) -> _Answer:
        call, recording = self._recording(asked)
        return 200, recording_resource(call, recording, of_call=asked.of_call)

    def _update_recording(self, asked: _Asked) -> _Answer:
        call, recording = self._recording(asked)
        status = one(asked.form, "Status")
        if not recording.running:
            raise ApiError(400, 21220, "The recording has ended")
        if status == "stopped":
            call.finish_recording(recording)
            return 200, recording_resource(call, recording, of_call=True) | {"status": status}
        if status not in ("paused", "in-progress"):
            raise ApiError(400, 20001, f"Status: expected paused, in-progress or stopped: {status}")
        recording.pause_is_silence = one(asked.form, "PauseBehavior", "silence") != "skip"
        recording.status = status
        return 200, recording_resource(call, recording, of_call=True)

    def _delete_recording(self, asked: _Asked) -> _Answer:
        call, recording = self._recording(asked)
        if recording.running:
            raise ApiError(409, 20409, "A recording in progress cannot be deleted")
        call.trace.recordings.remove(recording)
        return 204, None

    def _list_recordings(self, asked: _Asked) -> _Answer:
        wanted = self._call(asked).sid if asked.of_call else one(asked.query, "CallSid")
        shown = [
            recording_resource(call, recording, of_call=asked.of_call)
            for call in reversed(self._twilio.calls.values())
            for recording in reversed(call.trace.recordings)
            if wanted in ("", call.sid)
        ]
        return 200, page("recordings", shown, asked.path, asked.query)

    def _media(self, request: web.Request) -> web.Response | None:
        """A recording's sound, if that is what is asked for."""
        account = self._twilio.target.account_sid
        place = request.path.removeprefix(f"/{API_VERSION}/Accounts/{account}/Recordings/")
        sid, ending = place[:34], place[34:]
        if place == request.path or ending not in _MEDIA or request.method != "GET":
            return None
        for call in self._twilio.calls.values():
            for recording in call.trace.recordings:
                if recording.sid == sid and not recording.running:
                    kind = _MEDIA[ending]
                    media = "audio/mpeg" if kind == "MP3" else "audio/x-wav"
                    return web.Response(body=recording.file(kind), content_type=media)
        raise _not_found(request.path)

    # ---- what is asked about

    def _call(self, asked: _Asked) -> LiveCall:
        sid = asked.ids.get("CallSid", asked.ids.get("Sid", ""))
        call = self._twilio.calls.get(sid)
        if call is None:
            raise _not_found(asked.path)
        return call

    def _recording(self, asked: _Asked) -> tuple[LiveCall, Recording]:
        sid = asked.ids["Sid"]
        calls = self._twilio.calls.values()
        for call in [self._call(asked)] if asked.of_call else calls:
            for recording in reversed(call.trace.recordings):
                if recording.sid == sid or (sid == CURRENT and recording.running):
                    return call, recording
        raise _not_found(asked.path)


@asynccontextmanager
async def serving(api: RestApi, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Serve the API; stop on leaving.

    Args:
        api: What is served.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.

    Yields:
        What stands in the place of ``https://api.twilio.com``.
    """
    runner = web.AppRunner(api.app(), access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield f"http://{host}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _not_found(path: str) -> ApiError:
    return ApiError(404, 20404, f"The requested resource {path} was not found")
