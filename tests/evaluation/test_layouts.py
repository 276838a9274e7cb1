"""Public data sets as they are published: small copies of their layouts."""

import numpy as np
import pytest
import soundfile

from agent.evaluation.layouts import LAYOUTS, read_items


@pytest.fixture
def put(tmp_path):
    def put(name, text=None):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            soundfile.write(path, np.zeros(16, np.float32), 16_000)
        else:
            path.write_text(text, encoding="utf-8")

    return put


def test_librispeech(put, tmp_path):
    folder = "LibriSpeech/test-clean/61/70968"
    put(f"{folder}/61-70968.trans.txt", "61-70968-0000 HE BEGAN\n61-70968-0001 A CONFUSED\n")
    for number in ("0000", "0001"):
        put(f"{folder}/61-70968-{number}.flac")
    items = read_items("asr", tmp_path / "LibriSpeech" / "test-clean", "librispeech")
    assert [item.text for item in items] == ["HE BEGAN", "A CONFUSED"]
    assert {item.set for item in items} == {"LibriSpeech test-clean"}
    assert items[1].audio.samefile(tmp_path / folder / "61-70968-0001.flac")
    assert read_items("qa", tmp_path / "LibriSpeech" / "test-clean", "librispeech") is None


def test_librispeech_names_the_recording_that_is_missing(put, tmp_path):
    put("test-clean/61/70968/61-70968.trans.txt", "61-70968-0000 HE BEGAN\n")
    with pytest.raises(ValueError, match=r"trans\.txt, line 1: field 'audio': no such file"):
        read_items("asr", tmp_path / "test-clean", "librispeech")


def test_aishell_takes_the_test_speakers_that_have_a_transcript(put, tmp_path):
    put(
        "transcript/aishell_transcript_v0.8.txt",
        "BAC009S0002W0122 训 练\nBAC009S0764W0121 甚至 出现\n",
    )
    put("wav/train/S0002/BAC009S0002W0122.wav")
    put("wav/test/S0764/BAC009S0764W0121.wav")
    put("wav/test/S0764/BAC009S0764W0122.wav")
    (item,) = read_items("asr", tmp_path, "aishell")
    assert (item.text, item.language, item.set) == ("甚至 出现", "zh", "AISHELL-1 test")


def test_llama_questions_keep_quotation_marks(put, tmp_path):
    table = 'Questions\tAnswer\tWav Filename\nWho wrote "Emma?\tJane Austen \t29.wav\n'
    put("llama_questions_300.tsv", table)
    put("29.wav")
    (item,) = read_items("qa", tmp_path, "llama-questions")
    assert item.question.words == 'Who wrote "Emma?'
    assert item.answers == ("Jane Austen",)


def test_web_questions_have_alternatives(put, tmp_path):
    put("web_questions.csv", 'question,answers,audio_filename\n"where, now",Rome; Italy,q_0.wav\n')
    put("audios/q_0.wav")
    (item,) = read_items("qa", tmp_path, "web-questions")
    assert (item.id, item.answers, item.set) == ("q_0", ("Rome", "Italy"), "Web Questions")


def test_triviaqa_has_aliases_once(put, tmp_path):
    columns = "question,answer_normalized_value,answer_normalized_aliases,audio_filename"
    put("trivia_qa.csv", f'{columns}\nwho,sinclair lewis,"lewis, sinclair lewis,",t.wav\n')
    put("audios/t.wav")
    (item,) = read_items("qa", tmp_path, "triviaqa")
    assert item.answers == ("sinclair lewis", "lewis")


def test_storycloze_pairs_stories_in_both_folders(put, tmp_path):
    for name in ("sSC/0_correct", "sSC/0_incorrect", "tSC/0_correct", "tSC/0_incorrect"):
        put(f"{name}.wav")
    story, topic = read_items("cloze", tmp_path, "storycloze")
    assert (story.set, topic.set) == ("StoryCloze", "Topic-StoryCloze")
    assert story.right.audio.name == "0_correct.wav"
    assert topic.wrong.audio.name == "0_incorrect.wav"
    assert story.context is None


@pytest.mark.parametrize("names", [("0_a", "0_b"), ("0_correct", "0_correct_2"), ("1_incorrect",)])
def test_storycloze_that_cannot_be_told_apart_is_refused(put, tmp_path, names):
    for name in names:
        put(f"sSC/{name}.wav")
    with pytest.raises(ValueError, match=r"sSC.*(expected one file|'right': Field required)"):
        read_items("cloze", tmp_path, "storycloze")


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_another_directory_is_refused_by_name(tmp_path, layout):
    with pytest.raises(ValueError, match=tmp_path.name):
        read_items(LAYOUTS[layout].task, tmp_path, layout)


def test_a_table_without_a_column_is_refused(put, tmp_path):
    put("web_questions.csv", "question,answer,audio_filename\n")
    with pytest.raises(ValueError, match=r"web_questions.csv, line 1: column 'answers' is missing"):
        read_items("qa", tmp_path, "web-questions")
