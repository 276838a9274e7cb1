"""What is masked, whatever way it is said, and what is not."""

import json
import random

import pytest

from telephony.records import Redaction
from telephony.records.redaction import Redactor
from telephony.records.schema import EVENTS, TOOL_CALLS, TURNS
from tests.telephony.records.conftest import SID, rows

CARD = "four one one one, one one one one, one one one one, one one one one"


def redact(text, *kinds):
    return Redactor(Redaction(frozenset(kinds))).text(text)


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("It is 4111 1111 1111 1111.", "It is [card]."),
        ("It is 4111-1111-1111-1111, until 12/27.", "It is [card], until 12/27."),
        (f"My card is {CARD}, thanks.", "My card is [card], thanks."),
        ("four double one one triple one one, um, one one one one and one one one one", "[card]"),
        ("forty-one eleven eleven eleven eleven eleven eleven eleven", "[card]"),
        ("卡号是四幺幺幺 幺幺幺幺 幺幺幺幺,幺幺幺幺。", "卡号是[card]。"),
        ("３７８２ ８２２４６３ １０００５", "[card]"),
        # A digit that is wrong, too few, too many: no card.
        ("4111 1111 1111 1112", "4111 1111 1111 1112"),
        ("18 2", "18 2"),
        ("0000 0000 0000 0000", "0000 0000 0000 0000"),
    ],
)
def test_cards_are_told_by_their_check_digit(text, masked):
    assert redact(text, "cards") == masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("110101 19900307 4493 here", "[id] here"),
        ("身份证号幺幺零幺零幺 一九九零零三零七 四四九三", "身份证号[id]"),
        ("11010119900307002X.", "[id]."),
        ("my social is one two three, four five, six seven eight nine", "my social is [id]"),
        ("078-05-1120", "[id]"),
        ("passport AB1234567.", "passport [id]."),
        # A month that is none, a wrong check, numbers that are never given out, a phone number.
        ("110101 19901307 4493", "110101 19901307 4493"),
        ("110101 19900307 4494", "110101 19900307 4494"),
        ("666-05-1120", "666-05-1120"),
        ("call 555 010 0001", "call 555 010 0001"),
    ],
)
def test_identity_numbers_are_told_by_length_and_checks(text, masked):
    assert redact(text, "ids") == masked


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("The code is four two one five.", "The code is [digits]."),
        ("oh four two, uh, one", "[digits]"),
        ("+1 (555) 010-0001", "+[digits]"),
        ("nineteen eighty four oh two", "[digits]"),
        ("我的电话是幺三八零零一三", "我的电话是[digits]"),
        ("4 2 1", "4 2 1"),
        ("at ten thirty on the second", "at ten thirty on the second"),
        ("It opens at 8:30 and costs 120.", "It opens at 8:30 and costs 120."),
        ("one or two, at four", "one or two, at four"),
        ("everyone, someone and no one", "everyone, someone and no one"),
        ("二十五个人", "二十五个人"),
        ("Oh! One moment.", "Oh! One moment."),
    ],
)
def test_runs_of_four_digits_and_more_are_masked(text, masked):
    assert redact(text, "digits") == masked


def test_a_card_among_other_digits_is_a_card_and_they_are_masked_too():
    text = "4111111111111111 and the code 9981 22"
    assert redact(text, "cards", "digits") == "[card] and the code [digits]"


@pytest.mark.parametrize("seed", range(30))
def test_a_text_in_pieces_is_masked_as_the_whole(seed):
    chance = random.Random(seed)
    text = (
        f"Well, one moment: {CARD} until 12 27, or AB 1234567, said Ann Lee-Smith. 幺三八零零 "
        "and then forty-one eleven, double oh seven, 十二 at eight for Ananan. AB"
    )
    redactor = Redactor(Redaction(frozenset({"cards", "ids", "digits"}), ("name",)))
    redactor.keep_private({"name": ["Ann Lee", "Ananan"]})
    pieces, waiting, at = [], "", 0
    while at < len(text):
        step = chance.choice((1, 2, 3, 7, 30))
        waiting += text[at : at + step]
        at += step
        ready = redactor.settled(waiting)
        pieces.append(redactor.text(waiting[:ready]))
        waiting = waiting[ready:]
    assert "".join([*pieces, redactor.text(waiting)]) == redactor.text(text)
    assert "[card]" in redactor.text(text)
    assert "[private]-Smith" in redactor.text(text)


def test_a_number_that_was_cut_off_is_masked_as_far_as_it_was_heard():
    redactor = Redactor(Redaction(frozenset({"cards"})))
    whole = f"You said {CARD}."
    assert redactor.beginning("You said four one one", whole) == "You said [card]"
    assert redactor.beginning("You said", whole) == "You said"
    assert redactor.beginning("It is 4111111111111111", whole) == "It is [card]"


def test_a_caller_who_reads_out_digits_without_end_costs_no_time():
    text = "one " * 20_000
    assert redact(text, "cards", "ids", "digits") == "[digits] "


# ---- in the record


@pytest.fixture
def recorder(records):
    redaction = Redaction(frozenset({"cards", "digits"}), ("who.name", "name"))
    return records.open(SID, caller="+15550100001", redaction=redaction)


def everything(records):
    written = [rows(records, table) for table in (EVENTS, TURNS, TOOL_CALLS)]
    return json.dumps(written, ensure_ascii=False)


def test_a_number_is_masked_in_every_place_and_across_pieces(records, recorder):
    recorder.event("caller_text", turn=1, text=f"It is {CARD}.")
    for piece in ("You said ", "four one", " one one one one one o", "ne, ", "five. "):
        recorder.event("agent_text", turn=1, text=piece)
    # The number may go on.
    assert rows(records, TURNS)[0]["agent_text"] == "You said "
    recorder.event("agent_text", turn=1, text="Right?")
    assert rows(records, TURNS)[0]["agent_text"] == "You said [digits]. Right?"
    recorder.event("answer_finished", turn=1, text="You said four one one one. Right?")
    recorder.event("interrupted", turn=1, heard_seconds=1.0, heard_text="You said four one")
    recorder.event("heard", turn=1, text="You said four one")
    recorder.event("tool_call", turn=1, name="pay", arguments={"card": 4111111111111111, "n": 3},
                   call_id="12345")  # fmt: skip
    recorder.event("tool_result", turn=1, call_id="12345", result=["4111 1111 1111 1111"])
    recorder.event("error", message="no such card: 4111111111111111")
    recorder.event("keys", digits="1234#")
    recorder.close("caller_hung_up")
    text = everything(records)
    assert "1111" not in text
    assert "four one" not in text
    assert "1234#" not in text
    (turn,) = rows(records, TURNS)
    assert turn["caller_text"] == "It is [card]."
    assert turn["heard_text"] == "You said [digits]"
    (tool,) = rows(records, TOOL_CALLS)
    assert (tool["arguments"], tool["result"]) == ({"card": "[card]", "n": 3}, ["[card]"])
    assert rows(records, EVENTS)[0]["fields"]["caller"] == "+15550100001"


def test_a_name_is_masked_before_and_after_a_tool_marked_it(records, recorder):
    recorder.event("caller_text", turn=1, text="I am Ann Lee, from Annex Road.")
    recorder.event("agent_text", turn=1, text="Hello Ann Lee, ")
    records.flush()
    assert "Ann Lee" in everything(records)
    arguments = {"who": {"name": "ann lee"}, "day": "Monday"}
    recorder.event("tool_call", turn=1, name="book", arguments=arguments, call_id="a")
    recorder.event("tool_result", turn=1, call_id="a", result="Booked for ANN LEE")
    recorder.event("agent_text", turn=1, text="you are booked, Ann ")
    recorder.event("agent_text", turn=1, text="Lee.")
    recorder.close("caller_hung_up")
    text = everything(records)
    assert "ann lee" not in text.lower()
    assert text.count("Annex Road") == 2
    assert text.count("Monday") == 2
    agent = "Hello [private], you are booked, [private]."
    assert rows(records, TURNS)[0]["agent_text"] == agent


def test_without_redaction_a_text_is_written_piece_by_piece_as_it_is(records):
    recorder = records.open(SID)
    for piece in ("four one ", "one on", "e"):
        recorder.event("agent_text", turn=0, text=piece)
    assert [row["fields"].get("text") for row in rows(records, EVENTS)[1:]] == [
        "four one ",
        "one on",
        "e",
    ]
