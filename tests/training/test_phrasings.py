from pathlib import Path

import pytest

import agent.nano
from agent.evaluation.text import words
from agent.training.phrasings import as_sentence, expand, read_line, unheard_words

NANO = Path(agent.nano.__path__[0])


@pytest.fixture(scope="module")
def line():
    return read_line(NANO / "corpus.yaml")


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


def test_held_out_phrasings_are_never_trained_on(line):
    for intent in line.intents:
        trained = {tuple(words(text)) for text in intent.train}
        assert not trained & {tuple(words(text)) for text in intent.held_out}, intent.name


def test_held_out_words_are_all_heard_in_training(line):
    assert unheard_words(line) == set()


def test_no_phrasing_belongs_to_two_intents(line):
    owner = {}
    for intent in line.intents:
        for text in (*intent.train, *intent.held_out):
            assert owner.setdefault(tuple(words(text)), intent.name) == intent.name, text


def test_answers_differ_and_have_no_digits(line):
    answers = [intent.answer for intent in line.intents]
    assert len(set(answers)) == len(answers)
    assert not any(character.isdigit() for answer in answers for character in answer)


def test_same_seed_gives_the_same_sentences(line):
    assert read_line(NANO / "corpus.yaml") == line
    assert read_line(NANO / "corpus.yaml", seed=1) != line


def test_misspelt_field_is_named(tmp_path):
    path = tmp_path / "corpus.yaml"
    path.write_text("intents: [{name: hello, answer: Hello., trian: Hi}]")
    with pytest.raises(ValueError, match="unknown field 'trian'"):
        read_line(path)
