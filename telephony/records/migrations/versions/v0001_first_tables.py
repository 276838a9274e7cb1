"""The first tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "processes",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("machine", sa.String(), nullable=True),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("stopped_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_processes")),
    )
    op.create_table(
        "calls",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("sid", sa.String(), nullable=False),
        sa.Column("account_sid", sa.String(), nullable=True),
        sa.Column("direction", sa.String(), nullable=False),
        sa.Column("caller", sa.String(), nullable=True),
        sa.Column("called", sa.String(), nullable=True),
        sa.Column("agent", sa.String(), nullable=True),
        sa.Column("process_id", sa.String(length=32), nullable=False),
        sa.Column("opened_at", sa.Double(), nullable=False),
        sa.Column("answered_at", sa.Double(), nullable=True),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("cause", sa.String(), nullable=True),
        sa.Column("transferred_to", sa.String(), nullable=True),
        sa.Column("recording", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["process_id"], ["processes.id"], name=op.f("fk_calls_process_id_processes")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_calls")),
    )
    op.create_index(op.f("ix_calls_called"), "calls", ["called"], unique=False)
    op.create_index(op.f("ix_calls_caller"), "calls", ["caller"], unique=False)
    op.create_index(op.f("ix_calls_ended_at"), "calls", ["ended_at"], unique=False)
    op.create_index(op.f("ix_calls_opened_at"), "calls", ["opened_at"], unique=False)
    op.create_index(op.f("ix_calls_process_id"), "calls", ["process_id"], unique=False)
    op.create_index(op.f("ix_calls_sid"), "calls", ["sid"], unique=False)
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("call_id", sa.String(length=32), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("died_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["call_id"],
            ["calls.id"],
            name=op.f("fk_dead_letters_call_id_calls"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dead_letters")),
    )
    op.create_index(op.f("ix_dead_letters_call_id"), "dead_letters", ["call_id"], unique=False)
    op.create_table(
        "events",
        sa.Column("call_id", sa.String(length=32), nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("fields", _JSON, nullable=False),
        sa.ForeignKeyConstraint(
            ["call_id"], ["calls.id"], name=op.f("fk_events_call_id_calls"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("call_id", "seq", name=op.f("pk_events")),
    )
    op.create_table(
        "notices",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("call_id", sa.String(length=32), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("event", sa.String(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("next_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["call_id"], ["calls.id"], name=op.f("fk_notices_call_id_calls"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notices")),
    )
    op.create_index(op.f("ix_notices_call_id"), "notices", ["call_id"], unique=False)
    op.create_index(op.f("ix_notices_next_at"), "notices", ["next_at"], unique=False)
    op.create_table(
        "tool_calls",
        sa.Column("call_id", sa.String(length=32), nullable=False),
        sa.Column("seq", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("turn", sa.Integer(), nullable=True),
        sa.Column("tool_call_id", sa.String(), nullable=True),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("arguments", _JSON, nullable=False),
        sa.Column("called_at", sa.Double(), nullable=False),
        sa.Column("result", _JSON, nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("returned_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["call_id"], ["calls.id"], name=op.f("fk_tool_calls_call_id_calls"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("call_id", "seq", name=op.f("pk_tool_calls")),
    )
    op.create_table(
        "turns",
        sa.Column("call_id", sa.String(length=32), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("caller_started_at", sa.Double(), nullable=True),
        sa.Column("caller_stopped_at", sa.Double(), nullable=True),
        sa.Column("caller_text", sa.Text(), nullable=True),
        sa.Column("decided_at", sa.Double(), nullable=True),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("first_audio_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("agent_text", sa.Text(), nullable=True),
        sa.Column("interrupted_at", sa.Double(), nullable=True),
        sa.Column("heard_at", sa.Double(), nullable=True),
        sa.Column("heard_text", sa.Text(), nullable=True),
        sa.Column("heard_seconds", sa.Double(), nullable=True),
        sa.Column("ahead", sa.Double(), nullable=True),
        sa.Column("tokenise", sa.Double(), nullable=True),
        sa.Column("first_token", sa.Double(), nullable=True),
        sa.Column("first_audio", sa.Double(), nullable=True),
        sa.Column("saved", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["call_id"], ["calls.id"], name=op.f("fk_turns_call_id_calls"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("call_id", "number", name=op.f("pk_turns")),
    )


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("turns")
    op.drop_table("tool_calls")
    op.drop_index(op.f("ix_notices_next_at"), table_name="notices")
    op.drop_index(op.f("ix_notices_call_id"), table_name="notices")
    op.drop_table("notices")
    op.drop_table("events")
    op.drop_index(op.f("ix_dead_letters_call_id"), table_name="dead_letters")
    op.drop_table("dead_letters")
    op.drop_index(op.f("ix_calls_sid"), table_name="calls")
    op.drop_index(op.f("ix_calls_process_id"), table_name="calls")
    op.drop_index(op.f("ix_calls_opened_at"), table_name="calls")
    op.drop_index(op.f("ix_calls_ended_at"), table_name="calls")
    op.drop_index(op.f("ix_calls_caller"), table_name="calls")
    op.drop_index(op.f("ix_calls_called"), table_name="calls")
    op.drop_table("calls")
    op.drop_table("processes")
