"""Keys become entries: what ends one, who gets it, and when the line is not to be recorded."""

import asyncio

import pytest

from telephony.keypad import Entry, Keypad, KeypadSettings


class Desk:
    def __init__(self, clock, **settings):
        self.clock = clock
        self.entries = []
        self.log = []
        self.keypad = Keypad(
            KeypadSettings(**settings),
            clock,
            on_entry=self.entry,
            on_begin=self.begin,
            on_end=self.end,
        )

    async def entry(self, entry):
        self.entries.append(entry)

    async def begin(self):
        self.log.append("begin")

    async def end(self):
        self.log.append("end")

    async def press(self, keys, gap=0.2):
        for key in keys:
            await self.keypad.press(key)
            await self.clock.advance(gap)


async def asked():
    pass


@pytest.fixture
def desk(manual_clock):
    return lambda **settings: Desk(manual_clock, **settings)


async def test_the_terminator_ends_an_entry_and_is_not_part_of_it(desk):
    one = desk()
    await one.press("1234#")
    assert one.entries == [Entry("1234", False)]
    assert one.entries[0].told == "The caller typed 1234."
    assert one.log == ["begin", "end"]


async def test_a_pause_ends_an_entry_and_each_key_begins_the_pause_anew(desk):
    one = desk(gap_secs=1.0)
    await one.press("12", gap=0.9)
    assert one.entries == []
    await one.clock.advance(0.2)
    assert one.entries == [Entry("12", False)]


async def test_an_entry_ends_at_its_greatest_length(desk):
    one = desk(longest=1)
    await one.press("12")
    assert [entry.digits for entry in one.entries] == ["1", "2"]


async def test_a_terminator_by_itself_is_an_entry(desk):
    one = desk()
    await one.press("#")
    assert one.entries == [Entry("#", False)]


async def test_without_a_terminator_every_key_counts(desk):
    one = desk(terminator=None, gap_secs=1.0)
    await one.press("1#")
    await one.clock.advance(1.0)
    assert one.entries == [Entry("1#", False)]


async def test_the_model_is_not_told_a_secret(desk):
    one = desk(secret=True)
    await one.press("1234#")
    assert one.entries[0].told == "The caller typed 4 keys."
    assert one.keypad.last.digits == "1234"


async def test_an_awaited_entry_goes_to_who_awaits_it_alone(desk):
    one = desk()
    collecting = asyncio.create_task(one.keypad.collect(asked(), 10.0, 4, secret=True))
    await one.clock.settle()
    assert one.log == ["begin"], "what is about to be typed must not be recorded"
    await one.press("5678")
    assert await collecting == Entry("5678", True)
    assert one.entries == []
    assert one.log == ["begin", "end"]
    await one.press("9#")
    assert one.entries == [Entry("9", False)]


async def test_who_waits_for_keys_that_do_not_come_gives_up(desk):
    one = desk()
    collecting = asyncio.create_task(one.keypad.collect(asked(), 5.0, None, secret=False))
    await one.clock.advance(5.0)
    assert await collecting is None
    assert one.log == ["begin", "end"]


async def test_who_has_begun_to_type_may_finish(desk):
    one = desk(gap_secs=3.0)
    collecting = asyncio.create_task(one.keypad.collect(asked(), 2.0, None, secret=False))
    await one.clock.settle()
    await one.press("1", gap=1.9)
    await one.press("2", gap=2.0)
    assert not collecting.done()
    await one.press("#")
    assert await collecting == Entry("12", False)


async def test_patience_begins_when_the_caller_has_been_asked(desk):
    one = desk()
    question = asyncio.get_running_loop().create_future()
    collecting = asyncio.create_task(one.keypad.collect(question, 5.0, None, secret=False))
    await one.clock.advance(9.0)
    question.set_result(True)
    await one.clock.advance(4.9)
    assert not collecting.done()
    await one.clock.advance(0.2)
    assert await collecting is None


async def test_nothing_comes_after_the_end_of_the_call(desk):
    one = desk(gap_secs=1.0)
    await one.press("1")
    one.keypad.close()
    await one.clock.advance(2.0)
    assert one.entries == []


def test_a_terminator_that_is_no_key_is_named():
    with pytest.raises(ValueError, match="terminator: expected one of 0-9"):
        KeypadSettings(terminator="E")
