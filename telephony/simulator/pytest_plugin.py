"""The loopback Twilio as a pytest fixture.

Load it with ``pytest -p telephony.simulator.pytest_plugin`` or, in the top ``conftest.py``, with
``pytest_plugins = ["telephony.simulator.pytest_plugin"]``. It needs pytest-asyncio.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import pytest_asyncio

from telephony.simulator.loopback import Loopback, running_twilio
from telephony.simulator.target import Target

StartLoopback = Callable[..., Awaitable[Loopback]]


@pytest_asyncio.fixture
async def loopback_twilio() -> AsyncIterator[StartLoopback]:
    """A function that starts a Twilio, with the arguments of ``loopback.running_twilio``.

    When the test is over, whatever the agent asked the REST API for that Twilio's description does
    not allow fails it; a test that expects that empties ``api.faults``.
    """
    async with AsyncExitStack() as stack:
        started: list[Loopback] = []

        async def start(target: Target, **settings: Any) -> Loopback:
            running = await stack.enter_async_context(running_twilio(target, **settings))
            started.append(running)
            return running

        yield start
        faults = [fault for running in started for fault in running.api.faults]
    if faults:
        pytest.fail("the agent misused Twilio's REST API: " + "; ".join(faults), pytrace=False)
