"""The page: what is in it, and that it is whole."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import soundfile

from telephony.simulator.chart import Chart
from telephony.simulator.html_page import HALF_HEIGHT, clip, render, waveform, write_page
from telephony.simulator.load_section import LoadSection
from telephony.simulator.report import BargeIn
from telephony.simulator.suite_report import Attempt, ScenarioReport, SuiteReport

_VOID = {"meta", "link", "input", "br", "path"}


class Page(HTMLParser):
    """A page's elements; fails at an end tag that closes something else."""

    def __init__(self, text):
        super().__init__()
        self.open = []
        self.elements = []
        self.words = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] not in (["style"], ["script"]):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag, cls=""):
        return [
            attrs
            for name, attrs in self.elements
            if name == tag and set(cls.split()) <= set((attrs.get("class") or "").split())
        ]


@pytest.fixture
def suite(call_report):
    def build(*attempts, **fields):
        attempts = attempts or (Attempt(number=1, directory=".", call=call_report()),)
        scenario = ScenarioReport(name="opening hours", file="a.yaml", attempts=list(attempts))
        return SuiteReport(
            target="http://a", started_at=0, seconds=9, scenarios=[scenario], **fields
        )

    return build


@pytest.fixture
def directory(tmp_path, tone):
    silence = np.zeros(8 * 8000, np.int16)
    caller, agent = silence.copy(), silence.copy()
    caller[8000:24000], agent[32000:56000] = tone(2.0), tone(3.0)
    soundfile.write(tmp_path / "call.wav", np.stack([caller, agent], axis=1), 8000)
    return tmp_path


def test_a_page_holds_all_it_shows(suite, directory):
    write_page(directory / "new" / "page.html", suite(), directory)

    text = (directory / "new" / "page.html").read_text("utf-8")
    page = Page(text)
    addresses = [
        value
        for _, attrs in page.elements
        for name, value in attrs.items()
        if name in ("src", "href", "data", "srcset", "poster", "action")
    ]
    assert addresses
    assert all(a.startswith(("data:", "#")) for a in addresses)
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", text)
    (audio,) = page.all("audio")
    recording = base64.b64decode(audio["src"].removeprefix("data:audio/ogg;base64,"))
    assert soundfile.info(io.BytesIO(recording)).duration == pytest.approx(8.0, abs=0.05)


def test_everything_stands_where_it_happened_on_one_axis(suite, directory, call_report):
    call = call_report(gaps=[(4.5, 4.6)], clears=[6.0])
    call.turns[0].barge_in = BargeIn(after_ms=500, silent_after_ms=400, kept="Half a")

    page = Page(render(suite(Attempt(number=1, directory=".", call=call)), directory))

    def place(cls):
        (element,) = page.all("i", cls)
        return [float(n) for n in re.findall(r"([\d.]+)%", element["style"])]

    # Speech from 1 to 3 s, its answer from 4 to 7 s, of 8 s.
    assert place("turn caller") == [12.5, 25.0]
    assert place("turn agent") == [50.0, 37.5]
    assert place("latency") == [37.5, 12.5]
    assert place("cut") == [12.5, 5.0]
    assert place("gap") == [56.25, 1.25]
    assert place("clear") == [75.0]
    assert place("mark cleared") == [75.0]
    assert [wave["viewbox"] for wave in page.all("svg", "wave")] == ["0 -50 400 100"] * 2
    for words in ("Half a", "1,000 ms voice to voice", "silent after 400 ms", "gap in the audio"):
        assert words in page.text


def test_what_a_model_says_is_text_and_never_markup(suite, directory, call_report):
    call = call_report()
    call.turns[0].agent = "<script>alert(1)</script><b>"

    page = Page(render(suite(Attempt(number=1, directory=".", call=call)), directory))

    assert len(page.all("script")) == 1
    assert "<script>alert(1)</script><b>" in page.text


def test_calls_without_a_recording_are_listed_with_their_reasons(suite, call_report):
    refused = call_report(
        holds=False, cause="the call was refused", stream_started_at=None, said=["Busy."]
    )
    report = suite(
        Attempt(number=1, directory="001", call=refused),
        Attempt(number=2, skipped="no time was left"),
        Attempt(number=3, error="OSError: disk"),
        repeat=3,
    )

    page = Page(render(report, None))

    assert page.all("audio") == []
    for words in ("Busy.", "no time was left", "OSError: disk", "pass^3"):
        assert words in page.text
    links = [a["href"].removeprefix("#") for a in page.all("a")]
    assert links == [a["id"] for a in page.all("article")]
    assert len(links) == 3


def test_a_waveform_keeps_every_extreme_and_drops_level_stretches(tone):
    audio = np.concatenate([np.zeros(8000, np.int16), tone(1.0), np.zeros(8000, np.int16)])
    audio[4000] = -32768

    points = [tuple(map(int, p.split())) for p in waveform(audio)[1:-1].split("L")]

    assert len(points) < 150
    assert points[0] == (0, 0)
    assert max(x for x, _ in points) == 149
    assert (25, HALF_HEIGHT) in points
    assert min(y for x, y in points if 50 <= x < 100) == -round((8000 / 32768) ** 0.5 * HALF_HEIGHT)


def test_a_recording_on_the_page_is_a_tenth_of_its_size_and_on_the_same_axis(tone):
    silence = np.zeros(8000, np.int16)
    audio = np.stack([np.concatenate([silence, tone(1.0), silence])] * 2, axis=1)

    packed = base64.b64decode(clip(audio, 8000).audio)

    heard, rate = soundfile.read(io.BytesIO(packed))
    loud = np.flatnonzero(np.abs(heard[:, 0]) > 0.1)
    assert len(packed) < audio.nbytes / 4
    assert loud[0] / rate == pytest.approx(1.0, abs=0.02)
    assert loud[-1] / rate == pytest.approx(2.0, abs=0.02)


@pytest.mark.parametrize("alone", [True, False])
def test_a_load_run_is_drawn_and_its_figures_can_be_read(suite, alone):
    lines = {"p50": [500.0, 612.5], "p95": [700.0, None]}
    chart = Chart("Over calls", "calls at once", "ms", [1, 16], lines, limit=1000.0)
    load = LoadSection("Load <test>", "It held.", True, [chart], {"calls": "17"})

    page = Page(render(None if alone else suite(), None, load))

    assert [attrs["d"].count("L") for attrs in page.all("path")] == [1, 0]
    assert "16 612.5 ms –" in page.text
    assert "Load <test> ✓ It held." in page.text
    assert len(page.all("article")) == (0 if alone else 1)
