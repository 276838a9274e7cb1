"""How texts are compared: a wrong rule here makes every error rate wrong."""

import pytest

from agent.evaluation.text import (
    characters,
    contains_answer,
    edit_distance,
    is_answer,
    units,
    word_errors,
)


def test_edit_distance_counts_all_three_kinds():
    assert edit_distance("kitten", "sitting") == 3
    assert edit_distance("", "ab") == edit_distance("ab", "") == 2


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors"),
    [
        ("We are open.", "we are open", 0),
        ("we are open", "we open", 1),
        ("we are open", "we are not open", 1),
        ("we are open", "", 3),
        ("we are open", "they were closed", 3),
        ("one two three four", "two three four five", 2),
    ],
)
def test_word_errors_are_the_least_edits(reference, hypothesis, errors):
    assert word_errors(reference, hypothesis) == errors
    assert word_errors(hypothesis, reference) == errors


@pytest.mark.parametrize(
    ("words", "digits"),
    [
        ("one hundred and ninety-three", "193"),
        ("Six hundred thirteen", "613"),
        ("five million two hundred thousand six", "5200006"),
        ("two thousand and five cats", "2005 cats"),
        ("one hundred and a dog", "100 and a dog"),
        ("two three twenty thirty ten five", "2 3 20 30 10 5"),
        ("nineteen eighty four", "19 84"),
        ("a hundred and", "a hundred and"),
        ("1,234.5", "1234.5"),
    ],
)
def test_numbers_are_the_same_in_words_and_digits(words, digits):
    assert " ".join(units(words, "en")) == digits


def test_case_punctuation_and_the_form_of_an_apostrophe_are_no_errors():
    assert units("DON\u2019T, it's -- \uff36ery well!", "en") == ["don't", "it's", "very", "well"]


def test_mandarin_counts_characters_and_no_punctuation():
    assert units("\u4f60\u597d\uff0c AB\uff11\u3002", "zh") == ["\u4f60", "\u597d", "a", "b", "1"]
    assert characters("Go  on.") == list("go on")


@pytest.mark.parametrize(
    ("said", "known", "found"),
    [
        ("The capital is Paris, of course.", ["Paris"], True),
        ("It is maybe so.", ["may"], False),
        ("There are seven days.", ["7"], True),
        ("There are 24.", ["Twenty-four"], True),
        ("She is called Bahaullah.", ["Baha'u'llah"], True),
        ("in united states", ["The United States"], True),
        ("the band was The Who", ["the who"], True),
        ("", ["a"], False),
        ("yes", ["?"], False),
    ],
)
def test_an_answer_is_found_as_whole_words(said, known, found):
    assert contains_answer(said, known) is found


def test_an_exact_answer_says_nothing_else():
    assert is_answer("The Seven.", ["seven"])
    assert not is_answer("It is seven.", ["seven"])
    assert not is_answer("", [""])
