"""The phone's buffer, without any clock: time is the number of ticks."""

from telephony.simulator.playback import PlaybackBuffer

FRAME = bytes(160)


def test_audio_plays_at_its_own_pace_and_in_order():
    buffer = PlaybackBuffer()
    sent = bytes(range(200)) + bytes(range(200))
    buffer.media(sent)

    played = [buffer.tick() for _ in range(4)]

    assert b"".join(tick.audio for tick in played) == sent.ljust(640, b"\xff")
    assert [tick.samples for tick in played] == [160, 160, 80, 0]


def test_a_mark_returns_when_what_was_sent_before_it_has_been_played_and_not_earlier():
    buffer = PlaybackBuffer()
    buffer.media(FRAME * 2)
    buffer.mark("two frames")
    buffer.media(FRAME)
    buffer.mark("three frames")

    assert [buffer.tick().marks for _ in range(4)] == [(), (), ("two frames",), ("three frames",)]


def test_a_mark_behind_nothing_returns_at_the_next_tick():
    buffer = PlaybackBuffer()
    buffer.mark("nothing")

    assert buffer.tick().marks == ("nothing",)


def test_a_mark_in_the_middle_of_a_frame_waits_for_all_of_its_audio():
    buffer = PlaybackBuffer()
    buffer.media(bytes(161))
    buffer.mark("odd")

    assert [buffer.tick().marks for _ in range(3)] == [(), (), ("odd",)]


def test_clear_empties_the_buffer_and_returns_every_pending_mark_once():
    buffer = PlaybackBuffer()
    buffer.media(FRAME * 10)
    buffer.mark("one")
    buffer.mark("two")
    buffer.tick()

    assert buffer.clear() == ("one", "two")
    assert buffer.waiting == 0
    after = buffer.tick()
    assert (after.samples, after.marks) == (0, ())


def test_marks_after_a_clear_count_from_what_comes_after_it():
    buffer = PlaybackBuffer()
    buffer.media(FRAME * 10)
    buffer.tick()
    buffer.clear()
    buffer.media(FRAME)
    buffer.mark("next answer")

    assert [buffer.tick().marks for _ in range(2)] == [(), ("next answer",)]


def test_more_than_ten_minutes_are_discarded():
    buffer = PlaybackBuffer()

    assert buffer.media(bytes(600 * 8000 - 10)) == 0
    assert buffer.media(bytes(160)) == 150
    assert buffer.media(bytes(160)) == 160
    assert buffer.waiting == 600 * 8000
