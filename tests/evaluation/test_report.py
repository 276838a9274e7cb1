"""The report: the paper's figures stand only where they belong, and nothing is loaded from afar."""

import json

from agent.evaluation.page import page
from agent.evaluation.report import Report
from agent.evaluation.results import Figure, TaskResult


def report():
    ours = Figure("accuracy_text", "Llama Questions", 40.0, "%", 300, 34.6, 45.6, "higher")
    other = Figure("accuracy_text", "nano", 90.0, "%", 10, 59.6, 98.2, "higher")
    times = [{"id": "q", "set": "nano", "tokenise": 0.01, "first_token": 0.02, "total": 0.03}]
    scores = [{"id": "c", "set": "nano", "log_likelihood": {"speech_to_text": [-1.0, -2.0]}}]
    return Report(
        "checkpoint",
        "data",
        {"seed": 0},
        [
            TaskResult("qa", [ours, other], ["Judged by <nobody>."], [{"id": "<b>", "text": "x"}]),
            TaskResult(
                "cloze", [Figure("accuracy_speech_to_text", "nano", 100, "%", 1)], [], scores
            ),
            TaskResult("latency", [Figure("total", "nano", 30.0, "ms", 1)], [], times),
            TaskResult("tts", notes=["No recogniser."]),
        ],
    )


def test_the_papers_figure_stands_beside_the_same_set_only():
    lines = report().to_markdown().splitlines()
    (ours,) = [
        line
        for line in lines
        if line.startswith("| Llama Questions | right answer in") and "300" in line
    ]
    (other,) = [line for line in lines if line.startswith("| nano | right answer in")]
    assert ours.endswith("| 40.0 % | 34.6 to 45.6 | 300 | 64.7 % |")
    assert other.endswith("| – |")
    figures = json.loads(report().to_json())["results"][0]["figures"]
    assert [figure["paper"] for figure in figures] == [64.7, None]


def test_a_task_that_did_not_run_says_so_and_why():
    text = report().to_markdown()
    assert "**Not run.**\n\n- No recogniser." in text
    assert "Not run." in page(report())


def test_the_page_is_whole_and_nothing_in_the_data_is_markup():
    text = page(report())
    assert text.count("<svg") == 4  # qa, cloze and its margins, latency
    assert "Judged by &lt;nobody&gt;." in text
    assert "<td>&lt;b&gt;</td>" in text
    assert "<script" not in text
    assert "<img" not in text
    assert "<link" not in text


def test_the_same_figures_give_the_same_page():
    assert page(report()) == page(report())
