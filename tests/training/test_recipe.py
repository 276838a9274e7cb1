from pathlib import Path

import pytest
import torch

from agent.training.recipe import Device, Section


class Inner(Section):
    share: float
    data: Path = Path("/nowhere")


class Outer(Section):
    section = "outer"

    steps: int
    lr: float
    inner: Inner
    line: Path
    more: dict[str, list[Inner]] | None = None


GOOD = "outer: {steps: 3, lr: 1e-3, inner: {share: 0.5}, line: corpus.yaml}"


def read(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return Outer.read(path)


def test_numbers_and_paths_are_what_the_file_means(tmp_path):
    settings = read(tmp_path, GOOD)
    assert settings.lr == 0.001  # YAML 1.1 takes 1e-3 for text
    assert settings.line == tmp_path / "corpus.yaml"
    more = GOOD.replace("line:", "more: {a: [{share: 1, data: deep/b}]}, line:")
    assert read(tmp_path, more).more["a"][0].data == tmp_path / "deep" / "b"
    assert settings.inner.data == Path("/nowhere")


@pytest.mark.parametrize("gpu", [False, True])
def test_device_is_not_what_the_machine_has(tmp_path, monkeypatch, gpu):
    class Trained(Section):
        section = "trained"
        device: Device = "cpu"

    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    path = tmp_path / "recipe.yaml"
    devices = {}
    for asked in ("auto", "cpu", "cuda:1"):
        path.write_text(f"trained: {{device: {asked}}}")
        devices[asked] = Trained.read(path).device
    assert devices == {"auto": "cuda" if gpu else "cpu", "cpu": "cpu", "cuda:1": "cuda:1"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD.replace("steps", "stepps"), "'outer.steps' is missing; field 'outer.stepps' is unk"),
        (GOOD.replace("0.5", "much"), "field 'outer.inner.share' is wrong"),
        (GOOD.replace("3,", "2.5,"), "field 'outer.steps' is wrong"),
        (GOOD.replace("outer", "other"), "section 'outer' is missing"),
        ("[1, 2]", "expected a mapping, got list"),
        ("outer: {", "not a YAML file"),
    ],
)
def test_a_mistake_is_not_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, text)
    assert "recipe.yaml" in str(caught.value)


def test_a_file_that_is_not_there_is_not_named(tmp_path):
    with pytest.raises(ValueError, match=r"absent\.yaml: No such file"):
        Outer.read(tmp_path / "absent.yaml")
