"""The base of everything that is read from a file of settings."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A group of settings; a field it does not know is an error, not a silent typo."""

    model_config = ConfigDict(extra="forbid", frozen=True)
