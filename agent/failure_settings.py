"""Settings of what happens when the engine fails in the middle of a call."""

from pydantic import Field

from agent.section import Section


class FailureSettings(Section):
    """When the engine counts as failed, and what is done then (docs/engine-failure.md).

    Attributes:
        patience: Seconds for which a caller may hear nothing of an answer before the engine is
            asked whether it lives.
        probe_timeout: Seconds within which each of its models must show a sign of life then.
        recovery_timeout: Seconds after which a call ends, with a sentence, if no engine has taken
            it over.
        history_secs: Seconds of the caller's voice that are kept for another engine; what was said
            before is forgotten if that has to take over.
        restart: Start an embedded engine's processes again when they die or freeze.
        frozen_secs: An embedded engine's process that shows no life for so long is killed first.
    """

    patience: float = Field(default=0.5, gt=0)
    probe_timeout: float = Field(default=1.0, gt=0)
    recovery_timeout: float = Field(default=30.0, gt=0)
    history_secs: float = Field(default=180.0, ge=0)
    restart: bool = True
    frozen_secs: float = Field(default=10.0, gt=0)
