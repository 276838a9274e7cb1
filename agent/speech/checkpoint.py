"""Checkpoint files to configs and state dicts: the only place that knows the published layout.

Nothing in a checkpoint is ever executed: pickles are loaded with ``weights_only=True``, YAML object
tags (``!new:``, ``!apply:``) are read as plain data, and the language model's remote code is
ignored.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn


class CheckpointError(Exception):
    """A checkpoint file is missing, damaged, or says something the model cannot be built from.

    The message names the file, the field where there is one, and what was expected.
    """


def checkpoint_file(directory: str | Path, name: str) -> Path:
    """Path of one file of a checkpoint.

    Raises:
        CheckpointError: if the directory or the file is not there.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise CheckpointError(f"{directory}: no such checkpoint directory")
    path = directory / name
    if not path.is_file():
        raise CheckpointError(f"{path}: file is missing from the checkpoint")
    return path


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: if the file cannot be read, is no JSON, or is not an object.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path}: not JSON (line {error.lineno}: {error.msg})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader that reads object tags as the data below them and resolves ``!ref <name>``."""


def _plain(loader: yaml.SafeLoader, _suffix: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    assert isinstance(node, yaml.ScalarNode)
    return loader.construct_scalar(node)


class _Reference(str):
    """The name inside ``!ref <name>``."""


def _reference(loader: yaml.SafeLoader, node: yaml.Node) -> _Reference:
    assert isinstance(node, yaml.ScalarNode)
    return _Reference(str(loader.construct_scalar(node)).strip("<> "))


_PlainLoader.add_multi_constructor("!", _plain)
_PlainLoader.add_constructor("!ref", _reference)


def _resolve(value: Any, top: Mapping[str, Any], path: Path) -> Any:
    if isinstance(value, _Reference):
        if value not in top:
            raise CheckpointError(f"{path}: !ref <{value}> names no top-level field")
        return top[value]
    if isinstance(value, dict):
        return {key: _resolve(item, top, path) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolve(item, top, path) for item in value]
    return value


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a HyperPyYAML file as plain data: no tag constructs an object or calls a function.

    Raises:
        CheckpointError: if the file cannot be read, is no YAML, or is not a mapping.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8") as stream:
            # A SafeLoader subclass: tags become dicts, lists and strings, never objects.
            value = yaml.load(stream, Loader=_PlainLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise CheckpointError(f"{path}: not YAML ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: expected a mapping, found {type(value).__name__}")
    resolved = _resolve(value, value, path)
    assert isinstance(resolved, dict)
    return resolved


def field(
    config: Mapping[str, Any], name: str, kind: type | tuple[type, ...], path: str | Path
) -> Any:
    """One field of a config; dots in ``name`` step into nested mappings.

    Raises:
        CheckpointError: if the field is missing or of another type; names file and field.
    """
    value: Any = config
    for part in name.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise CheckpointError(f"{path}: field {name!r} is missing")
        value = value[part]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    # bool is an int to Python, but `true` heads are a mistake in a config.
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        expected = " or ".join(k.__name__ for k in kinds)
        raise CheckpointError(f"{path}: field {name!r} is {value!r}, expected {expected}")
    return value


def read_safetensors(directory: str | Path) -> dict[str, Tensor]:
    """Read ``model.safetensors``, or the shards that ``model.safetensors.index.json`` lists.

    Raises:
        CheckpointError: if a file is missing or damaged, or a listed tensor is not in its shard.
    """
    directory = Path(directory)
    index_path = directory / "model.safetensors.index.json"
    if not index_path.is_file():
        return _load_safetensors(checkpoint_file(directory, "model.safetensors"))
    weight_map = field(read_json(index_path), "weight_map", dict, index_path)
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(weight_map.values())):
        tensors.update(_load_safetensors(checkpoint_file(directory, shard)))
    for name, shard in weight_map.items():
        if name not in tensors:
            raise CheckpointError(
                f"{directory / shard}: tensor {name!r}, which {index_path.name} lists, is missing"
            )
    return tensors


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a complete safetensors file ({error})") from error


def read_pickle(path: str | Path) -> dict[str, Tensor]:
    """Read a plain state dict saved by torch.save; refuses anything but tensors.

    Raises:
        CheckpointError: if the file cannot be read or holds anything else than named tensors.
    """
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, all of which mean one thing here
        raise CheckpointError(f"{path}: not a plain torch state dict ({error})") from error
    if not isinstance(value, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items()
    ):
        raise CheckpointError(f"{path}: expected a dict of named tensors")
    return value


def load_into(
    module: nn.Module,
    tensors: Mapping[str, Tensor],
    path: str | Path,
    *,
    unused: tuple[str, ...] = (),
) -> None:
    """Copy tensors into a module whose parameters have the published names.

    Args:
        module: Receives the tensors, cast to its own dtypes (a checkpoint may be saved in fp16).
        tensors: Name to tensor, as read from the file.
        path: The file, for messages.
        unused: Prefixes of names in the file that the module leaves out on purpose.

    Raises:
        CheckpointError: if a tensor is missing, superfluous or of another shape.
    """
    expected = module.state_dict()
    for name, target in expected.items():
        if name not in tensors:
            raise CheckpointError(
                f"{path}: tensor {name!r} is missing, expected shape {tuple(target.shape)}"
            )
        if tensors[name].shape != target.shape:
            raise CheckpointError(
                f"{path}: tensor {name!r} has shape {tuple(tensors[name].shape)}, "
                f"the config asks for {tuple(target.shape)}"
            )
    for name in tensors:
        if name not in expected and not name.startswith(unused or ("\0",)):
            raise CheckpointError(f"{path}: tensor {name!r} belongs to no part of the model")
    module.load_state_dict({name: tensors[name] for name in expected})


def fold_weight_norm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace each pair ``weight_g``, ``weight_v`` by their product (arXiv 1602.07868)."""
    folded: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name.endswith(".weight_g"):
            continue
        if name.endswith(".weight_v") and f"{name[:-1]}g" in tensors:
            direction = value.float()
            norm = direction.flatten(1).norm(dim=1).view(-1, *[1] * (direction.ndim - 1))
            folded[name.removesuffix("_v")] = direction * (tensors[f"{name[:-1]}g"].float() / norm)
        else:
            folded[name] = value
    return folded


def unfold_weight_norm(tensors: Mapping[str, Tensor], modules: Iterable[str]) -> dict[str, Tensor]:
    """Store the weights of the named modules as ``weight_g`` and ``weight_v``, as published."""
    normed = {f"{name}.weight" for name in modules}
    unfolded: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name in normed:
            norm = value.float().flatten(1).norm(dim=1).view(-1, *[1] * (value.ndim - 1))
            unfolded[f"{name}_g"], unfolded[f"{name}_v"] = norm, value
        else:
            unfolded[name] = value
    return unfolded
