"""What docs/training.md tells a stranger to type and to write into settings."""

import argparse
import re
import shlex
from pathlib import Path

import pytest
import yaml

from agent.training import (
    call_centre,
    command,
    finetuning,
    interleaving,
    preparing,
    pretraining,
    text_to_token,
    voice,
)
from agent.training.scripts import Script

TEXT = (Path(__file__).parents[2] / "docs" / "training.md").read_text("utf-8")
RECIPES = [call_centre, finetuning, interleaving, preparing, pretraining, text_to_token, voice]
SETTINGS = {module.Settings.section: module.Settings for module in RECIPES}
BLOCKS = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
COMMANDS = re.findall(r"^ +(glm-voice train .*)$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS)
def test_settings_in_the_text_are_refused(block, tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(block)
    if "turns" in yaml.safe_load(block):
        Script.checked(yaml.safe_load(block), path, "dialogue 1")
        return
    for section in yaml.safe_load(block).keys() & SETTINGS.keys():
        SETTINGS[section].read(path)


def test_a_recipe_has_no_example():
    shown = {section for block in BLOCKS for section in yaml.safe_load(block)}
    assert shown >= SETTINGS.keys()


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_in_the_text_are_refused(line):
    parser = argparse.ArgumentParser()
    command.add_parts(parser)
    parser.parse_args(shlex.split(line)[2:])


def test_a_part_is_not_mentioned():
    assert {line.split()[2] for line in COMMANDS} >= command.PARTS.keys()
