"""The recording of a call: what is heard when, what is left out, and what is on disk meanwhile."""

import asyncio
import wave

import numpy as np
import pytest
import soundfile

from telephony import mulaw
from telephony.recording import CallRecording


def sound(level, frames):
    return mulaw.encode(np.full(160 * frames, level, np.int16))


CALLER, AGENT = (int(mulaw.decode(sound(level, 1))[0]) for level in (4000, 8000))


class Tape(CallRecording):
    """A recording that is fed frame by frame."""

    def __init__(self, path, **more):
        super().__init__(path, **more)
        self.at = 0

    def run(self, frames, level=4000):
        for _ in range(frames):
            self.caller(sound(level, 1), self.at)
            self.at += 20


@pytest.fixture
async def tape(tmp_path):
    return Tape(tmp_path / "calls" / "CA1.wav")


async def sides(tape):
    await tape.close()
    audio, rate = soundfile.read(tape.path, dtype="int16")
    assert rate == 8000
    return audio[:, 0], audio[:, 1]


async def test_both_sides_stand_where_they_were_heard(tape):
    tape.run(10)
    tape.agent(sound(8000, 5))
    tape.run(10)
    caller, agent = await sides(tape)
    assert (caller == CALLER).all()
    assert len(caller) == 20 * 160
    assert np.flatnonzero(agent).tolist() == list(range(1600, 2400))
    assert (agent[1600:2400] == AGENT).all()


async def test_what_the_phone_forgot_was_not_heard(tape):
    tape.agent(sound(8000, 10))
    tape.run(4)
    tape.cleared()
    tape.run(10)
    _, agent = await sides(tape)
    assert np.count_nonzero(agent) == 4 * 160


async def test_frames_that_never_came_are_silence_not_a_shorter_call(tape):
    tape.run(5)
    tape.at += 200
    tape.run(5)
    caller, _ = await sides(tape)
    assert len(caller) == 20 * 160
    assert not caller[5 * 160 : 15 * 160].any()


async def test_a_pause_reaches_back_over_the_tone_of_the_key_that_began_it(tape):
    tape.run(100)
    tape.agent(sound(8000, 50))
    tape.pause()
    tape.run(50)
    tape.resume()
    tape.run(50)
    caller, agent = await sides(tape)
    assert len(caller) == 200 * 160
    silent = np.flatnonzero(caller == 0)
    assert silent[0] <= 75 * 160, "half a second before the pause is silent as well"
    assert silent[-1] == 150 * 160 - 1
    assert not agent.any()


async def until(condition):
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not happen")


async def test_the_file_is_whole_while_the_call_runs(tape):
    def seconds():
        with wave.open(str(tape.path)) as file:
            return len(file.readframes(file.getnframes())) / 4 / 8000

    tape.run(200)
    await until(lambda: seconds() == 3)
    tape.run(50)
    await until(lambda: seconds() == 4)
    await tape.close()


async def test_what_is_kept_in_memory_does_not_grow_with_the_call(tape):
    for _ in range(60):
        tape.run(50)
        await until(tape._queue.empty)
    assert len(tape._caller) <= 12000
    caller, _ = await sides(tape)
    assert len(caller) == 60 * 8000


async def test_a_full_disk_ends_the_recording_and_nothing_else(tmp_path):
    failures = []
    tape = Tape(tmp_path / "CA1.wav", on_failure=failures.append)

    def full(caller, agent):
        raise OSError(28, "No space left on device")

    tape._append = full
    tape.run(200)
    await until(lambda: failures)
    tape.run(200)
    await tape.close()
    assert failures == ["No space left on device"]


async def test_nobody_else_may_read_it_and_nothing_is_overwritten(tape):
    assert tape.path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        CallRecording(tape.path)
    await tape.close()


async def test_what_was_said_can_be_silenced_afterwards(tape):
    tape.agent(sound(8000, 400))
    tape.run(400)
    tape.silence("caller", 1.0, 2.0)
    tape.silence("agent", 7.0, 7.9)
    tape.silence("caller", 7.5, 99.0)
    tape.run(25)
    caller, agent = await sides(tape)
    silent = [*range(8000, 16000), *range(60_000, 64_000)]
    assert np.flatnonzero(caller == 0).tolist() == silent
    assert np.flatnonzero(agent[:64_000] == 0).tolist() == list(range(56_000, 63_200))
    assert len(caller) == 425 * 160


async def test_what_is_on_its_way_to_the_disk_can_be_silenced_too(tape):
    tape.run(50)
    await asyncio.sleep(0)
    tape.run(500)
    tape.silence("caller", 0.0, 10.0)
    caller, _ = await sides(tape)
    assert np.flatnonzero(caller).tolist() == list(range(80_000, 550 * 160))
