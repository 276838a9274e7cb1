"""What the caller typed must not be in the record, in whatever shape it comes back."""

import pytest

from telephony.masking import MaskedRecord


class Kept:
    def __init__(self):
        self.events = []

    def event(self, name, /, **fields):
        self.events.append((name, fields))


@pytest.fixture
def kept():
    return Kept()


@pytest.fixture
def record(kept):
    record = MaskedRecord(kept)
    record.mask("4929001", secret=False)
    return record


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("It is 4929001.", "It is *******."),
        ("4 9 2, 9 0 0 1?", "* * *, * * * *?"),
        ("ends in 9001", "ends in ****"),
        ("00 49 2900 1 99", "** ** **** * **"),
        ("we close at 6", "we close at 6"),
        ("room 777", "room 777"),
    ],
)
def test_an_entry_is_masked_however_it_is_said(record, kept, said, written):
    record.event("agent_text", turn=1, text=said)
    assert kept.events == [("agent_text", {"turn": 1, "text": written})]


def test_arguments_of_tools_are_masked_in_depth_and_as_numbers(record, kept):
    record.event("tool_call", turn=29, call_id="call-29", arguments={"a": [4929001, True, 1.5]})
    assert kept.events[0][1] == {
        "turn": 29,
        "call_id": "call-29",
        "arguments": {"a": ["*******", True, 1.5]},
    }


def test_a_choice_from_a_menu_blacks_out_nothing(kept):
    record = MaskedRecord(kept)
    record.mask("10", secret=False)
    record.event("agent_text", turn=0, text="at 10")
    assert kept.events[0][1]["text"] == "at 10"


def test_a_number_left_in_a_message_stays_unless_it_is_secret(record, kept):
    record.event("message_taken", text="call 4929001")
    record.mask("5105105105105100", secret=True)
    record.event("message_taken", text="4929001 or 5105105105105100")
    assert [fields["text"] for _, fields in kept.events] == [
        "call 4929001",
        "4929001 or ****************",
    ]
