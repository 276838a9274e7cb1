"""Files of ours that stand for several calls."""

import pytest

from telephony.simulator.loading import load_scenarios
from telephony.simulator.scenario import load_scenario

SEVERAL = """
name: Booking for ${who}
data: callers.csv
paraphrases: {count: 2, seed: 3}
noise: {wav: sounds/street.wav, snr_db: 12}
turns:
  - say: "{Hello|Good morning|Hi}, this is ${who}."
  - {say: Yes., wav: lines/yes.wav}
  - {digits: "1w#"}
"""


@pytest.fixture
def file(tmp_path):
    def write(text, name="scenario.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_a_file_stands_for_its_rows_and_paraphrases(file):
    file("who\nAnn\nBo\n", "callers.csv")
    path = file(SEVERAL)

    scenarios = load_scenarios(path)

    assert [scenario.name for scenario in scenarios] == [
        "Booking for Ann / 1",
        "Booking for Ann / 2",
        "Booking for Bo / 1",
        "Booking for Bo / 2",
    ]
    assert "this is Bo." in scenarios[2].turns[0].say
    assert scenarios[0].turns[1].wav == path.parent / "lines" / "yes.wav"
    assert scenarios[0].noise is not None
    assert scenarios[0].noise.wav == path.parent / "sounds" / "street.wav"
    with pytest.raises(ValueError, match="stands for 4 calls, expected one"):
        load_scenario(path)


def test_recordings_of_a_goals_states_lie_beside_the_file(file):
    path = file(
        """
name: goal
goal:
  start: ask
  states:
    ask: {say: [{say: Hello., wav: lines/hello.wav}], next: [{to: done}]}
    done: {success: true}
"""
    )

    (scenario,) = load_scenarios(path)

    assert [line.wav for line in scenario.lines] == [path.parent / "lines" / "hello.wav"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("name: x\nturns: [{digits: 12}]", "turns.0.digits: write digits in quotes"),
        ("name: x\nturns: [{digits: '12x'}]", "turns.0.digits"),
        ("name: x\nturns: [{digits: 'ww'}]", "turns.0.digits"),
        ("name: x\nturns: [{digits: '1', silence_ms: 5}]", "turns.0: digits and silence_ms"),
        ("name: x\nturns: [{}]", "turns.0.say: the words are needed"),
        ("name: x\nturns: [{say: x, backchannel: true}]", "turns.0: backchannel: needs when"),
        ("name: x\nturns: [{say: x, voice: kokoro}]", "turns.0.voice.name: expected nano"),
        ("name: x\nturns: [{say: x}]\nnoise: {snr_db: 3}", "noise: give exactly one of"),
        ("name: x\nturns: [{say: x}]\ncodec: [mp3]", "codec.0"),
        ("name: x", "give exactly one of turns and goal"),
        ("name: x\nturns: [{say: '${y}'}]", "no variable named 'y'"),
        ("name: x\nturns: !include lines.yaml", "not a YAML file"),
    ],
)
def test_a_wrong_field_is_named(file, text, named):
    with pytest.raises(ValueError, match=r"scenario\.yaml") as error:
        load_scenarios(file(text))
    assert named in str(error.value)
