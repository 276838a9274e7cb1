"""What must hold for a turn and for a call; every field that is given becomes a check."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from agent.evaluation.wording import plain_words
from telephony.simulator.part import Part
from telephony.simulator.trace import Cause

NOBODY = "nobody"
"""In the place of a transfer's target: the call is not transferred."""


def _expression(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return value


def _phrase(value: str) -> str:
    if not plain_words(value):
        raise ValueError(f"no word in {value!r}")
    return value


Expression = Annotated[str, AfterValidator(_expression)]
Phrase = Annotated[str, AfterValidator(_phrase)]


class Said(Part):
    """What a text must and must not say.

    Attributes:
        words: Each occurs as a word, or as words in a row; how numbers, dates and clock times are
            written makes no difference.
        matches: Regular expression found somewhere in the text as it is, in any case of letters.
        exact: The text is this one, character by character, blanks aside.
        similar_to: A text that it should resemble; numbers, dates and times as with ``words``.
        similarity: How much, from 0 to 1: share of words in common order (difflib's ratio).
        never: None of these occurs, read as ``words``.
        never_matches: Regular expression found nowhere, read as ``matches``.
    """

    words: tuple[Phrase, ...] = ()
    matches: Expression | None = None
    exact: str | None = None
    similar_to: Phrase | None = None
    similarity: float = Field(default=0.7, ge=0, le=1)
    never: tuple[Phrase, ...] = ()
    never_matches: Expression | None = None


class Tool(Part):
    """A call of a tool.

    Attributes:
        name: The tool's.
        arguments: Each must have this value; others may be there. Of a mapping within, only the
            named fields are compared.
        arguments_match: Each must hold a text that this regular expression is found in, in any case
            of letters.
    """

    name: str = Field(min_length=1)
    arguments: dict[str, Any] = Field(default={})
    arguments_match: dict[str, Expression] = Field(default={})


class Tools(Part):
    """Which tools the agent calls.

    Attributes:
        called: Each is called, a call counting for one of them only.
        in_order: They are called in this order; other calls may come between.
        never: Names of tools that are not called.
        others: Whether calls may be made that are not in ``called``.
    """

    called: tuple[Tool, ...] = ()
    in_order: bool = False
    never: tuple[str, ...] = ()
    others: bool = True


class Judgement(Part):
    """What a language model judges, from 1 to 10.

    Attributes:
        criterion: What the agent should have done, in a sentence.
        threshold: The least rating that holds.
        prompt: What the model is asked, with ``{criterion}`` and ``{transcript}`` in it; it must
            ask for a rating in double brackets, as in ``[[7]]``. None takes the usual prompt.
    """

    criterion: str = Field(min_length=1)
    threshold: float = Field(default=7.0, ge=1, le=10)
    prompt: str | None = None

    @field_validator("prompt")
    @classmethod
    def _template(cls, value: str | None) -> str | None:
        if value is not None:
            for name in ("{criterion}", "{transcript}"):
                if name not in value:
                    raise ValueError(f"expected {name} in it")
        return value


class Database(Part):
    """The state of a test database after the call: the rows of a query, or the hash of tables.

    Attributes:
        url: SQLAlchemy's address of it, such as ``sqlite:///clinic.db``, the file counted from the
            working directory.
        url_from: In place of ``url``: the environment variable that holds the address.
        query: An SQL query; it is rolled back.
        parameters: Values for ``:name`` in the query.
        rows: What it must return, a list of values for each row.
        ordered: Whether the order of rows counts.
        tables: In place of ``query``: names of tables.
        sha256: Their hash, as :func:`telephony.simulator.checks.database.hash_tables` computes it.
    """

    url: str | None = Field(default=None, min_length=1)
    url_from: str | None = Field(default=None, min_length=1)
    query: str | None = None
    parameters: dict[str, Any] = Field(default={})
    rows: tuple[tuple[Any, ...], ...] | None = None
    ordered: bool = False
    tables: tuple[str, ...] = ()
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")

    @model_validator(mode="after")
    def _one_way(self) -> "Database":
        if (self.url is None) == (self.url_from is None):
            raise ValueError("give exactly one of url and url_from")
        by_query = (self.query is not None, self.rows is not None)
        by_hash = (bool(self.tables), self.sha256 is not None)
        if sorted([by_query, by_hash]) != [(False, False), (True, True)]:
            raise ValueError("give either query and rows, or tables and sha256")
        return self


class _Common(Said):
    """What turns and calls have in common.

    Attributes:
        audio: What an independent recogniser's reading of the phone's audio must say.
        heard: What the agent's history must hold as heard.
        tools: Which tools are called.
        judge: What a language model judges.
    """

    audio: Said | None = None
    heard: Said | None = None
    tools: Tools | None = None
    judge: tuple[Judgement, ...] = ()


class Expectation(_Common):
    """What must hold for a turn: the text is the agent's answer to it.

    Attributes:
        answered: Whether the agent must say something after the turn, or must not.
        answer_within_ms: Longest voice-to-voice time.
        longest_pause_ms: Longest silence inside the answer; less than 200 ms is no pause.
        longest_gap_ms: Longest silence in it because no audio had come.
        silent_within_ms: For a barge-in: the agent falls silent so soon after the caller's first
            audible sample.
        history_cut: For a barge-in: the agent's history keeps less than all of the answer that
            was cut off, and only its beginning.
    """

    answered: bool = True
    answer_within_ms: float | None = Field(default=None, gt=0)
    longest_pause_ms: float | None = Field(default=None, ge=0)
    longest_gap_ms: float | None = Field(default=None, ge=0)
    silent_within_ms: float | None = Field(default=None, gt=0)
    history_cut: bool = False


def _cause(value: Any) -> Any:
    names = {cause.name.lower(): cause for cause in Cause}
    if isinstance(value, Cause):
        return value
    if value not in names:
        raise ValueError(f"expected one of {', '.join(names)}; got {value!r}")
    return names[value]


class CallExpectation(_Common):
    """What must hold for the call as a whole: said at any time, which is in any one answer.

    Attributes:
        cause: How the call ends.
        errors: Codes that Twilio's error log must hold, and no others.
        transferred_to: The number or conference that the call is connected with last;
            ``nobody``: it is not transferred.
        at_least_ms: Shortest duration of the media stream.
        at_most_ms: Longest duration.
        answer_within_ms: Longest voice-to-voice time of any turn.
        longest_gap_ms: Longest silence in the middle of an answer because no audio had come.
        longest_silence_ms: Longest time, up to the last sound, in which nobody was heard.
        database: The state of test databases after the call.
    """

    cause: Annotated[Cause, BeforeValidator(_cause)] = Cause.CALLER_HUNG_UP
    errors: tuple[int, ...] = ()
    transferred_to: str | None = None
    at_least_ms: float | None = Field(default=None, gt=0)
    at_most_ms: float | None = Field(default=None, gt=0)
    answer_within_ms: float | None = Field(default=None, gt=0)
    longest_gap_ms: float | None = Field(default=None, ge=0)
    longest_silence_ms: float | None = Field(default=None, ge=0)
    database: tuple[Database, ...] = ()
