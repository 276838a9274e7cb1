"""The whole house under one roof: engine, turn detection and gateway, from settings to a URL."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import numpy as np
from loguru import logger

from agent.conversation import CALLER_RATE
from agent.embedded import EmbeddedServer
from agent.pipeline import SharedModels, run_call
from agent.replica import EngineUnavailable
from agent.settings import Settings
from agent.speech.request import TurnRequest
from agent.tools.building import build_tools
from agent.triton import VoiceClient
from telephony.records import CallRecords, Redaction
from telephony.server import PhoneCall, create_app, listening
from telephony.transport import PhoneTransport

_WARM_UP = TurnRequest(max_new_tokens=80, temperature=0.0)
_WARM_UP_SECONDS = 2
"""More than a block of the tokenizer, so that it runs as it does while a caller speaks."""


@asynccontextmanager
async def serving(settings: Settings, progress: Callable[[str], None]) -> AsyncIterator[str]:
    """Start everything that answers calls; stop it on leaving.

    An embedded engine must start; replicas named by URL may come later, and until then callers
    are told to call again.

    Args:
        settings: All of them.
        progress: Told each step, as a line for a person.

    Yields:
        The gateway's public base URL.

    Raises:
        ValueError: Settings that cannot be used, such as no auth token, or a tool's secret.
        agent.embedded.EmbeddedServerError: The embedded engine does not start.
        OSError: The address cannot be listened on.
    """
    settings.gateway.read_auth_token()
    records = CallRecords(settings.records)
    tools = build_tools(settings.agent.tools)
    async with AsyncExitStack() as stack:
        loading = asyncio.create_task(_load_models(progress))
        try:
            urls = settings.triton.urls or (await _embedded(stack, settings, progress),)
        finally:
            models = (await asyncio.gather(loading, return_exceptions=True))[0]
        if isinstance(models, BaseException):
            raise models
        client = VoiceClient(urls, chunk_timeout=settings.triton.chunk_timeout)
        stack.push_async_callback(client.close)
        await _warm_up(client, progress, required=not settings.triton.urls)

        async def answer_call(transport: PhoneTransport, call: PhoneCall) -> None:
            session = client.session()
            await run_call(
                transport, session, models, settings.agent, call.observer, tools, call.phone
            )

        redaction = Redaction(frozenset(settings.agent.redact), settings.agent.private_arguments)
        app = create_app(
            settings.gateway,
            answer_call,
            records,
            engine_ready=client.ready,
            redaction=redaction,
        )
        url = await stack.enter_async_context(
            listening(app, settings.gateway.host, settings.gateway.port)
        )
        progress(f"gateway listens, voice webhook {url}/voice")
        yield url


async def _load_models(progress: Callable[[str], None]) -> SharedModels:
    begun = time.monotonic()
    models = await asyncio.to_thread(SharedModels.load)
    progress(f"turn detection ready after {time.monotonic() - begun:.1f} s")
    return models


async def _embedded(
    stack: AsyncExitStack, settings: Settings, progress: Callable[[str], None]
) -> str:
    begun = time.monotonic()
    states: dict[str, str] = {}

    def report(model: str, state: str) -> None:
        if states.get(model) != state:
            states[model] = state
            progress(f"model {model}: {state} after {time.monotonic() - begun:.1f} s")

    server = EmbeddedServer(checkpoint=settings.triton.checkpoint, progress=report)
    progress(f"starting Triton over {settings.triton.checkpoint}")
    await stack.enter_async_context(server)
    return server.url


async def _warm_up(client: VoiceClient, progress: Callable[[str], None], required: bool) -> None:
    """Answer once, so that no caller waits for what a first answer sets up."""
    begun = time.monotonic()
    session = client.session()
    murmur = np.random.default_rng(0).normal(0.0, 0.01, _WARM_UP_SECONDS * CALLER_RATE)
    try:
        session.push(murmur.astype(np.float32))
        async for _ in session.answer(_WARM_UP):
            pass
    except EngineUnavailable as error:
        if required:
            raise
        logger.bind(reason=str(error)).warning("The engine does not answer yet")
        progress(f"the engine does not answer yet: {error}")
    else:
        progress(f"the engine answers, first answer took {time.monotonic() - begun:.1f} s")
    finally:
        await session.close()
