"""How calls are recorded, and who is told of them: ``records`` in the settings."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator

from agent.outgoing import Secret, check_address
from agent.section import Section

Notice = Literal["call_started", "call_transferred", "call_ended"]
"""What a webhook can be told of."""
ALL_NOTICES: tuple[Notice, ...] = ("call_started", "call_transferred", "call_ended")


class NoticeSettings(Section):
    """A web address that is told of calls.

    Attributes:
        url: https, or http on loopback.
        secret: Signs every notice (docs/records.md says how).
        events: What it is told of.
        give_up_secs: A notice that has failed for so long becomes a dead letter.
    """

    url: str
    secret: Secret
    events: tuple[Notice, ...] = Field(default=ALL_NOTICES, min_length=1)
    give_up_secs: float = Field(default=86_400.0, gt=0)

    @model_validator(mode="after")
    def _safe(self) -> "NoticeSettings":
        check_address(self.url)
        return self


class RecordSettings(Section):
    """Where calls are recorded.

    Attributes:
        directory: Holds the SQLite file ``calls.db``, where there is no ``url``, and what waits for
            a database that cannot be reached.
        url: SQLAlchemy's address of the database. One with a password belongs in
            ``GLM_VOICE_RECORDS__URL``.
        keep_days: Calls that ended longer ago are erased, with their recordings; None keeps all.
        lease_secs: A process that has not been heard of for so long is held for dead, and its calls
            for broken off.
        webhooks: Who is told of calls.
    """

    directory: Path = Path("records")
    url: SecretStr | None = None
    keep_days: float | None = Field(default=None, gt=0)
    lease_secs: float = Field(default=60.0, ge=5)
    webhooks: tuple[NoticeSettings, ...] = ()

    @model_validator(mode="after")
    def _once(self) -> "RecordSettings":
        urls = [webhook.url for webhook in self.webhooks]
        if len(set(urls)) != len(urls):
            raise ValueError("webhooks: the same url is given twice")
        return self

    @property
    def database_url(self) -> str:
        """SQLAlchemy's address of the database."""
        if self.url is not None:
            return self.url.get_secret_value()
        return f"sqlite:///{self.directory / 'calls.db'}"
