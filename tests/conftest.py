"""What every test shares: the golden fixtures and one thread for torch (two cores, many tests)."""

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def goldens() -> Path:
    return Path(__file__).parent / "goldens"
