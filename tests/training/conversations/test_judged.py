"""What a model in training is judged on, and recordings that are not there."""

import numpy as np
import pytest

from agent.training.conversations import Call
from agent.training.examples import SPEECH, TEXT


@pytest.mark.parametrize("tools", [False, True])
def test_a_judged_answer_lacks_its_context_or_goes_on_behind_a_call(material, tools):
    line = material.lines["en"]
    names = ("open", "book_day:Friday", "thanks:Monday", "book_day:Monday")
    questions = [(np.full(3, 1), line.intents[name]) for name in names]
    scenes = material.conversations(cut=1.0, whole=0.0, typed=1.0).judged(questions, "en", tools)
    starts = [[text for _, text, _ in material.read(scene.start)][1:] for scene in scenes]
    greeted = ["Greet the caller.", "Clinic, hello?"]
    booked = [*greeted, "Book me in.", "Which day."]
    assert starts[:2] == [greeted, booked]
    asked = [len(scene.exchanges) for scene in scenes]
    assert asked == [1, 2, 1]
    answer = material.learnt(scenes[1].exchanges[0], TEXT)
    if not tools:
        assert starts[2] == [*booked, "On Monday.", "Booked for Monday."]
        assert answer == "Booked for Friday.<|user|>"
        return
    assert starts[2][:7] == [*booked, "On Monday.", "One moment.", 'book\n{"day": "Monday"}']
    assert starts[2][7:] in (["done", "It is Monday."], ["full", "Monday is full."])
    assert answer == 'One moment.<|assistant|>book\n{"day": "Friday"}<|observation|>'
    assert scenes[1].exchanges[0].kinds.count(SPEECH) == 60


def test_a_mandarin_answer_is_judged_after_english_turns(material):
    intent = material.lines["zh"].intents["book_day:星期五"]
    (scene,) = material.conversations().judged([(np.full(3, 1), intent)], "zh", False)
    assert [text for _, text, _ in material.read(scene.start)][1:] == [
        "问候来电者。", "诊所您好。", "我想预约。", "哪天？"
    ]  # fmt: skip


def test_a_call_forgets_what_it_has_come_to(material):
    line = material.lines["en"]
    call = Call(line).after(line.intents["slower"]).after(line.intents["book"])
    assert (call.style, call.answered) == ("slow", line.intents["book"])


def test_an_answer_nobody_recorded_is_not_named(material, tmp_path, write_corpus):
    index = material.agent[3]
    text, style = material.said(index), material.said(index, "style")
    left = material.takes("left", [i for i in material.agent if i != index], 60)
    with pytest.raises(ValueError, match=f"answer '{text}': the recording of the .* is corrupt"):
        material.conversations(spoken=left)
    short = material.takes("short", [*material.agent, *material.sentences], 20)
    with pytest.raises(ValueError, match=r"answer .*neutral: 20 speech tokens are too few"):
        material.conversations(spoken=short)
    fewer = write_corpus(
        tmp_path / "data",
        [
            (
                {
                    "role": material.said(i, "role"), "language": material.said(i, "language"),
                    "saying": material.said(i, "saying"), "style": material.said(i, "style"),
                    "text": material.said(i), "canonical": i in material.agent and i != index,
                },
                np.zeros(160, np.int16),
            )
            for i in range(len(material.corpus))
        ],
    )  # fmt: skip
    with pytest.raises(ValueError, match=f"answer '{text}', {style}: the agent never says it"):
        material.conversations(corpus=fewer)
