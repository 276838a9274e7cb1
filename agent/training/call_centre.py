"""Your call centre: scripts and recordings become data to fine-tune a language model on.

Callers are heard over a phone line, a random one in every take after the first; the agent's
recordings over a clean one, as the decoder learns to speak them. What nobody recorded, a
text-to-token model says.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger

from agent.sound import Audio
from agent.speech.tokenizer import SpeechTokenizer
from agent.training.augment import vary
from agent.training.conversations import hear_plainly, spoken_codes
from agent.training.recipe import Section
from agent.training.scripts import Said, Script, Turn, read_audio, read_scripts
from agent.training.shards import SAMPLE_RATE, Shards, ShardWriter
from agent.training.text_to_token import TextToToken


class Settings(Section):
    """How scripts become data.

    Attributes:
        scripts: Directory with the ``*.yaml`` files (:mod:`agent.training.scripts`).
        takes: How often each dialogue is made, over other phone lines and said anew.
        held_out: Share of the dialogues to judge by, of those that do not say.
        caller_temperature: Of what a text-to-token model says for callers.
        agent_temperature: The same for the agent.
        seed: Of everything that is drawn.
    """

    section = "dialogues"

    scripts: Path
    takes: int = 1
    held_out: float = 0.05
    caller_temperature: float = 0.8
    agent_temperature: float = 0.2
    seed: int = 0


class CallCentre:
    """Makes dialogues.

    Args:
        settings: How.
        tokenizer: For recordings; None where there are none.
        text_to_token: For turns without one; None where there are none.

    Raises:
        ValueError: The two have other numbers of codes.
    """

    def __init__(
        self,
        settings: Settings,
        tokenizer: SpeechTokenizer | None,
        text_to_token: TextToToken | None,
    ):
        if tokenizer and text_to_token and tokenizer.codebook_size != text_to_token.codes:
            raise ValueError(
                f"the text-to-token model has {text_to_token.codes} codes and the tokenizer "
                f"{tokenizer.codebook_size}: they do not belong together"
            )
        self._settings = settings
        self._tokenizer = tokenizer
        self._text_to_token = text_to_token

    def check(self, name: str, script: Script) -> None:
        """Check that there is a model for every turn.

        Raises:
            ValueError: There is none; names dialogue and turn.
        """
        for number, turn in enumerate(script.turns):
            said = turn.said
            if said is None or said.typed:
                continue
            recorded = said.audio is not None or said.begin is not None
            where = f"{name}: turns.{number}.{turn.role}"
            if recorded and self._tokenizer is None:
                raise ValueError(f"{where} has a recording: give --tokenizer")
            if not recorded and self._text_to_token is None:
                raise ValueError(f"{where} has no recording: give --text-to-token")

    def make(self, name: str, script: Script, take: int) -> tuple[dict[str, Any], list[int]]:
        """One take of a dialogue.

        Returns:
            The index line of a data set of dialogues (:mod:`agent.training.dialogues`), and its
            codes.

        Raises:
            ValueError: A recording cannot be used; names it.
        """
        rng = np.random.default_rng((self._settings.seed, zlib.crc32(name.encode()), take))
        channels: dict[str, Audio] = {}
        if script.recording:
            both = read_audio(script.recording, channels=2)
            channels = dict(zip(script.channels, both, strict=True))
        turns: list[dict[str, Any]] = []
        codes: list[int] = []
        for number, turn in enumerate(script.turns):
            written: dict[str, Any] = {"role": turn.role}
            if turn.call:
                written |= {"name": turn.call.name, "arguments": turn.call.arguments}
            elif turn.said:
                written["text"] = turn.said.text
                if not turn.said.typed:
                    where = f"{name}: turns.{number}.{turn.role}"
                    spoken = self._codes(turn, turn.said, channels, where, take, rng)
                    written["codes"] = [len(codes), len(codes) + len(spoken)]
                    codes += spoken
            else:
                written["text"] = turn.result
            turns.append(written)
        entry: dict[str, Any] = {"id": f"{name}/{take}", "turns": turns}
        entry["split"] = script.split or self._split(name)
        if script.instructions:
            entry["instructions"] = script.instructions
        if script.tools:
            entry["tools"] = script.tools
        return entry, codes

    def _split(self, name: str) -> str:
        # By the name alone, so that all takes of a dialogue are on one side.
        luck = zlib.crc32(f"{self._settings.seed} {name}".encode()) / 2**32
        return "held_out" if luck < self._settings.held_out else "train"

    def _codes(
        self,
        turn: Turn,
        said: Said,
        channels: dict[str, Audio],
        where: str,
        take: int,
        rng: np.random.Generator,
    ) -> list[int]:
        if said.audio is not None:
            (audio,) = read_audio(said.audio, channels=1)
        elif said.begin is not None and said.end is not None:
            channel = channels[turn.role]
            audio = channel[round(said.begin * SAMPLE_RATE) : round(said.end * SAMPLE_RATE)]
            if said.end * SAMPLE_RATE > len(channel) + 1:
                length = len(channel) / SAMPLE_RATE
                raise ValueError(f"{where}: end is {said.end}, the recording has {length:.2f} s")
        else:
            assert self._text_to_token is not None
            settings = self._settings
            warm = turn.role == "caller"
            temperature = settings.caller_temperature if warm else settings.agent_temperature
            seed = int(rng.integers(2**31))
            (spoken,) = self._text_to_token.say([said.text], temperature, seed, [said.style])
            if not spoken:
                raise ValueError(f"{where}: the text-to-token model says nothing")
            return spoken
        assert self._tokenizer is not None
        if turn.role == "agent":
            heard = spoken_codes(audio, self._tokenizer)
        elif take == 0:
            heard = hear_plainly(audio, self._tokenizer)
        else:
            (heard,) = self._tokenizer.encode([vary(audio, rng).audio])
        return [int(code) for code in heard]


def run(
    settings: Settings,
    tokenizer: SpeechTokenizer | None,
    text_to_token: TextToToken | None,
    out: Path,
) -> int:
    """Write all takes of all dialogues, or what is missing of them.

    Every script is read before anything is made. A dialogue whose recording cannot be used is
    named and left out.

    Returns:
        How many dialogues were left out.

    Raises:
        ValueError: A script has a mistake; names file, dialogue and field.
    """
    centre = CallCentre(settings, tokenizer, text_to_token)
    scripts = list(read_scripts(settings.scripts))
    for name, script in scripts:
        centre.check(name, script)
    writer = ShardWriter(out)
    known = set(Shards(out).ids()) if writer.count else set()
    left_out: set[str] = set()
    for number, (name, script) in enumerate(scripts, 1):
        for take in range(settings.takes):
            if f"{name}/{take}" in known:
                continue
            try:
                entry, codes = centre.make(name, script, take)
            except ValueError as error:
                left_out.add(name)
                logger.warning("dialogue left out", dialogue=name, problem=str(error))
                break
            writer.add(entry, codes=np.array(codes, np.int32))
        if number % 100 == 0 or number == len(scripts):
            print(f"{number}/{len(scripts)} dialogues, {len(left_out)} left out", flush=True)
    return len(left_out)
