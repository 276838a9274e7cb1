"""Calls and recordings as the REST API shows them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlencode

from telephony.simulator.live_call import API_VERSION, OVER, LiveCall
from telephony.simulator.recordings import Recording

Resource = dict[str, Any]


def call_resource(call: LiveCall) -> Resource:
    """A call."""
    trace = call.trace
    over = call.status in OVER
    uri = f"{_account(call)}/Calls/{call.sid}"
    return {
        "sid": call.sid,
        "date_created": _date(trace.dialled_at),
        "date_updated": _date(trace.ended_at or trace.answered_at or trace.dialled_at),
        "parent_call_sid": call.parent_sid,
        "account_sid": call.account_sid,
        "to": call.to,
        "to_formatted": call.to,
        "from": call.from_,
        "from_formatted": call.from_,
        "phone_number_sid": None,
        "status": call.status,
        "start_time": _date(trace.answered_at),
        "end_time": _date(trace.ended_at if over else None),
        "duration": str(call.duration) if over else None,
        "price": None,
        "price_unit": "USD",
        "direction": call.direction,
        "answered_by": trace.answered_by,
        "api_version": API_VERSION,
        "forwarded_from": None,
        "group_sid": None,
        "caller_name": None,
        "queue_time": "0",
        "trunk_sid": None,
        "uri": f"{uri}.json",
        "subresource_uris": {"recordings": f"{uri}/Recordings.json"},
    }


def recording_resource(call: LiveCall, recording: Recording, *, of_call: bool) -> Resource:
    """A recording, as its call (``of_call``) or its account shows it."""
    where = f"/Calls/{call.sid}" if of_call else ""
    uri = f"{_account(call)}{where}/Recordings/{recording.sid}.json"
    known = not recording.running
    common: Resource = {
        "account_sid": call.account_sid,
        "api_version": API_VERSION,
        "call_sid": call.sid,
        "conference_sid": None,
        "date_created": _date(recording.started_at),
        "date_updated": _date(recording.started_at),
        "start_time": _date(recording.started_at),
        "duration": str(round(recording.seconds)) if known else None,
        "sid": recording.sid,
        "price": None,
        "price_unit": "USD",
        "uri": uri,
        "encryption_details": None,
        "status": recording.status,
        "channels": recording.channels,
        "source": recording.source,
        "error_code": None,
    }
    if of_call:
        return {**common, "track": recording.track}
    media = call.recording_url(recording)
    return {**common, "subresource_uris": {}, "media_url": media}


def page(
    name: str, resources: Sequence[Resource], path: str, query: Mapping[str, Sequence[str]]
) -> Resource:
    """A page of a list.

    Args:
        name: Under which the list is shown.
        resources: All there is.
        path: Of the request.
        query: Of the request: ``Page`` from 0 and ``PageSize`` say which page.
    """
    size = min(1000, max(1, int(query.get("PageSize", ["50"])[0])))
    number = max(0, int(query.get("Page", ["0"])[0]))
    first = number * size
    shown = list(resources[first : first + size])

    def uri(page_number: int) -> str:
        wanted = {**query, "PageSize": [str(size)], "Page": [str(page_number)]}
        return f"{path}?{urlencode(wanted, doseq=True)}"

    return {
        name: shown,
        "page": number,
        "page_size": size,
        "start": first,
        "end": max(first, first + len(shown) - 1),
        "uri": uri(number),
        "first_page_uri": uri(0),
        "next_page_uri": uri(number + 1) if first + size < len(resources) else None,
        "previous_page_uri": uri(number - 1) if number else None,
    }


def error_resource(status: int, code: int, message: str) -> Resource:
    """What a refused request is answered."""
    more = f"https://www.twilio.com/docs/errors/{code}"
    return {"code": code, "message": message, "more_info": more, "status": status}


def _account(call: LiveCall) -> str:
    return f"/{API_VERSION}/Accounts/{call.account_sid}"


def _date(at: float | None) -> str | None:
    return None if at is None else format_datetime(datetime.fromtimestamp(at, UTC))
