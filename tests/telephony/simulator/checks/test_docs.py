"""What docs/checks.md tells a stranger to write."""

import re
from pathlib import Path

import pytest
import yaml

from telephony.simulator.expectation import (
    CallExpectation,
    Database,
    Expectation,
    Judgement,
    Said,
    Tool,
    Tools,
)
from telephony.simulator.scenario import Scenario

PAGE = (Path(__file__).parents[4] / "docs" / "checks.md").read_text("utf-8")


def test_every_example_is_read_as_it_stands():
    scenario, *fields = [
        yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", PAGE, re.S)
    ]

    assert Scenario.model_validate({"name": "x", **scenario}).expect.database
    assert [list(CallExpectation.model_validate(field).model_fields_set) for field in fields] == [
        ["tools"],
        ["judge"],
    ]


@pytest.mark.parametrize(
    "part", [Said, Expectation, CallExpectation, Tools, Tool, Judgement, Database]
)
def test_every_field_is_explained(part):
    explained = set(re.findall(r"`(\w+)", PAGE))
    in_examples = set(re.findall(r"(\w+): ", "".join(re.findall(r"```yaml.*?```", PAGE, re.S))))

    assert set(part.model_fields) <= explained | in_examples
