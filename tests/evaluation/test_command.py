"""``glm-voice evaluate`` from data to report, on the shipped checkpoint and its small set."""

import json
import sys

import pytest

from agent.cli import main
from agent.evaluation.command import LAYOUT_NAMES, NANO_SET, TASKS
from agent.evaluation.items import ITEMS
from agent.evaluation.layouts import LAYOUTS, read_items


def run(*arguments):
    return main(["evaluate", *map(str, arguments)])


def test_the_command_knows_what_the_data_can_hold():
    assert set(TASKS) == set(ITEMS)
    assert set(LAYOUT_NAMES) == set(LAYOUTS)


@pytest.mark.parametrize("task", TASKS)
def test_a_small_set_of_each_task_ships(task):
    items = read_items(task, NANO_SET)
    assert len(items) >= 3
    assert {item.set for item in items} == {"nano"}


def test_every_task_runs_and_is_reported(tmp_path):
    pytest.importorskip("pocketsphinx", reason="the recogniser comes with the extra 'train'")
    assert run("--limit", 1, "--max-new-tokens", 60, "--out", tmp_path) == 0
    results = json.loads((tmp_path / "report.json").read_text("utf-8"))["results"]
    assert [result["task"] for result in results] == list(TASKS)
    assert all(result["figures"] for result in results)
    found = {(r["task"], f["name"]): f["value"] for r in results for f in r["figures"]}
    assert found["qa", "accuracy_text"] == 100.0
    assert found["style", "words_kept"] == 100.0
    assert found["latency", "total"] > 0.0
    assert "Not run" not in (tmp_path / "report.md").read_text("utf-8")
    assert (tmp_path / "report.html").stat().st_size > 20_000


def test_without_pocketsphinx_a_named_task_fails_and_the_report_says_why(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "agent.evaluation.judge", None)
    assert run("tts", "--limit", 1, "--out", tmp_path) == 1
    assert "pocketsphinx is not installed" in (tmp_path / "report.md").read_text("utf-8")


def test_a_service_that_does_not_answer_costs_only_its_task(tmp_path, goldens):
    data = tmp_path / "data"
    data.mkdir()
    (data / "tts.jsonl").write_text('{"id": "1", "text": "yes"}\n')
    url = "http://127.0.0.1:9/v1/audio/transcriptions"  # the discard port: nobody listens
    code = run(
        *("--data", data, "--checkpoint", goldens, "--out", tmp_path / "out"),
        *("--recogniser-url", url, "--max-new-tokens", 30),
    )
    assert code == 1
    assert f"It failed: {url}" in (tmp_path / "out" / "report.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "nowhere"), "nowhere: no such directory"),
        (("--limit", "0"), "--limit is 0"),
        (("--domain", "nowhere.txt"), "nowhere.txt"),
        (("--domain", "x", "--recogniser-url", "http://127.0.0.1:9/"), "--domain is for"),
        (("--checkpoint", "nowhere", "cloze"), "nowhere"),
    ],
)
def test_what_cannot_be_done_is_named(tmp_path, capsys, arguments, message):
    assert run(*arguments, "--out", tmp_path / "out") == 2
    assert message in capsys.readouterr().err


def test_an_unknown_task_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run("mmlu", "--out", tmp_path)
    assert "'mmlu' is not one of cloze, qa" in capsys.readouterr().err


def test_an_empty_directory_and_a_task_without_items(tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    assert run("--data", data, "--out", tmp_path / "out") == 2
    assert "cloze.jsonl" in capsys.readouterr().err
    assert run("qa", "--data", data, "--out", tmp_path / "out") == 1
    assert "has no items for it" in (tmp_path / "out" / "report.md").read_text("utf-8")
