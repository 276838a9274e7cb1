"""Settings of the carriers that reach the gateway beside Twilio."""

from pathlib import Path
from typing import Literal

from agent.section import Section

CarrierName = Literal["telnyx", "plivo", "vonage", "exotel"]


class WireSettings(Section):
    """One carrier's wire.

    Attributes:
        secret_file: File that holds what the carrier's webhooks are checked with, and nothing else:
            Telnyx's public key, Plivo's auth token, Vonage's signature secret; for Exotel, which
            signs nothing, a key of one's own that its webhook brings in its path.
        marks: The carrier is asked to tell what has been played. Without, that is estimated by the
            clock.
    """

    secret_file: Path
    marks: bool = True

    def read_secret(self) -> str:
        """What the carrier's webhooks are checked with.

        Raises:
            ValueError: The file cannot be read or is empty.
        """
        try:
            secret = self.secret_file.read_text("utf-8").strip()
        except OSError as error:
            raise ValueError(
                f"secret_file {self.secret_file}: {error.strerror or error}"
            ) from error
        if not secret:
            raise ValueError(f"secret_file {self.secret_file} is empty")
        return secret
