"""A checkpoint answering outside a call: many turns at once, greedily or sampled, and its voice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from agent.evaluation.items import Turn, load_sound
from agent.sound import Audio
from agent.speech import LanguageModel, SpeechDecoder, SpeechTokenizer
from agent.speech.answer import PIECE
from agent.speech.generation import GenerationEngine
from agent.speech.request import TurnRequest

_SESSIONS = 24

_NOTHING = np.zeros(0, np.int64)


@dataclass(frozen=True)
class Answer:
    """What the model said, and did.

    Attributes:
        text: Its words.
        codes: Its speech tokens, from 0.
        tool_call: Name and arguments of the tool it called; see `AnswerPiece.tool_call`.
    """

    text: str
    codes: tuple[int, ...]
    tool_call: str = ""


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn; the default is greedy, so that a figure can be repeated."""

    temperature: float = 0.0
    top_p: float = 0.8
    max_new_tokens: int = 2000
    seed: int = 0

    def request(self, turn: Turn) -> TurnRequest:
        """What to ask the engine for."""
        return TurnRequest(
            temperature=self.temperature,
            top_p=self.top_p,
            max_new_tokens=self.max_new_tokens,
            seed=self.seed,
            instruction=turn.text,
            say=turn.say,
            system=turn.system,
        )


TurnOf = tuple[npt.NDArray[np.int64], TurnRequest]


def answers(model: LanguageModel, turns: Sequence[TurnOf]) -> list[Answer]:
    """Let the model answer turns, each a call of its own, many calls at once."""
    return [answered for (answered,) in conversations(model, [[turn] for turn in turns])]


def conversations(model: LanguageModel, calls: Sequence[Sequence[TurnOf]]) -> list[list[Answer]]:
    """Let the model answer calls of several turns, each with its own answers before it.

    Args:
        model: Who answers.
        calls: For each the turns: int64 [m] codes, and the request.

    Returns:
        For each call its answers.
    """
    engine = GenerationEngine(model)
    found: list[list[Answer]] = [[] for _ in calls]
    texts: defaultdict[str, list[str]] = defaultdict(list)
    codes: defaultdict[str, list[int]] = defaultdict(list)
    waiting = [number for number, turns in enumerate(calls) if turns][::-1]
    running = 0
    while waiting or running:
        while waiting and running < _SESSIONS:
            number = waiting.pop()
            engine.submit(str(number), *calls[number][0])
            running += 1
        for piece in engine.step():
            name, number = piece.session, int(piece.session)
            texts[name].append(piece.text)
            codes[name].extend(int(code) for code in piece.speech_tokens)
            if not piece.last:
                engine.credit(name, len(codes[name]))
                continue
            text = "".join(texts.pop(name)).strip()
            found[number].append(Answer(text, tuple(codes.pop(name, [])), piece.tool_call))
            if len(found[number]) < len(calls[number]):
                engine.submit(name, *calls[number][len(found[number])])
            else:
                engine.close(name)
                running -= 1
    return found


def transcripts(model: LanguageModel, spoken: Sequence[npt.NDArray[np.int64]]) -> list[str]:
    """Let the model write down turns, given as codes, by its transcription prompt.

    An empty turn gives an empty transcript. The model's config must have the prompt.
    """
    engine = GenerationEngine(model)
    texts: defaultdict[str, list[str]] = defaultdict(list)
    waiting = [(index, codes) for index, codes in enumerate(spoken) if len(codes)][::-1]
    running = 0
    while waiting or running:
        while waiting and running < _SESSIONS:
            index, codes = waiting.pop()
            engine.submit(f"turn {index}", codes)
            engine.transcribe(f"turn {index}", str(index))
            # The transcript has its own copy of the turn; nobody waits for the answer to it.
            engine.close(f"turn {index}")
            running += 1
        for piece in engine.step():
            texts[piece.session].append(piece.text)
            if piece.last and not piece.session.startswith("turn "):
                running -= 1
    return ["".join(texts[str(i)]).strip() for i in range(len(spoken))]


def speak(decoder: SpeechDecoder, codes: Sequence[int]) -> Audio:
    """Decode codes as a call does, ten at a time; returns float32 [s] at the decoder's rate."""
    stream = decoder.stream()
    tokens = torch.tensor(codes, dtype=torch.int64)
    pieces = [
        stream.push(tokens[start : start + PIECE], last=start + PIECE >= len(tokens))
        for start in range(0, len(tokens), PIECE)
    ]
    return torch.cat(pieces).cpu().numpy()


class Checkpoint:
    """The three models of a checkpoint, each loaded when it is first needed.

    Args:
        path: Directory with speech_tokenizer, language_model and speech_decoder.
        device: Where they run.
        sampling: How answers are drawn.
        transcription_prompt: System prompt for transcripts, instead of the config's own.

    Raises:
        CheckpointError: From its properties: a file is missing or damaged.
    """

    def __init__(
        self,
        path: Path,
        device: str = "cpu",
        sampling: Sampling | None = None,
        transcription_prompt: str | None = None,
    ):
        self.path = path
        self.sampling = sampling or Sampling()
        self._device = device
        self._transcription_prompt = transcription_prompt

    @cached_property
    def tokenizer(self) -> SpeechTokenizer:
        """Sound to codes."""
        return SpeechTokenizer.from_pretrained(self.path / "speech_tokenizer", self._device)

    @cached_property
    def model(self) -> LanguageModel:
        """The language model."""
        model = LanguageModel.from_pretrained(self.path / "language_model", self._device)
        if prompt := self._transcription_prompt:
            model.config = replace(model.config, transcription_prompt=prompt)
        return model

    @cached_property
    def decoder(self) -> SpeechDecoder:
        """Codes to sound."""
        return SpeechDecoder.from_pretrained(self.path / "speech_decoder", self._device)

    def codes(self, path: Path, phone_band: bool = False) -> npt.NDArray[np.int64]:
        """Codes of a whole sound file, as the reference tokenises files: int64 [m]."""
        return self.tokenizer.encode([load_sound(path, phone_band)])[0]

    def answer(self, turns: Sequence[Turn]) -> list[Answer]:
        """Answers to turns, each a conversation of its own."""
        asked = []
        for turn in turns:
            codes = self.codes(turn.audio, turn.phone_band) if turn.audio else _NOTHING
            asked.append((codes, self.sampling.request(turn)))
        return answers(self.model, asked)

    def speech(self, answer: Answer) -> Audio:
        """An answer's sound: float32 [s] at the decoder's rate; empty if it has no speech."""
        return speak(self.decoder, answer.codes) if answer.codes else np.zeros(0, np.float32)
