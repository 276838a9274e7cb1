"""Who is on the list is not called, however the list is written and whenever it was."""

import os

import pytest

from telephony.outbound.do_not_call import DoNotCall


@pytest.fixture
def path(tmp_path):
    return tmp_path / "do_not_call.txt"


def test_numbers_are_found_however_they_are_written(path):
    path.write_text("# moved away\n+1 (555) 010-0003  # asked in May\n\n+4930123456\n")
    listed = DoNotCall(path)
    assert "+15550100003" in listed
    assert "+4930123456" in listed
    assert "+15550100004" not in listed


def test_a_list_that_changes_counts_at_once(path):
    path.write_text("+15550100003\n")
    listed = DoNotCall(path)
    assert "+15550100004" not in listed
    path.write_text("+15550100004\n")
    os.utime(path, ns=(1, 1))
    assert "+15550100004" in listed
    assert "+15550100003" not in listed


def test_a_number_is_added_once_on_a_line_of_its_own(path):
    path.write_text("+15550100003")
    listed = DoNotCall(path)
    listed.add("+15550100004")
    listed.add("+15550100004")
    assert path.read_text() == "+15550100003\n+15550100004\n"
    assert "+15550100004" in listed


def test_the_first_number_makes_the_file(path):
    DoNotCall(path).add("+15550100004")
    assert path.read_text() == "+15550100004\n"


def test_a_list_that_cannot_be_read_is_no_empty_list(path):
    with pytest.raises(ValueError, match="do_not_call"):
        _ = "+15550100003" in DoNotCall(path)
    path.write_text("+15550100003\nMrs Smith\n")
    with pytest.raises(ValueError, match="line 2"):
        _ = "+15550100003" in DoNotCall(path)
