"""Whether a replica's models live: asked by inferences; Triton's health endpoints do not know."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Sequence

from agent.replica import (
    DECODER,
    ENSEMBLE,
    LANGUAGE_MODEL,
    NO_AUDIO,
    NO_TOKENS,
    TOKENIZER,
    EngineUnavailable,
    Replica,
    Tensors,
    flag,
    stop_inputs,
    string,
)
from agent.speech.request import TurnRequest

_MODELS = (ENSEMBLE, TOKENIZER, LANGUAGE_MODEL, DECODER)


async def probe(replica: Replica, seconds: float) -> float | None:
    """Have every model do something, in the threads in which it works for calls.

    Args:
        replica: Whose.
        seconds: In which each must have answered.

    Returns:
        Answers that the decoder says can be kept in playback at once, if it does.

    Raises:
        EngineUnavailable: A model did not; names the first.
    """
    session = _session()
    close = TurnRequest(close=True).to_json()
    stop = stop_inputs(LANGUAGE_MODEL, session, close)
    # An empty last piece: unlike a stop, it goes through the thread that decodes.
    piece = {**stop_inputs(DECODER, session, close), "STOP": flag(False)}
    results = await _ask(replica, session, stop, piece, seconds)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    outputs = results[-1]
    assert outputs is not None
    assert not isinstance(outputs, BaseException)
    carries = json.loads(bytes(outputs["TIMING"][0])).get("carries")
    return None if carries is None else float(carries)


async def problem(replica: Replica, seconds: float) -> str | None:
    """What is wrong with a replica; None where every model's process shows a sign of life.

    Asked are the processes, not the threads that work for calls: those may be busy with a long
    prompt. And anything that another call gets from the same model counts as well.

    Args:
        replica: The replica.
        seconds: In which each model must have answered this or anybody.
    """
    began = time.monotonic()
    session = _session()
    # Both are answered by the process as they come.
    credit = {
        "SESSION": string(session),
        "TOKENS": NO_TOKENS,
        "REQUEST": string(TurnRequest(decoded=0).to_json()),
    }
    stop = stop_inputs(DECODER, session, "")
    results = await _ask(replica, session, credit, stop, seconds)
    for model, result in zip(_MODELS, results, strict=True):
        # A process that dies at the wrong moment has its request cancelled.
        if isinstance(result, BaseException) and replica.heard.get(model, began) <= began:
            return str(result) or f"model {model}: {type(result).__name__}"
    return None


async def forgotten(replica: Replica, session: str, seconds: float) -> str | None:
    """Why a replica does not have a session any more that it had; None where it has it.

    A model whose process was started again lives, but what it was asked before it will not answer.
    """
    asked = {
        "SESSION": string(session),
        "TOKENS": NO_TOKENS,
        "REQUEST": string(TurnRequest(decoded=0, goes_on=True).to_json()),
    }
    try:
        await replica.infer_decoupled(LANGUAGE_MODEL, asked, seconds, "probe")
    except EngineUnavailable as error:
        return str(error)
    return None


def _session() -> str:
    return f"probe-{uuid.uuid4().hex}"


async def _ask(
    replica: Replica, session: str, language_model: Tensors, decoder: Tensors, seconds: float
) -> Sequence[Tensors | BaseException | None]:
    """What each model answers, in the order of ``_MODELS``."""
    turn = {
        "SESSION": string(session),
        "AUDIO": NO_AUDIO,
        "END_OF_TURN": flag(False),
        "REQUEST": string(TurnRequest(close=True).to_json()),
    }
    return await asyncio.gather(
        replica.require_model(ENSEMBLE, seconds),
        replica.infer(TOKENIZER, turn, seconds),
        replica.infer_decoupled(LANGUAGE_MODEL, language_model, seconds),
        replica.infer_decoupled(DECODER, decoder, seconds),
        return_exceptions=True,
    )
