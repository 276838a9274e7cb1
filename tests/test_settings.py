"""Settings from a file and the environment."""

from pathlib import Path

import pytest

from agent.settings import load_settings
from agent.yaml_document import MistakesError


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text(text, "utf-8")
    return path


def test_no_file_and_no_environment_serve_a_cpu_machine() -> None:
    settings = load_settings(environ={})
    assert settings.triton.embedded
    assert settings.gateway.host == "127.0.0.1"
    assert settings.agent.greeting == "Greet the caller."


def test_the_file_is_read(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "triton: {embedded: false, urls: [one:8001, two:8001]}\n"
        "agent: {sampling: {temperature: 0.5}}\n",
    )
    settings = load_settings(path, {})
    assert settings.triton.urls == ("one:8001", "two:8001")
    assert settings.agent.sampling.temperature == 0.5


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("gatway: {}", "unknown field gatway"),
        ("agent: {vad: {stop_sec: 1}}", "unknown field agent.vad.stop_sec"),
        ("gateway: {port: 99999}", "gateway.port"),
        ("gateway: {port: eighty}", "gateway.port"),
        ("gateway: {public_base_url: example.com}", "public_base_url"),
        ("triton: {embedded: false}", "urls"),
        ("agent: {sampling: {top_p: 0}}", "agent.sampling.top_p"),
        ("agent: {turn_taking: {silence_sec: 8}}", "is silence_secs meant?"),
        ("agent: {turn_taking: {silence_secs: 0}}", "agent.turn_taking.silence_secs"),
        ("agent: {turn_taking: {silence_prompts: -1}}", "agent.turn_taking.silence_prompts"),
        ("agent: {turn_taking: {silence_prompt: ' '}}", "agent.turn_taking.silence_prompt"),
        ("agent: {turn_taking: {interrupt_after_secs: 9}}", "turn_taking.interrupt_after_secs"),
        ("agent: 3", "agent"),
        ("- a list", "expected a mapping"),
        ("{", "not a YAML file"),
        ("!!python/object/apply:os.getcwd []", "not a YAML file"),
    ],
)
def test_a_wrong_file_is_refused_by_name_and_field(tmp_path: Path, text: str, named: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=r"settings\.yaml") as caught:
        load_settings(path, {})
    assert named in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"absent\.yaml: No such file"):
        load_settings(tmp_path / "absent.yaml", {})


def test_the_environment_overrides_one_field_and_leaves_its_neighbours(tmp_path: Path) -> None:
    path = write(tmp_path, "gateway: {port: 8080, max_calls: 3}")
    settings = load_settings(path, {"GLM_VOICE_GATEWAY__PORT": "9000"})
    assert (settings.gateway.port, settings.gateway.max_calls) == (9000, 3)


def test_a_mistyped_variable_is_named() -> None:
    with pytest.raises(ValueError, match=r"unknown field gateway\.prot"):
        load_settings(environ={"GLM_VOICE_GATEWAY__PROT": "9000"})


def test_the_token_comes_from_the_environment_and_stays_out_of_what_is_printed() -> None:
    settings = load_settings(environ={"TWILIO_AUTH_TOKEN": "secret-token"})
    assert settings.gateway.read_auth_token() == "secret-token"
    assert "secret-token" not in repr(settings)


def test_a_token_in_the_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "gateway: {auth_token: secret}")
    with pytest.raises(ValueError, match=r"gateway\.auth_token does not belong"):
        load_settings(path, {})


def test_the_token_comes_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n", "utf-8")
    path = write(tmp_path, f"gateway: {{auth_token_file: {tmp_path / 'token'}}}")
    assert load_settings(path, {}).gateway.read_auth_token() == "from-file"


def test_no_token_and_a_missing_or_empty_token_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no Twilio auth token"):
        load_settings(environ={}).gateway.read_auth_token()
    path = write(tmp_path, f"gateway: {{auth_token_file: {tmp_path / 'token'}}}")
    with pytest.raises(ValueError, match="No such file"):
        load_settings(path, {}).gateway.read_auth_token()
    (tmp_path / "token").write_text("", "utf-8")
    with pytest.raises(ValueError, match="is empty"):
        load_settings(path, {}).gateway.read_auth_token()


def mistakes(path: Path, environ: dict[str, str] | None = None) -> list[tuple[int | None, str]]:
    with pytest.raises(MistakesError) as caught:
        load_settings(path, environ or {})
    assert str(caught.value).count("\n") == len(caught.value.mistakes) - 1
    return [(one.line, one.message) for one in caught.value.mistakes]


def test_every_mistake_is_told_with_its_line(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "gateway:\n"
        "  port: 99999\n"
        "  auth_tokn_file: token\n"
        "  trusted_proxies:\n"
        "    - 10.0.0.0/8\n"
        "    - nowhere\n"
        "agent:\n"
        "  vad: {stop_secs: 0.3,\n"
        "        min_volume: 7}\n"
        "  vad: {}\n",
    )
    found = mistakes(path)
    assert [line for line, _ in found] == [2, 3, 6, 10]
    assert [message.split(":")[0].split(";")[0] for _, message in found] == [
        "gateway.port",
        "unknown field gateway.auth_tokn_file",
        "gateway.trusted_proxies.1",
        "agent.vad is given twice",
    ]
    assert "is auth_token_file meant?" in found[1][1]


def test_what_is_no_yaml_is_told_with_its_line(tmp_path: Path) -> None:
    ((line, message),) = mistakes(write(tmp_path, "gateway:\n  port: [1,\nagent: {}\n"))
    assert line == 3
    assert message.startswith("not a YAML file: ")
    ((line, message),) = mistakes(write(tmp_path, "gateway:\n  port: 2026-13-45\n"))
    assert message.startswith("not a YAML file: ")


def test_a_merged_key_that_is_given_again_is_not_given_twice(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "agent:\n  greeting: Hello.\n  turn: &turn {max_wait_secs: 2}\n  vad:\n    <<: *turn\n",
    )
    ((line, message),) = mistakes(path)
    assert line == 3
    assert message.startswith("unknown field agent.vad.max_wait_secs")
    path = write(
        tmp_path,
        "agent:\n  turn: &turn {max_wait_secs: 2}\n  vad:\n    <<: *turn\n    max_wait_secs: 3\n",
    )
    assert [line for line, _ in mistakes(path)] == [5]


def test_a_mistake_in_a_variable_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "gateway: {port: 8080}")
    with pytest.raises(MistakesError, match=r"^GLM_VOICE_GATEWAY__PORT: gateway\.port: ") as caught:
        load_settings(path, {"GLM_VOICE_GATEWAY__PORT": "many"})
    assert caught.value.mistakes[0].line is None


def test_the_operators_token_is_a_secret_too(tmp_path: Path) -> None:
    assert load_settings(environ={}).gateway.read_operator_token() is None
    settings = load_settings(environ={"GLM_OPERATOR_TOKEN": "secret-token"})
    assert settings.gateway.read_operator_token() == "secret-token"
    assert "secret-token" not in repr(settings)
    path = write(tmp_path, "gateway: {operator_token: secret-token}")
    ((line, message),) = mistakes(path)
    assert line == 1
    assert "gateway.operator_token does not belong" in message
    assert "secret-token" not in message
    path = write(tmp_path, f"gateway: {{operator_token_file: {tmp_path / 'absent'}}}")
    with pytest.raises(ValueError, match=r"operator_token_file .*No such file"):
        load_settings(path, {}).gateway.read_operator_token()
