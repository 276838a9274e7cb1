"""Who answers which number."""

import numpy as np
import pytest
import yaml

from telephony.simulator.callee import Callee, Listener, load_phone_book
from telephony.simulator.caller import Caller


@pytest.fixture
def book_file(tmp_path):
    def write(**content):
        path = tmp_path / "book.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


def test_a_phone_book_is_read(book_file, tmp_path, wav):
    (tmp_path / "greeting").mkdir()
    scenario = {"name": "machine", "turns": [{"say": "Beep.", "wav": str(wav())}]}
    (tmp_path / "greeting" / "machine.yaml").write_text(yaml.safe_dump(scenario))
    book = load_phone_book(
        book_file(
            numbers={
                "+15550100003": {"outcome": "busy"},
                "+15550100004": {
                    "answered_by": "machine_end_beep",
                    "scenario": "greeting/machine.yaml",
                    "network": {"jitter_ms": 60},
                },
            },
            everybody_else={"stays_ms": 1000},
        )
    )

    assert book.callee("+15550100003").outcome == "busy"
    machine = book.callee("+15550100004")
    assert isinstance(machine.person(), Caller)
    assert machine.network.jitter_ms == 60
    assert book.callee("+15550100005") == Callee(stays_ms=1000)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"numbers": {"+1": {"outcom": "busy"}}}, "unknown field numbers.+1.outcom"),
        ({"numbers": {"+1": {"answered_by": "dog"}}}, "numbers.+1.answered_by"),
        ({"format": 2}, "format"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(book_file, content, complaint):
    path = book_file(**content)

    with pytest.raises(ValueError, match=r"book\.yaml") as caught:
        load_phone_book(path)

    assert complaint in str(caught.value)


def test_a_listener_hangs_up_when_its_time_is_over():
    person = Listener(0.06)
    silence = np.zeros(160, np.int16)

    assert [person.tick(silence) is not None for _ in range(5)] == [True] * 3 + [False] * 2
