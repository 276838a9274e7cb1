"""Damaged and hostile checkpoint files: each is refused by name and none is executed."""

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from agent.speech.checkpoint import (
    CheckpointError,
    checkpoint_file,
    field,
    load_into,
    read_json,
    read_pickle,
    read_safetensors,
    read_yaml,
)


class _Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (self.path,))


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path):
    trap = tmp_path / "ran"
    path = tmp_path / "flow.pt"
    path.write_bytes(pickle.dumps({"weight": _Payload(str(trap))}))
    with pytest.raises(CheckpointError, match=r"flow\.pt"):
        read_pickle(path)
    torch.save({"weight": _Payload(str(trap))}, path)
    with pytest.raises(CheckpointError, match=r"flow\.pt"):
        read_pickle(path)
    assert not trap.exists()


def test_yaml_tags_construct_nothing(tmp_path):
    trap = tmp_path / "ran"
    path = tmp_path / "config.yaml"
    path.write_text(
        f"rate: 22050\n__set: !apply:os.mkdir [{trap}]\n"
        "flow: !new:os.system\n  size: !ref <rate>\n  name: !name:os.mkdir\n"
    )
    config = read_yaml(path)
    assert config["flow"] == {"size": 22050, "name": ""}
    assert not trap.exists()


def test_python_object_tags_construct_nothing(tmp_path):
    trap = tmp_path / "ran"
    path = tmp_path / "config.yaml"
    path.write_text(f"a: !!python/object/apply:os.mkdir [{trap}]\n")
    with pytest.raises(CheckpointError, match=r"config\.yaml"):
        read_yaml(path)
    assert not trap.exists()


def test_a_dangling_reference_is_named(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("a: !ref <nowhere>\n")
    with pytest.raises(CheckpointError, match="nowhere"):
        read_yaml(path)


def test_missing_directory_and_file_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="no such checkpoint directory"):
        checkpoint_file(tmp_path / "absent", "config.json")
    with pytest.raises(CheckpointError, match=r"config\.json: file is missing"):
        checkpoint_file(tmp_path, "config.json")


@pytest.mark.parametrize("text", ["{", "[1]", "\x00"])
def test_a_damaged_json_is_named(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_json(path)


@pytest.mark.parametrize(
    ("value", "kind"), [("8", int), (True, int), (None, int), (8, str), (8.5, int)]
)
def test_a_field_of_another_type_is_named(value, kind):
    with pytest.raises(CheckpointError, match=r"config\.json: field 'a\.heads'"):
        field({"a": {"heads": value}}, "a.heads", kind, "config.json")


def test_a_truncated_shard_and_a_missing_shard_are_named(tmp_path):
    save_file({"a": torch.zeros(4)}, tmp_path / "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"model-2\.safetensors: file is missing"):
        read_safetensors(tmp_path)
    whole = (tmp_path / "model-1.safetensors").read_bytes()
    (tmp_path / "model-2.safetensors").write_bytes(whole[:-4])
    with pytest.raises(CheckpointError, match=r"model-2\.safetensors: not a complete"):
        read_safetensors(tmp_path)
    (tmp_path / "model-2.safetensors").write_bytes(whole)
    with pytest.raises(CheckpointError, match="tensor 'b'"):
        read_safetensors(tmp_path)


def test_missing_superfluous_and_misshapen_tensors_are_named():
    module = torch.nn.Linear(3, 2)
    good = {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}
    with pytest.raises(CheckpointError, match="'bias' is missing"):
        load_into(module, {"weight": good["weight"]}, "m.pt")
    with pytest.raises(CheckpointError, match="'extra' belongs to no part"):
        load_into(module, {**good, "extra": torch.zeros(1)}, "m.pt")
    with pytest.raises(CheckpointError, match=r"has shape \(3, 2\), the config asks for \(2, 3\)"):
        load_into(module, {**good, "weight": torch.zeros(3, 2)}, "m.pt")
    load_into(module, {**good, "extra": torch.zeros(1)}, "m.pt", unused=("extra",))
