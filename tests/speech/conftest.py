import pytest

from agent.speech.language_model import LanguageModel


@pytest.fixture(scope="session")
def model(goldens):
    """The golden language model; tests must leave it as it is."""
    return LanguageModel.from_pretrained(goldens / "language_model")
