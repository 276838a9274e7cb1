"""Settings of who speaks when: what interrupts the agent, and what happens when nobody speaks."""

from typing import Annotated

from pydantic import Field, StringConstraints

from agent.section import Section

Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class TurnTakingSettings(Section):
    """Who speaks when (docs/turn-taking.md).

    Attributes:
        interrupt_after_secs: Speech of the caller that interrupts the agent. The agent falls
            silent as soon as the caller is heard, and goes on where it stopped if there was less
            of it; 0: whatever the VAD takes for speech interrupts.
        noise_margin_db: By how much speech must stand out from the line's noise to count for that.
        silence_secs: Silence after the agent has spoken that is broken with ``silence_prompt``;
            None: never.
        silence_prompts: So many times in a row; then the agent says ``silence_goodbye`` and hangs
            up.
        silence_prompt: The words; None: our own in the agent's language.
        silence_goodbye: The words; None: our own in the agent's language.
        time_warning: What is said ``limits.warning_secs`` before the longest call is over; None:
            our own in the agent's language.
    """

    interrupt_after_secs: float = Field(default=0.5, ge=0, le=5)
    noise_margin_db: float = Field(default=6.0, ge=0, le=60)
    silence_secs: float | None = Field(default=8.0, gt=0)
    silence_prompts: int = Field(default=2, ge=0)
    silence_prompt: Words | None = None
    silence_goodbye: Words | None = None
    time_warning: Words | None = None
