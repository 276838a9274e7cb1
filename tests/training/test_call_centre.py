"""Scripts and recordings of a call centre: what becomes of them, and which mistakes are named."""

import numpy as np
import pytest
import soundfile
from loguru import logger

from agent.speech import LanguageModel
from agent.training import call_centre
from agent.training.call_centre import CallCentre, Settings
from agent.training.dialogues import Dialogues
from agent.training.scripts import read_audio, read_scripts
from agent.training.shards import Shards

SCRIPT = """
instructions: You answer for a clinic.
tools: [{name: book, description: Books., parameters: {type: object}}]
split: train
recording: call.wav
turns:
  - caller: {text: Hello., begin: 0.0, end: 1.0}
  - agent: {text: "Hi!", begin: 1.0, end: 2.0}
  - caller: Monday please
  - agent: {text: One moment., audio: moment.wav}
  - call: {name: book, arguments: {day: Monday, people: 2}}
  - result: booked
  - agent: {text: Booked., style: cheerfully}
  - caller: {text: thanks, typed: true}
  - agent: Bye.
---
turns:
  - caller: {text: Hi, typed: true}
  - agent: Hello there.
"""


class Loudness:
    """A stand-in for the speech tokenizer: a code tells which channel it heard."""

    codebook_size = 200

    def encode(self, waveforms):
        return [self._codes(waveform) for waveform in waveforms]

    def stream(self):
        return self

    def push(self, samples):
        self._pushed = samples
        return np.zeros(0, dtype=np.int64)

    def finish(self):
        return self._codes(self._pushed)

    def _codes(self, samples):
        level = np.abs(samples[: len(samples) // 1280 * 1280].reshape(-1, 1280)).max(1)
        return np.round(level * 100).astype(np.int64)


class Speller:
    """A stand-in for the text-to-token model."""

    codes = 200
    styles = ()

    def say(self, texts, temperature, seed, styles):
        Speller.styles += tuple(styles)
        return [[100 + ord(c) % 50 for c in text] + [seed % 50] for text in texts]


@pytest.fixture
def scripts(tmp_path):
    path = tmp_path / "scripts"
    path.mkdir()
    (path / "booking.yaml").write_text(SCRIPT)
    time = np.arange(16_000) / 8_000
    tone = np.sin(2 * np.pi * 440 * time).astype(np.float32)
    caller = np.where(time < 1, 0.2 * tone, 0)
    agent = np.where(time >= 1, 0.6 * tone, 0)
    soundfile.write(path / "call.wav", np.stack([caller, agent], 1), 8_000)
    soundfile.write(path / "moment.wav", 0.4 * tone[:8_000], 8_000)
    return path


def make(scripts, out, **changes):
    settings = Settings(scripts=scripts, **changes)
    return call_centre.run(settings, Loudness(), Speller(), out)


def test_a_dialogue_has_another_ones_speech(scripts, tmp_path, goldens):
    assert make(scripts, tmp_path / "out") == 0
    shards = Shards(tmp_path / "out", ["turns"])
    assert list(shards.ids()) == ["booking.yaml#1/0", "booking.yaml#2/0"]
    first = shards[0]
    turns = first.entry["turns"]
    assert [turn["role"] for turn in turns] == [
        "caller", "agent", "caller", "agent", "call", "result", "agent", "caller", "agent"
    ]  # fmt: skip

    def level(number):
        return int(np.median(first.codes[slice(*turns[number]["codes"])]))

    assert 15 <= level(0) <= 25
    assert 55 <= level(1) <= 65
    assert 35 <= level(3) <= 45
    assert level(2) >= 100
    assert turns[4] == {"role": "call", "name": "book",
                        "arguments": {"day": "Monday", "people": 2}}  # fmt: skip
    assert "codes" not in turns[7]
    assert "cheerfully" in Speller.styles
    tokenizer = LanguageModel.from_pretrained(goldens / "language_model").text_tokenizer
    for index in range(2):
        sample = shards[index]
        Dialogues(tokenizer).example(sample.entry, sample.codes.tolist())


def test_takes_do_not_differ_or_a_second_run_makes_them_again(scripts, tmp_path):
    make(scripts, tmp_path / "out", takes=2)
    make(scripts, tmp_path / "out", takes=3)
    shards = Shards(tmp_path / "out")
    assert sorted(shards.ids()) == [f"booking.yaml#{n}/{t}" for n in (1, 2) for t in (0, 1, 2)]
    takes = [shards[i] for i in range(len(shards)) if shards.entry(i)["id"][-3] == "1"]
    assert len({tuple(take.codes.tolist()) for take in takes}) == 3
    make(scripts, tmp_path / "again", takes=3)
    again = Shards(tmp_path / "again")
    found = {again.entry(i)["id"]: again[i].codes.tolist() for i in range(len(again))}
    assert found == {shards.entry(i)["id"]: shards[i].codes.tolist() for i in range(len(shards))}


def test_a_damaged_recording_ends_the_run(scripts, tmp_path):
    (scripts / "moment.wav").write_bytes(b"no sound")
    heard = []
    sink = logger.add(lambda message: heard.append(message.record["extra"]), level="WARNING")
    assert make(scripts, tmp_path / "out") == 1
    logger.remove(sink)
    assert heard[0]["dialogue"] == "booking.yaml#1"
    assert "moment.wav: not a recording" in heard[0]["problem"]
    assert list(Shards(tmp_path / "out").ids()) == ["booking.yaml#2/0"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("{text: Hello., begin", "{begin", r"'dialogue 1\.turns\.0\.caller\.text' is missing"),
        ("end: 1.0", "endd: 1.0", r"'dialogue 1\.turns\.0\.caller\.endd' is unknown"),
        ("end: 2.0", "end: 0.5", r"dialogue 1\.turns\.1\.agent' is wrong: .*below end 0\.5"),
        (
            ", typed: true}\n  - agent: Bye",
            ", typed: 5}\n  - agent: Bye",
            r"turns\.7\.caller\.typed",
        ),
        ("moment.wav", "absent.wav", r"'dialogue 1\.turns\.3\.agent\.audio' names .*absent\.wav"),
        ("recording: call.wav\n", "", r"turns\.0: begin and end need the field recording"),
        ("  - result: booked\n", "", r"turns\.5: 'agent' may not follow 'call'"),
        ("  - agent: Bye.\n", "", r"the last turn must be the agent's"),
        (
            "- result: booked",
            "- result: booked\n    agent: Hi",
            r"turns\.5' is wrong: .*exactly one",
        ),
        ("day: Monday", "day: 2026-01-31", r"call\.arguments' is wrong: .*write it in quotes"),
        (
            "turns:\n  - caller: {text: Hi",
            "turn:\n  - caller: {text: Hi",
            r"'dialogue 2\.turns' is m",
        ),
        ("name: book, desc", "nam: book, desc", r"tools\.0: 'name' must be text"),
        ("instructions: You", "instructions: [You", "not a YAML file"),
    ],
)
def test_a_mistake_in_a_script_is_not_named(scripts, tmp_path, old, new, message):
    assert old in SCRIPT
    (scripts / "booking.yaml").write_text(SCRIPT.replace(old, new))
    with pytest.raises(ValueError, match=message) as caught:
        make(scripts, tmp_path / "out")
    assert "booking.yaml" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_recordings_of_the_wrong_kind_are_taken(scripts, tmp_path):
    with pytest.raises(ValueError, match=r"call\.wav: 2 channel\(s\), expected 1"):
        read_audio(scripts / "call.wav", 1)
    assert [len(channel) for channel in read_audio(scripts / "call.wav", 2)] == [32_000] * 2
    (scripts / "booking.yaml").write_text(SCRIPT.replace("end: 2.0", "end: 2.5"))
    (name, script), _ = read_scripts(scripts)
    centre = CallCentre(Settings(scripts=scripts), Loudness(), Speller())
    with pytest.raises(ValueError, match=r"turns\.1\.agent: end is 2\.5, the recording has 2\.00"):
        centre.make(name, script, 0)


def test_a_model_that_is_needed_is_not_asked_for(scripts, tmp_path):
    settings = Settings(scripts=scripts)
    with pytest.raises(ValueError, match=r"#1: turns\.0\.caller has a recording: give --tokenizer"):
        call_centre.run(settings, None, Speller(), tmp_path / "out")
    with pytest.raises(ValueError, match=r"turns\.2\.caller has no recording: give --text-to-tok"):
        call_centre.run(settings, Loudness(), None, tmp_path / "out")
    other = Speller()
    other.codes = 100
    with pytest.raises(ValueError, match="they do not belong together"):
        CallCentre(settings, Loudness(), other)


def test_held_out_dialogues_are_also_learnt_from(scripts, tmp_path):
    (scripts / "booking.yaml").write_text("---\n".join([SCRIPT.split("---")[1]] * 40))
    make(scripts, tmp_path / "out", takes=2, held_out=0.3)
    shards = Shards(tmp_path / "out")
    sides = {}
    for index in range(len(shards)):
        entry = shards.entry(index)
        sides.setdefault(entry["id"].split("/")[0], set()).add(entry["split"])
    assert all(len(side) == 1 for side in sides.values())
    assert 4 < sum(side == {"held_out"} for side in sides.values()) < 20
