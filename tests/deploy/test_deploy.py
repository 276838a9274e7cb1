"""What can be checked of deploy/ without a container engine."""

import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from agent.serving.parameters import ENVIRONMENT_PREFIX, ModelParameters
from agent.settings import ENVIRONMENT_PREFIX as SETTINGS_PREFIX
from agent.settings import load_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILES = ["Dockerfile.gateway", "Dockerfile.triton"]


def instructions(name: str) -> list[tuple[str, str]]:
    lines = [
        line
        for line in (DEPLOY / name).read_text().splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word, rest) for word, _, rest in (x.partition(" ") for x in joined.splitlines())]


def environment(name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for word, rest in instructions(name):
        if word == "ENV":
            found.update(re.findall(r"(\w+)=(\S+)", rest))
    return found


@pytest.fixture(scope="module")
def compose() -> dict:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


@pytest.mark.parametrize("name", DOCKERFILES)
def test_what_is_copied_exists_and_is_in_the_build_context(name):
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    for word, rest in instructions(name):
        if word == "COPY":
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists()
                assert f"!{source.rstrip('/')}" in ignore


@pytest.mark.parametrize("name", DOCKERFILES)
def test_containers_do_not_run_as_root_and_know_their_health(name):
    words = [word for word, _ in instructions(name)]
    users = [rest for word, rest in instructions(name) if word == "USER"]
    assert users
    assert users[-1] not in ("root", "0")
    assert words.index("USER") < words.index("CMD")
    assert "HEALTHCHECK" in words


def test_triton_is_given_versions_that_the_package_allows():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ours = {re.split(r"[<>=]", line)[0]: line for line in project["dependencies"]}
    lines = (DEPLOY / "triton-requirements.txt").read_text().splitlines()
    for line in lines:
        name = re.split(r"[<>=]", line)[0]
        if line and not line.startswith("#") and name != "loguru":  # ours through Pipecat
            assert line == ours[name]


def test_triton_requirements_are_all_that_the_models_import():
    names = {"yaml": "PyYAML"}
    imported = set()
    for package in ("agent/speech", "agent/serving"):
        for path in (ROOT / package).glob("*.py"):
            found = re.findall(r"^(?:from|import) (\w+)", path.read_text(), re.M)
            imported |= {names.get(name, name) for name in found}
    foreign = imported - set(sys.stdlib_module_names) - {"agent", "triton_python_backend_utils"}
    lines = (DEPLOY / "triton-requirements.txt").read_text().splitlines()
    listed = {re.split(r"[<>=]", x)[0] for x in lines if x and not x.startswith("#")}
    assert foreign == listed


def test_the_gateway_understands_its_environment(compose):
    given = {
        **environment("Dockerfile.gateway"),
        **compose["services"]["gateway"]["environment"],
        f"{SETTINGS_PREFIX}GATEWAY__PUBLIC_BASE_URL": "https://voice.example.org",
    }
    settings = load_settings(None, given)
    assert settings.triton.urls == ("triton:8001",)
    assert not settings.triton.embedded
    assert settings.gateway.host == "0.0.0.0"
    secret = str(settings.gateway.auth_token_file)
    assert secret == f"/run/secrets/{compose['services']['gateway']['secrets'][0]}"
    mounts = [volume.split(":")[1] for volume in compose["services"]["gateway"]["volumes"]]
    assert str(settings.records.directory) in mounts


def test_the_models_understand_their_environment(compose):
    given = {
        **environment("Dockerfile.triton"),
        **compose["services"]["triton"]["environment"],
    }
    ours = {name: value for name, value in given.items() if name.startswith(ENVIRONMENT_PREFIX)}
    names = [name.removeprefix(ENVIRONMENT_PREFIX).lower() for name in ours]
    config = {"parameters": {name: {"string_value": "1"} for name in names}}
    parameters = ModelParameters.read(config, given)
    mount = compose["services"]["triton"]["volumes"][0].rsplit(":", 2)[1]
    assert str(parameters.checkpoint) == mount
    assert str(parameters.threads) == given["OMP_NUM_THREADS"]


def test_compose_builds_these_images_from_the_root(compose):
    for service in compose["services"].values():
        build = service["build"]
        assert (DEPLOY / build["context"]).resolve() == ROOT
        assert (ROOT / build["dockerfile"]).is_file()
    assert set(compose["secrets"]) == set(compose["services"]["gateway"]["secrets"])
