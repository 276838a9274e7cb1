"""The estimate of which words a caller heard."""

import pytest

from agent.heard import WEIGHT_PER_SECOND, heard_text

ANSWER = "We are open from eight in the morning to six in the evening."


def test_nothing_heard_leaves_no_text() -> None:
    assert heard_text(ANSWER, 0.0, 4.0, complete=True) == ""


def test_a_complete_answer_heard_to_its_end_is_kept_to_the_last_letter() -> None:
    assert heard_text(ANSWER + " ", 4.0, 4.0, complete=True) == ANSWER + " "


def test_half_the_audio_is_not_taken_for_all_of_the_text() -> None:
    heard = heard_text(ANSWER, 2.0, 4.0, complete=True)
    assert heard == "We are open from eight in the"
    assert ANSWER.startswith(heard)


@pytest.mark.parametrize("seconds", [0.1, 0.7, 1.3, 2.9, 3.9])
def test_a_word_is_never_cut_in_two(seconds: float) -> None:
    heard = heard_text(ANSWER, seconds, 4.0, complete=True)
    words = heard.split()
    assert words == ANSWER.split()[: len(words)]


def test_more_seconds_never_mean_fewer_words() -> None:
    heard = [heard_text(ANSWER, tenth / 10, 4.0, complete=True) for tenth in range(41)]
    assert [len(text) for text in heard] == sorted(len(text) for text in heard)


def test_text_that_runs_ahead_of_the_audio_does_not_count_as_heard() -> None:
    # 13 words are known, but only a second of their audio was made before the barge-in.
    heard = heard_text(ANSWER, 1.0, 1.0, complete=False)
    assert 0 < len(heard) <= WEIGHT_PER_SECOND
    assert heard == "We are open"


def test_a_slow_voice_is_not_credited_with_the_usual_rate() -> None:
    assert heard_text("one two", 1.0, 4.0, complete=False) == ""
    assert heard_text("one two", 2.0, 4.0, complete=False) == "one"


def test_text_without_spaces_is_cut_between_ideographs() -> None:
    text = "我们早上八点开门，晚上六点关门。"
    heard = heard_text(text, 2.0, 4.0, complete=True)
    assert text.startswith(heard)
    assert 6 <= len(heard) <= 9
