"""The command line: what it prints, writes and refuses."""

import io
import json
import os
import signal
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile

from agent.cli import main
from agent.offline import parse_ids

SPOKEN = Path(__file__).parent / "data" / "opening_hours.wav"


def run(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture
def ids(goldens: Path, capsys: pytest.CaptureFixture[str]) -> list[int]:
    assert run("tokenize", SPOKEN, "--json", "--checkpoint", goldens) == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, list)
    return found


def test_a_recording_becomes_12_and_a_half_tokens_a_second(ids: list[int]) -> None:
    samples = soundfile.info(SPOKEN).frames
    assert len(ids) == -(-samples // 1280)
    assert all(isinstance(token, int) and token >= 0 for token in ids)


def test_what_tokenize_prints_decode_reads(
    ids: list[int],
    goldens: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run("tokenize", SPOKEN, "--checkpoint", goldens) == 0
    printed = capsys.readouterr().out
    assert parse_ids(printed, "stdout") == ids
    first, second = tmp_path / "first.wav", tmp_path / "second.wav"
    monkeypatch.setattr(sys, "stdin", io.StringIO(printed))
    assert run("decode", "-", "-o", first, "--checkpoint", goldens) == 0
    (tmp_path / "ids.json").write_text(json.dumps(ids), "utf-8")
    assert run("decode", tmp_path / "ids.json", "-o", second, "--checkpoint", goldens) == 0
    assert first.read_bytes() == second.read_bytes()
    info = soundfile.info(first)
    assert (info.samplerate, info.channels) == (22_050, 1)
    assert info.duration == pytest.approx(len(ids) / 12.5, abs=0.03)


def test_say_speaks_and_a_seed_makes_it_repeatable(goldens: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        out = tmp_path / f"{name}.wav"
        assert run("say", "hello there", "-o", out, "--seed", 5, "--checkpoint", goldens) == 0
    with wave.open(str(tmp_path / "first.wav")) as sound:
        assert sound.getframerate() == 22_050
        assert sound.getnframes() > 0
    assert (tmp_path / "first.wav").read_bytes() == (tmp_path / "second.wav").read_bytes()


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert run(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err


def test_a_recording_at_another_rate_is_refused_by_name(
    tmp_path: Path, goldens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "phone.wav"
    soundfile.write(path, np.zeros(800, np.float32), 8_000)
    message = refused(capsys, "tokenize", path, "--checkpoint", goldens)
    assert "phone.wav: 8000 Hz" in message
    assert "expected 16000 Hz mono" in message


@pytest.mark.parametrize(
    ("samples", "named"),
    [(np.zeros((800, 2), np.float32), "2 channel(s)"), (np.zeros(0, np.float32), "no samples")],
)
def test_a_recording_in_stereo_or_without_samples_is_refused(
    tmp_path: Path,
    goldens: Path,
    capsys: pytest.CaptureFixture[str],
    samples: np.ndarray,
    named: str,
) -> None:
    path = tmp_path / "odd.wav"
    soundfile.write(path, samples, 16_000)
    message = refused(capsys, "tokenize", path, "--checkpoint", goldens)
    assert "odd.wav" in message
    assert named in message


def test_a_file_that_is_no_recording_is_refused(
    tmp_path: Path, goldens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.wav").write_text("not a sound", "utf-8")
    assert "text.wav" in refused(capsys, "tokenize", tmp_path / "text.wav", "--checkpoint", goldens)
    assert "absent.wav" in refused(
        capsys, "tokenize", tmp_path / "absent.wav", "--checkpoint", goldens
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("1 2 three", "'three'"),
        ("[1, 2.5]", "2.5"),
        ("[1, ", "not a JSON list"),
        ("", "at least one"),
        ("1 2 -3", "-3"),
        ("1 999999", "999999"),
    ],
)
def test_ids_that_are_none_are_refused(
    tmp_path: Path, goldens: Path, capsys: pytest.CaptureFixture[str], text: str, named: str
) -> None:
    (tmp_path / "ids.txt").write_text(text, "utf-8")
    out = tmp_path / "out.wav"
    message = refused(capsys, "decode", tmp_path / "ids.txt", "-o", out, "--checkpoint", goldens)
    assert named in message
    assert not out.exists()


def test_a_missing_checkpoint_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    absent = tmp_path / "absent"
    assert str(absent) in refused(capsys, "tokenize", SPOKEN, "--checkpoint", absent)
    (tmp_path / "ids.txt").write_text("1", "utf-8")
    out = tmp_path / "out.wav"
    assert str(absent) in refused(
        capsys, "decode", tmp_path / "ids.txt", "-o", out, "--checkpoint", absent
    )
    assert str(absent) in refused(capsys, "say", "hello", "-o", out, "--checkpoint", absent)


def test_a_place_that_cannot_be_written_is_named(
    tmp_path: Path, goldens: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ids.txt").write_text("1 2 3", "utf-8")
    out = tmp_path / "absent" / "out.wav"
    assert str(out) in refused(
        capsys, "decode", tmp_path / "ids.txt", "-o", out, "--checkpoint", goldens
    )


def test_nothing_to_say_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "say" in refused(capsys, "say", " ", "-o", tmp_path / "out.wav")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["simulate"], "scenario or --demo"),
        (["simulate", "--demo", "x.yaml"], "scenario or --demo"),
        (["simulate", "--demo", "--via", "http://127.0.0.1:1"], "--via needs --url"),
        (["simulate", "--demo", "--url", "http://a/voice", "--settings", "x"], "--settings"),
        (["simulate", "--demo", "--auth-token", "t"], "--auth-token needs --url"),
        (["simulate", "--demo", "--repeat", "0"], "repeat: expected at least 1"),
        (["simulate", "--demo", "--budget", "-1"], "budget: expected more than 0"),
        (["simulate", "--demo", "--html", "."], "--html: . is a directory"),
        (["simulate", "absent.yaml"], "absent.yaml"),
        (["simulate", "."], ".: no scenario in it"),
        (["simulate", "--demo", "--url", "ftp://host"], "voice_url"),
        (["loopback-twilio", "--url", "ftp://host"], "voice_url"),
        (["serve", "--settings", "absent.yaml"], "absent.yaml"),
    ],
)
def test_commands_that_contradict_themselves_are_refused(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    named: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "token")
    assert named in refused(capsys, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_serving_without_an_auth_token_is_refused_before_anything_starts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TWILIO_AUTH_TOKEN", raising=False)
    assert run("serve") == 2
    assert "no Twilio auth token" in capsys.readouterr().err


def test_a_gateway_whose_engine_is_away_serves_and_stops_at_a_signal(tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        "triton: {embedded: false, urls: ['127.0.0.1:9']}\n"
        "gateway: {port: 0}\n"
        f"records: {{directory: {tmp_path / 'records'}}}\n",
        "utf-8",
    )
    environment = {**os.environ, "TWILIO_AUTH_TOKEN": "token"}
    with subprocess.Popen(
        [sys.executable, "-m", "agent.cli", "serve", "--settings", str(settings)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "gateway listens" in line:
                process.send_signal(signal.SIGTERM)
        assert process.wait() == 0, "".join(lines)
    text = "".join(lines)
    assert "127.0.0.1:9" in text
    assert "stopped" in text


def test_settings_are_read_anew_at_a_signal_if_they_are_right(tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    head = (
        "triton: {embedded: false, urls: ['127.0.0.1:9']}\n"
        "gateway: {port: 0}\n"
        f"records: {{directory: {tmp_path / 'records'}}}\n"
    )
    settings.write_text(head, "utf-8")
    steps = [
        ("gateway listens", head + "agents: {desk: {greting: Hello.}}\n", signal.SIGHUP),
        ("is greeting meant?", head + "agents: {desk: {greeting: Hello.}}\n", signal.SIGHUP),
        ("reloaded", head.replace("port: 0", "port: 1"), signal.SIGHUP),
        ("read at the start only: gateway", head, signal.SIGTERM),
    ]
    with subprocess.Popen(
        [sys.executable, "-m", "agent.cli", "serve", "--settings", str(settings)],
        env={**os.environ, "TWILIO_AUTH_TOKEN": "token"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if steps and steps[0][0] in line:
                _, text, number = steps.pop(0)
                settings.write_text(text, "utf-8")
                process.send_signal(number)
        assert process.wait() == 0, "".join(lines)
    text = "".join(lines)
    assert steps == [], text
    assert "settings stay as they were" in text
    assert f"{settings}:4: unknown field agents.desk.greting" in text
    assert text.index("draining: no more calls") < text.index("\n  stopped\n")


def test_check_says_what_is_wrong_and_what_may_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWILIO_AUTH_TOKEN", "token")
    path = tmp_path / "settings.yaml"
    path.write_text("agents:\n  desk:\n    numbers: [+15550100002]\n    hours: {}\n", "utf-8")
    assert run("check", path) == 2
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        [f"{path}:3", "agents.desk.numbers.0"],
        [f"{path}:4", "agents.desk.hours.time_zone"],
        [f"{path}:4", "agents.desk.hours.open"],
    ]
    path.write_text('agents:\n  desk:\n    numbers: ["+15550100002"]\n', "utf-8")
    assert run("check", path) == 0
    out = capsys.readouterr().out
    assert f"warning: {path}:1: agents: calls to other numbers are refused" in out
    assert f"{path}: no mistakes" in out


def test_the_gateway_does_not_load_what_only_the_models_need() -> None:
    heavy = "{'torch', 'matplotlib', 'openai'}"
    code = f"import sys, telephony.serve; print({heavy} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
