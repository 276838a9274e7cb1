"""What Twilio sends the agent's server over HTTP: signed webhooks and callbacks; media it plays."""

import asyncio
import contextlib
import io
import math
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlencode, urljoin, urlsplit

import aiohttp
import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import resample_poly
from yarl import URL

from telephony.simulator.audible import SAMPLE_RATE
from telephony.simulator.live_call import Document, Fetch, LiveCall
from telephony.simulator.target import Target
from telephony.simulator.trace import Request
from telephony.simulator.verbs import Callback

WEBHOOK_SECONDS = 15.0
"""How long Twilio waits for a voice webhook, or for a recording to play."""
CALLBACK_SECONDS = 10.0
"""How long it waits for the answer to a callback."""


class AgentHttp:
    """Requests to one server; what goes wrong is logged in the call and raises nothing."""

    def __init__(self, target: Target, session: aiohttp.ClientSession) -> None:
        """Prepare to ask a server.

        Args:
            target: Whose auth token signs, and where its addresses are reached.
            session: Carries the requests.
        """
        self._target = target
        self._session = session

    async def document(self, call: LiveCall, fetch: Fetch) -> Document | None:
        """Ask for TwiML; None if neither the URL nor its fallback answers any."""
        parameters = {**call.parameters(), **fetch.parameters}
        errors = len(call.trace.errors)
        document = await self._document(call, fetch.url, fetch.method, parameters)
        if document is None and fetch.fallback is not None:
            code = call.trace.errors[errors].code
            about = {"ErrorCode": str(code), "ErrorUrl": fetch.url}
            fallback = fetch.fallback
            return await self._document(
                call, fallback.url, fallback.method, {**parameters, **about}
            )
        return document

    async def _document(
        self, call: LiveCall, url: str, method: str, parameters: Mapping[str, str]
    ) -> Document | None:
        begun = call.clock.time()
        try:
            async with self._ask(call, url, method, parameters, WEBHOOK_SECONDS) as response:
                text = await response.text()
                if call.trace.webhook_seconds is None:
                    call.trace.webhook_seconds = call.clock.time() - begun
                if response.status // 100 != 2:
                    call.error(11200, f"the webhook answered {response.status}")
                    return None
                if response.content_type not in ("text/xml", "application/xml"):
                    call.error(12300, f"the webhook answered {response.content_type}")
                    return None
                return Document(text, url)
        except (aiohttp.ClientError, TimeoutError, UnicodeDecodeError, ValueError) as error:
            call.error(11205, f"the webhook cannot be reached: {reason(error)}")
            return None

    async def tell(self, call: LiveCall, callback: Callback, parameters: Mapping[str, str]) -> None:
        """Send a callback. As with Twilio, the call does not depend on its answer."""
        try:
            async with self._ask(
                call, callback.url, callback.method, parameters, CALLBACK_SECONDS
            ) as response:
                if response.status >= 400:
                    call.error(15003, f"a callback answered {response.status}")
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            call.error(15003, f"a callback cannot be reached: {reason(error)}")

    async def sound(self, call: LiveCall, url: str) -> NDArray[np.int16]:
        """Fetch a recording to play: int16 [n] at 8 kHz, empty if there is none to be had."""
        try:
            async with self._ask(call, url, "GET", {}, WEBHOOK_SECONDS) as response:
                content = await response.read()
                if response.status // 100 != 2:
                    call.error(11200, f"the recording to play answered {response.status}")
                elif not response.content_type.startswith("audio/"):
                    call.error(13420, f"<Play> of {response.content_type}")
                else:
                    return await asyncio.to_thread(_decode, content)
        except (aiohttp.ClientError, TimeoutError) as error:
            call.error(11205, f"the recording to play cannot be reached: {reason(error)}")
        except (soundfile.LibsndfileError, ValueError) as error:
            call.error(13420, f"<Play> cannot read the recording: {reason(error)}")
        return np.zeros(0, np.int16)

    @contextlib.asynccontextmanager
    async def _ask(
        self,
        call: LiveCall,
        url: str,
        method: str,
        parameters: Mapping[str, str],
        seconds: float,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A signed request; it is in the call's trace whether it is answered or not."""
        at, status = call.clock.time(), None
        form: Mapping[str, str] | None = dict(parameters)
        if method == "GET":
            if parameters:
                url += ("&" if urlsplit(url).query else "?") + urlencode(parameters)
            form = None
        try:
            async with self._session.request(
                method,
                # As it was signed, not as a library would rather write it.
                URL(self._target.reach(url), encoded=True),
                data=form,
                headers={"X-Twilio-Signature": self._target.signature(url, form)},
                timeout=aiohttp.ClientTimeout(total=seconds),
            ) as response:
                status = response.status
                yield response
        finally:
            call.trace.requests.append(Request(url, dict(parameters), at, status))


def absolute(base: str, callback: Callback | None) -> Callback | None:
    """A callback of a document, its address made absolute."""
    if callback is None:
        return None
    return Callback(urljoin(base, callback.url), callback.method, callback.events)


def reason(error: Exception) -> str:
    """Why a request failed."""
    return str(error) or type(error).__name__


def _decode(content: bytes) -> NDArray[np.int16]:
    audio, rate = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    shared = math.gcd(rate, SAMPLE_RATE)
    mono = resample_poly(audio.mean(axis=1), SAMPLE_RATE // shared, rate // shared)
    samples: NDArray[np.int16] = np.clip(mono * 32768, -32768, 32767).astype(np.int16)
    return samples
