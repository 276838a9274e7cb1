"""Tells a person's system about a caller before the telephone rings.

A POST with a JSON object: ``call_sid``, ``caller`` and ``called`` (numbers), ``destination`` (the
number that will ring), ``warm``, ``summary`` (the model's, or null) and ``turns``, what was said as
:meth:`telephony.transcript.Transcript.turns` has it. It is signed as requests of tools are.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp

from agent.outgoing import SIGNATURE_HEADER, signature
from telephony.phone_settings import HandoverSettings


class Handover:
    """Sends what there is to know about callers."""

    def __init__(self, settings: HandoverSettings, now: Callable[[], float] = time.time):
        """Prepare to tell.

        Args:
            settings: Whom, and for how long.
            now: Tells Unix time, for the signature.

        Raises:
            ValueError: The secret is not there.
        """
        self._settings = settings
        self._secret = settings.signing_secret.read() if settings.signing_secret else None
        self._now = now

    async def tell(self, what: Mapping[str, Any]) -> str | None:
        """Send what there is to know; a transfer does not depend on it.

        Returns:
            What went wrong, None if nothing did or nobody is to be told.
        """
        if self._settings.webhook is None:
            return None
        body = json.dumps(what, ensure_ascii=False).encode()
        headers = {"Content-Type": "application/json"}
        if self._secret is not None:
            headers[SIGNATURE_HEADER] = signature(self._secret, int(self._now()), body)
        timeout = aiohttp.ClientTimeout(total=self._settings.webhook_secs)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(
                    self._settings.webhook, data=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                return None if response.status < 300 else f"HTTP {response.status}"
        except (aiohttp.ClientError, TimeoutError) as error:
            return str(error) or type(error).__name__
