"""The tables. Times are Unix seconds, spans seconds; texts are as redacted.

``events`` holds all that happened. ``turns`` and ``tool_calls`` are the same in the shape in which
one asks for it, and say nothing that is not in ``events``.
"""

from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Double,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.dialects.postgresql import JSONB

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

PROCESSES = Table(
    "processes",
    METADATA,
    Column("id", String(32), primary_key=True),
    # Processes of one machine see each other's process ids.
    Column("machine", String),
    Column("pid", Integer, nullable=False),
    Column("started_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("stopped_at", Double),
)

CALLS = Table(
    "calls",
    METADATA,
    # Made by the process, so that nothing waits for the database; a SID may come twice, as when a
    # caller who was put through comes back.
    Column("id", String(32), primary_key=True),
    Column("sid", String, nullable=False, index=True),
    Column("account_sid", String),
    Column("direction", String, nullable=False),
    Column("caller", String, index=True),
    Column("called", String, index=True),
    Column("agent", String),
    Column("process_id", ForeignKey("processes.id"), nullable=False, index=True),
    Column("opened_at", Double, nullable=False, index=True),
    Column("answered_at", Double),
    Column("ended_at", Double, index=True),
    Column("cause", String),
    Column("transferred_to", String),
    Column("recording", Text),
)


_JSON = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def _of_call(*, primary_key: bool = False, index: bool = False) -> Column[Any]:
    reference = ForeignKey("calls.id", ondelete="CASCADE")
    return Column(
        "call_id", reference, primary_key=primary_key, nullable=False, index=index or None
    )


EVENTS = Table(
    "events",
    METADATA,
    _of_call(primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("name", String, nullable=False),
    Column("fields", _JSON, nullable=False),
)

TURNS = Table(
    "turns",
    METADATA,
    _of_call(primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    # When the caller spoke, as the VAD saw it, and what was understood.
    Column("caller_started_at", Double),
    Column("caller_stopped_at", Double),
    Column("caller_text", Text),
    Column("decided_at", Double),
    # When the answer was begun, first sounded at the gateway and was all made, and its words.
    Column("started_at", Double),
    Column("first_audio_at", Double),
    Column("finished_at", Double),
    Column("agent_text", Text),
    # When that was settled, what the caller heard of it.
    Column("interrupted_at", Double),
    Column("heard_at", Double),
    Column("heard_text", Text),
    Column("heard_seconds", Double),
    # Where the time went: seconds of agent.events.
    Column("ahead", Double),
    Column("tokenise", Double),
    Column("first_token", Double),
    Column("first_audio", Double),
    Column("saved", Double),
)

TOOL_CALLS = Table(
    "tool_calls",
    METADATA,
    _of_call(primary_key=True),
    # Of the event tool_call.
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("turn", Integer),
    Column("tool_call_id", String),
    Column("name", String, nullable=False),
    Column("arguments", _JSON, nullable=False),
    Column("called_at", Double, nullable=False),
    Column("result", _JSON),
    Column("error", Text),
    Column("returned_at", Double),
)


def _letter() -> list[Column[Any]]:
    return [
        # The same at every try: whoever gets a notice twice can tell.
        Column("id", String(32), primary_key=True),
        _of_call(index=True),
        Column("url", Text, nullable=False),
        Column("event", String, nullable=False),
        Column("body", Text, nullable=False),
        Column("created_at", Double, nullable=False),
        Column("attempts", Integer, nullable=False),
        Column("error", Text),
    ]


NOTICES = Table("notices", METADATA, *_letter(), Column("next_at", Double, index=True))
DEAD_LETTERS = Table("dead_letters", METADATA, *_letter(), Column("died_at", Double))
