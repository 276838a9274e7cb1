"""A call's WebSocket: aiohttp's, but for how it learns that the other end is there.

aiohttp moves its next ping on with whatever arrives, by a callback in the event loop. A call brings
fifty messages a second, and its ping is a quarter of a minute away: to move it once a second will
do. While an answer to a ping is awaited, whatever arrives counts at once.
"""

from __future__ import annotations

import time

from aiohttp import web

_NOTED_EVERY = 1.0


class CallSocket(web.WebSocketResponse):
    """The WebSocket of one call.

    It rests on how aiohttp 3 is told of data; where it is told otherwise, nothing is saved and
    nothing lost.
    """

    _noted = float("-inf")

    def _on_data_received(self) -> None:
        now = time.monotonic()
        if now - self._noted >= _NOTED_EVERY or self._pong_response_cb is not None:
            self._noted = now
            super()._on_data_received()
