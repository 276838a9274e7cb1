import re
from pathlib import Path

import pytest

from agent.serving.parameters import SHIPPED_CHECKPOINT, ModelParameters


def config(**parameters: str) -> dict:
    return {
        "name": "voice_lm",
        "parameters": {name: {"string_value": value} for name, value in parameters.items()},
    }


def test_config_values_are_read():
    parameters = ModelParameters.read(
        config(checkpoint="/models/9b", threads="4", ttl_seconds="30", lead_limit="50"), {}
    )
    assert parameters == ModelParameters(Path("/models/9b"), "torch", 4, 30.0, 50)


def test_the_environment_wins_over_the_config():
    environment = {"GLM_MODEL_CHECKPOINT": "/other", "GLM_MODEL_LEAD_LIMIT": "20"}
    parameters = ModelParameters.read(config(checkpoint="/models/9b", threads="2"), environment)
    assert parameters.checkpoint == Path("/other")
    # This model has no such parameter.
    assert parameters.lead_limit == ModelParameters().lead_limit


def test_the_decoder_shipped_config_is_read():
    path = Path(__file__).parents[2] / "triton_models/speech_decoder/config.pbtxt"
    found = re.findall(r'key: "(\w+)" value { string_value: "([^"]*)"', path.read_text())
    parameters = ModelParameters.read(config(**dict(found)), {})
    assert (parameters.schedule, parameters.lead_seconds, parameters.max_batch) == (
        "deadline",
        3,
        1,
    )


def test_an_empty_checkpoint_is_the_shipped_one():
    assert ModelParameters.read(config(checkpoint=""), {}).checkpoint == SHIPPED_CHECKPOINT


def test_triton_own_parameters_are_not_ours():
    assert ModelParameters.read(config(EXECUTION_ENV_PATH="/env.tar.gz"), {}) == ModelParameters()


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("threads", "0", "a whole number of at least 1"),
        ("threads", "two", "a whole number of at least 1"),
        ("ttl_seconds", "-1", "seconds above 0"),
        ("ttl_seconds", "nan", "seconds above 0"),
        ("engine", "onnx", "torch or tensorrt"),
        ("schedule", "fifo", "deadline or turns"),
        ("lead_seconds", "0", "seconds above 0"),
        ("max_batch", "0", "a whole number of at least 1"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(name, value, expected):
    with pytest.raises(ValueError, match=f"voice_lm/config.pbtxt: parameter '{name}'.*{expected}"):
        ModelParameters.read(config(**{name: value}), {})
    with pytest.raises(ValueError, match=f"GLM_MODEL_{name.upper()} is '{value}'.*{expected}"):
        ModelParameters.read(
            config(**{name: "torch" if name == "engine" else "1"}),
            {f"GLM_MODEL_{name.upper()}": value},
        )


def test_an_unknown_parameter_is_no_silent_typo():
    with pytest.raises(ValueError, match=r"'lead' is unknown, expected .*lead_limit"):
        ModelParameters.read(config(lead="3"), {})


def test_tensorrt_says_that_it_is_not_built():
    parameters = ModelParameters.read(config(engine="tensorrt"), {})
    with pytest.raises(NotImplementedError, match="'tensorrt': not built"):
        parameters.require_torch()
