import random

import pytest

from agent.training.phrasings import as_sentence, expand, politely, select


def test_template_loses_no_choice():
    assert expand("{can|may} I {park|} here?") == [
        "can I park here?",
        "can I here?",
        "may I park here?",
        "may I here?",
    ]


def test_unbalanced_braces_are_refused():
    with pytest.raises(ValueError, match="unbalanced braces"):
        expand("{can|may I park")


def test_sentence_keeps_its_question_mark():
    assert as_sentence("what now ?") == "What now?"
    assert as_sentence("thank you , bye") == "Thank you, bye."
    assert as_sentence("几点开门？", "zh") == "几点开门？"
    assert as_sentence("我想预约", "zh") == "我想预约。"


def test_politeness_is_put_behind_the_question_mark_or_between_blanks_in_mandarin():
    rng = random.Random(0)
    always, never = (1.0, 1.0), (0.0, 0.0)
    assert politely("are you open?", "en", ["Hi,"], ["please"], always, rng) == (
        "Hi, are you open, please?"
    )
    assert politely("几点开门？", "zh", ["你好，"], ["谢谢"], always, rng) == (
        "你好，几点开门，谢谢？"
    )
    assert politely("are you open?", "en", ["Hi,"], ["please"], never, rng) == "are you open?"
    assert politely("I park here", "en", [], [], always, rng) == "I park here"


@pytest.mark.parametrize(
    ("language", "templates", "excluded", "needed"),
    [
        (
            "en",
            [
                "where can I {park|stop|stand} {my|a|the} {car|van|bus}?",
                "{parking|a garage} please",
            ],
            ["Where can I park my car?"],
            {"park", "stop", "stand", "my", "a", "the", "car", "van", "bus", "parking", "garage"},
        ),
        (
            "zh",
            ["{我|你}{停|放}{车|船}吗？", "停车{吧|呢}"],
            ["我停车吗？"],
            set("我你停放车船吧呢吗"),
        ),
    ],
)
def test_a_word_or_a_template_is_left_out_for_lack_of_room(language, templates, excluded, needed):
    chosen = select(templates, excluded, 2, language, random.Random(0))
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= {text for template in templates for text in expand(template)}
    said = " ".join(chosen).replace("?", "")
    assert needed <= set(said.split() if language == "en" else said)
    assert not {as_sentence(text, language) for text in chosen} & set(excluded)
    every = select(templates, excluded, 1000, language, random.Random(0))
    assert len(every) == sum(len(expand(template)) for template in templates) - 1


def test_a_template_with_many_choices_drowns_the_others():
    wide = "{a|b|c|d} {e|f|g|h} {i|j|k|l}"
    chosen = select([wide, "one {two|two two|two two two}"], [], 16, "en", random.Random(0))
    assert sum(text.startswith("one") for text in chosen) == 3
