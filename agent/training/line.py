"""What is said on the nano checkpoint's line: what callers want, how they put it, what is answered.

A corpus file (``agent/nano/corpus.yaml``) writes phrasings as short templates and words in capitals
for values; this module expands both, into the same sentences for the same seed.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.evaluation.text import Language, units
from agent.training.phrasings import as_sentence, politely, select
from agent.training.recipe import Section
from agent.yaml_document import read_mapping

NEUTRAL = "neutral"


@dataclass(frozen=True)
class Saying:
    """Something callers say, in many ways.

    Attributes:
        name: Its name in indexes.
        train: Sentences to train on.
        held_out: Sentences never trained on.
        renderings: In how many voices each training sentence is spoken.
    """

    name: str
    train: tuple[str, ...]
    held_out: tuple[str, ...]
    renderings: int = 1


@dataclass(frozen=True)
class ToolUse:
    """What an agent that has tools does instead of only answering.

    Attributes:
        before: Said before the call.
        name: The tool.
        arguments: What it is called with.
        results: What it may give back, and what is said then.
    """

    before: str
    name: str
    arguments: dict[str, str]
    results: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Intent:
    """One thing a caller may want at one point of a call.

    Attributes:
        name: Its name in tables; with its values behind colons, where it has any.
        answer: The one answer of an agent without tools.
        says: Name of the saying that asks for it; None where only ``instruction`` does.
        after: Name of the intent whose answer must just have been given; None for any.
        instruction: Typed instruction that stands in for a caller.
        tool: What an agent with tools does.
        style: How this answer and those after it are spoken; None for no change.
    """

    name: str
    answer: str
    says: str | None = None
    after: str | None = None
    instruction: str | None = None
    tool: ToolUse | None = None
    style: str | None = None

    @property
    def kind(self) -> str:
        """Its name without values."""
        return self.name.split(":", 1)[0]

    def spoken(self) -> list[str]:
        """Every text the agent may say for it."""
        texts = [self.answer]
        if self.tool:
            texts += [self.tool.before, *(said for _, said in self.tool.results)]
        return texts


@dataclass(frozen=True)
class Line:
    """Everything that is said on one phone line in one language.

    Attributes:
        name: Who answers.
        language: "en" or "zh".
        intents: By name.
        sayings: By name.
        tools: GLM-4's descriptions of functions.
        styles: Instructions that ask for a manner of speaking, by style.
        values: Words by which answers differ that are otherwise alike.
    """

    name: str
    language: Language
    intents: dict[str, Intent]
    sayings: dict[str, Saying]
    tools: tuple[dict[str, Any], ...] = ()
    styles: dict[str, tuple[str, ...]] = field(default_factory=dict)
    values: tuple[str, ...] = ()

    def texts(self) -> list[str]:
        """Every text the agent may say, once, in order."""
        said = (text for intent in self.intents.values() for text in intent.spoken())
        return list(dict.fromkeys(said))

    @property
    def greeting(self) -> Intent:
        """What the agent is told to do before anybody speaks."""
        return next(intent for intent in self.intents.values() if intent.instruction)

    def asked_by(self, saying: str) -> list[Intent]:
        """The intents that a saying may mean."""
        return [intent for intent in self.intents.values() if intent.says == saying]


class _Phrasings(Section):
    """Templates, one a line, and how much of them is used."""

    train: str = ""
    held_out: str = ""
    phrasings: int | None = None
    renderings: int | None = None


class _Tool(Section):
    before: str | None = None
    call: dict[str, dict[str, str]]
    results: dict[str, str]


class _Intent(_Phrasings):
    name: str
    answer: str
    instruction: str | None = None
    after: str | None = None
    says: str | None = None
    style: str | None = None
    tool: _Tool | None = None


class _File(Section):
    """A corpus file as it is written."""

    name: str = ""
    language: Language = "en"
    openers: list[str] = []  # noqa: RUF012
    closers: list[str] = []  # noqa: RUF012
    phrasings: int = 150  # of every saying that does not say how many it has
    renderings: int = 3
    opener_share: float = 0.0
    closer_share: float = 0.0
    values: dict[str, list[str]] = {}  # noqa: RUF012
    depending: dict[str, dict[str, str]] = {}  # noqa: RUF012
    tools: list[dict[str, Any]] = []  # noqa: RUF012
    styles: dict[str, list[str]] = {}  # noqa: RUF012
    sayings: dict[str, _Phrasings] = {}  # noqa: RUF012
    intents: list[_Intent]


class _Filler:
    """Puts values where their names stand in capitals."""

    def __init__(self, values: Mapping[str, list[str]], depending: Mapping[str, dict[str, str]]):
        self._values, self._depending = values, depending
        self._depends_on: dict[str, str] = {}
        for name, of in depending.items():
            on = [value for value, words in values.items() if set(words) == set(of)]
            if not on:
                raise ValueError(f"field 'depending.{name}' is not for all values of one name")
            self._depends_on[name] = on[0]

    def names(self, *texts: str | None) -> list[str]:
        """The values that some texts speak of, in the file's order."""
        together = " ".join(text or "" for text in texts)
        for name, on in self._depends_on.items():
            together = together.replace(name, on)
        return [name for name in self._values if name in together]

    def choices(self, names: Iterable[str]) -> Iterator[dict[str, str]]:
        """Every choice of some values."""
        names = list(names)
        for picked in itertools.product(*(self._values[name] for name in names)):
            yield dict(zip(names, picked, strict=True))

    def fill(self, text: str, chosen: Mapping[str, str]) -> str:
        """The text with values for their names."""
        for name, of in self._depending.items():
            found = [of[value] for value in chosen.values() if value in of]
            if found:
                text = text.replace(name, found[0])
        for name, value in chosen.items():
            text = text.replace(name, value)
        return text


def _lines(block: str) -> list[str]:
    return [line.strip() for line in block.splitlines() if line.strip()]


class _Reader:
    """Expands one corpus file."""

    def __init__(self, file: _File, path: Path, seed: int):
        self.file, self.path, self.seed = file, path, seed
        try:
            self.filler = _Filler(file.values, file.depending)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        self.sayings: dict[str, Saying] = {}
        self.intents: dict[str, Intent] = {}
        self._values_of: dict[str, list[str]] = {}

    def line(self) -> Line:
        file = self.file
        for name, phrasings in file.sayings.items():
            self._say(name, phrasings)
        for intent in file.intents:
            self._intend(intent)
        return Line(
            name=file.name,
            language=file.language,
            intents=self.intents,
            sayings=self.sayings,
            tools=tuple(file.tools),
            styles={name: tuple(texts) for name, texts in file.styles.items()},
            values=tuple(value for values in file.values.values() for value in values),
        )

    def _say(self, name: str, phrasings: _Phrasings) -> None:
        file, filler = self.file, self.filler
        for chosen in filler.choices(filler.names(phrasings.train, phrasings.held_out)):
            full = _full(name, chosen)
            rng = random.Random(f"{self.seed} {full}")
            templates = [filler.fill(text, chosen) for text in _lines(phrasings.train)]
            held_out = [filler.fill(text, chosen) for text in _lines(phrasings.held_out)]
            shares = (file.opener_share, file.closer_share)
            limit = file.phrasings if phrasings.phrasings is None else phrasings.phrasings
            taboo = {tuple(units(text, file.language)) for text in held_out}
            train: list[str] = []
            for text in select(templates, held_out, limit, file.language, rng):
                polite = politely(text, file.language, file.openers, file.closers, shares, rng)
                # With an opener it may have become one that is held out.
                train.append(text if tuple(units(polite, file.language)) in taboo else polite)
            self.sayings[full] = Saying(
                name=full,
                train=tuple(dict.fromkeys(as_sentence(text, file.language) for text in train)),
                held_out=tuple(as_sentence(text, file.language) for text in held_out),
                renderings=(
                    file.renderings if phrasings.renderings is None else phrasings.renderings
                ),
            )

    def _intend(self, intent: _Intent) -> None:
        filler, where = self.filler, f"{self.path}: intent {intent.name!r}"
        if intent.name in self._values_of:
            raise ValueError(f"{where}: there are two")
        if intent.style is not None and intent.style not in self.file.styles:
            raise ValueError(f"{where}: 'style' names {intent.style!r}, which is no style")
        if intent.says is not None:
            says: str | None = intent.says
            known = self.file.sayings.get(intent.says)
            if known is None:
                raise ValueError(f"{where}: 'says' names {intent.says!r}, which is no saying")
            asked = filler.names(known.train, known.held_out)
        elif intent.train:
            self._say(intent.name, intent)
            says, asked = intent.name, filler.names(intent.train, intent.held_out)
        elif intent.instruction is not None:
            says, asked = None, []
        else:
            raise ValueError(f"{where}: needs one of 'train', 'says' and 'instruction'")
        if intent.after is not None and intent.after not in self._values_of:
            raise ValueError(f"{where}: 'after' names {intent.after!r}, which is no intent above")
        carried = self._values_of[intent.after] if intent.after is not None else []
        names = [name for name in self.file.values if name in {*asked, *carried}]
        self._values_of[intent.name] = names
        self._known(where, "answer", [intent.answer], names)
        if intent.tool is not None:
            self._check(where, intent.tool, names)
        for chosen in filler.choices(names):
            asking = {name: chosen[name] for name in asked}
            earlier = {name: chosen[name] for name in carried}
            after = None if intent.after is None else _full(intent.after, earlier)
            full = _full(intent.name, chosen)
            self.intents[full] = Intent(
                name=full,
                answer=filler.fill(intent.answer, chosen),
                says=None if says is None else _full(says, asking),
                after=after,
                instruction=intent.instruction,
                tool=self._tool(intent.tool, intent.answer, chosen),
                style=intent.style,
            )

    def _known(self, where: str, field: str, texts: Iterable[str], names: Sequence[str]) -> None:
        for name in self.filler.names(*texts):
            if name not in names:
                raise ValueError(f"{where}: {field!r} speaks of {name}, which nobody has named")

    def _check(self, where: str, tool: _Tool, names: Sequence[str]) -> None:
        called = list(tool.call)
        if len(called) != 1 or called[0] not in [known.get("name") for known in self.file.tools]:
            raise ValueError(f"{where}: 'tool.call' has {called}, expected one of the file's tools")
        self._known(where, "tool.before", [tool.before or ""], names)
        self._known(where, "tool.call", tool.call[called[0]].values(), names)
        for result, said in tool.results.items():
            self._known(where, "tool.results", [said], [*names, *self.filler.names(result)])

    def _tool(self, tool: _Tool | None, answer: str, chosen: Mapping[str, str]) -> ToolUse | None:
        if tool is None:
            return None
        filler = self.filler
        ((name, arguments),) = tool.call.items()
        results: list[tuple[str, str]] = []
        for result, said in tool.results.items():
            free = [n for n in filler.names(result) if n not in chosen]
            for more in filler.choices(free):
                every = {**chosen, **more}
                results.append((filler.fill(result, every), filler.fill(said, every)))
        return ToolUse(
            before=filler.fill(answer if tool.before is None else tool.before, chosen),
            name=name,
            arguments={key: filler.fill(value, chosen) for key, value in arguments.items()},
            results=tuple(results),
        )


def _full(name: str, chosen: Mapping[str, str]) -> str:
    return ":".join([name, *chosen.values()])


def read_line(path: str | Path, seed: int = 0) -> Line:
    """Read a corpus file.

    Args:
        path: The YAML file.
        seed: Decides which sentences of the templates are taken.

    Raises:
        ValueError: A field is missing, unknown or of the wrong kind, or names what is not in the
            file; the message names it.
    """
    path = Path(path)
    return _Reader(_File.checked(read_mapping(path), path, "corpus"), path, seed).line()


def unheard_words(line: Line) -> set[str]:
    """Return words of held-out sentences that no training sentence contains."""
    sayings = line.sayings.values()
    trained = {w for saying in sayings for text in saying.train for w in units(text, line.language)}
    held_out = {
        w for saying in sayings for text in saying.held_out for w in units(text, line.language)
    }
    return held_out - trained
