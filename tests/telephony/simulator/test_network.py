"""What the network does to a call."""

import json

import numpy as np
import pytest

from telephony import mulaw
from telephony.media_streams import Media, Start
from telephony.simulator.callee import Listener
from telephony.simulator.carrier import LoopbackTwilio
from telephony.simulator.network import LossyLine, Network, Way
from telephony.simulator.trace import Cause


@pytest.fixture
def placed(agent, clock):
    """Places a call of somebody who listens for a while, with a network."""

    async def place(network, seconds=3.0):
        async with LoopbackTwilio(agent.target, clock) as twilio:
            call = twilio.new_call()
            await twilio.place(call, Listener(seconds), "+15550100001", "+15550100002", network)
        return call

    return place


def test_messages_come_late_and_in_order():
    way = Way(Network(delay_ms=50, jitter_ms=200), 100.0, "a")

    sent = np.arange(100.0, 110.0, 0.02)
    arrived = np.array([way.arrival(at) for at in sent])

    assert (np.diff(arrived) >= 0).all()
    late = arrived - sent
    assert late.min() >= 0.05
    assert late.max() <= 0.25 + 1e-9
    assert late.std() > 0.01


def test_a_stall_holds_everything_until_it_is_over():
    way = Way(Network(stalls=({"at_ms": 1000, "for_ms": 500},)), 0.0, "a")

    assert [way.arrival(at) for at in (0.9, 1.0, 1.2, 1.6)] == [0.9, 1.5, 1.5, 1.6]


@pytest.mark.parametrize(("loss", "run"), [(0.05, 1), (0.2, 3)])
def test_as_much_is_lost_as_was_asked_for(loss, run):
    line = LossyLine(Network(loss=loss, loss_run=run), "a")
    frame = np.full(160, 1000, np.int16)

    changed = [line.carry(frame)[0] != 1000 for _ in range(20_000)]

    assert np.mean(changed) == pytest.approx(loss, rel=0.15)
    runs = np.sum(np.diff(np.array(changed, int)) == 1)
    assert np.sum(changed) / runs == pytest.approx(
        run if run > 1 else 1 / (1 - loss / (1 - loss)), rel=0.15
    )


def test_a_lost_frame_sounds_like_the_last_one_but_quieter():
    line = LossyLine(Network(loss=0.99, loss_run=1000), "a")
    line._lost = iter([False, True, True, True, True, True])
    frames = [np.full(160, value, np.int16) for value in (1000, 1, 2, 3, 4, 5)]

    heard = [int(line.carry(frame)[0]) for frame in frames]

    assert heard == [1000, 500, 250, 125, 62, 0]


async def test_the_server_hears_lost_audio_concealed(agent, placed, tone):
    class Hummer(Listener):
        def tick(self, heard):
            quiet = super().tick(heard)
            return None if quiet is None else tone(0.02)

    clean = mulaw.decode(mulaw.encode(tone(0.02)))
    async with LoopbackTwilio(agent.target, agent.clock) as twilio:
        call = twilio.new_call()
        network = Network(loss=0.3)
        await twilio.place(call, Hummer(2.0), "+15550100001", "+15550100002", network)

    frames = [mulaw.decode(frame.payload) for frame in agent.lines[0].frames]
    changed = [not np.array_equal(frame, clean) for frame in frames]
    assert 0.15 < np.mean(changed) < 0.45
    assert all(np.abs(frame).max() <= np.abs(clean).max() for frame in frames)


async def test_a_stall_makes_the_media_come_in_a_lump(agent, placed):
    arrived = []

    async def behave(line):
        began = line.clock.time()
        async for event in line.events():
            if isinstance(event, Media):
                arrived.append(line.clock.time() - began)

    agent.behave = behave

    call = await placed(Network(stalls=({"at_ms": 500, "for_ms": 1000},)))

    assert len(arrived) == 150
    during = [at for at in arrived if 0.6 < at < 1.4]
    assert during == []
    assert call.cause is Cause.CALLER_HUNG_UP


async def test_a_mark_takes_the_way_there_and_back(agent, placed):
    async def behave(line):
        async for event in line.events():
            if isinstance(event, Start):
                await line.say(0.5, "said")

    agent.behave = behave

    call = await placed(Network(delay_ms=300))

    mark = call.stream.marks[0]
    # start takes 300 ms to the server, the answer as long back; then half a second is played.
    assert mark.sent / 8000 == pytest.approx(0.6, abs=0.05)
    assert mark.returned / 8000 == pytest.approx(1.1, abs=0.05)
    assert agent.lines[0].marks == ["said"]


async def test_a_torn_connection_ends_the_stream_without_a_stop(agent, placed):
    call = await placed(Network(torn_at_ms=1000))

    assert call.cause is Cause.STREAM_FAILED
    assert [error.code for error in call.errors] == [31903]
    assert call.stream.position == 8000
    assert not agent.lines[0].stopped


async def test_garbage_is_sent_between_the_messages_of_a_stream(agent, placed):
    texts = []

    async def behave(line):
        async for message in line.socket:
            texts.append(message.data)
            try:
                json.loads(message.data)
            except json.JSONDecodeError:
                await line.socket.close(code=1002)

    agent.behave = behave

    call = await placed(Network(garbage_at_ms=1000))

    assert len(texts) > 40
    assert "\ufffd" in texts[-1]
    assert call.cause is Cause.STREAM_FAILED
    assert [error.code for error in call.errors] == [31921]


async def test_a_socket_that_closes_slowly_stays_open_after_the_stop(agent, placed, clock):
    times = []

    async def behave(line):
        async for _ in line.events():
            if line.stopped:
                times.append(line.clock.time())
        times.append(line.clock.time())

    agent.behave = behave

    await placed(Network(slow_close_ms=3000))

    assert times[1] - times[0] == pytest.approx(3.0, abs=0.2)


async def test_the_same_seed_gives_the_same_faults(agent, placed):
    networks = [Network(loss=0.2, seed=seed) for seed in (1, 1, 2)]
    lines = [LossyLine(network, "a") for network in networks]
    frame = np.full(160, 1000, np.int16)

    first, same, other = ([int(line.carry(frame)[0]) for _ in range(200)] for line in lines)

    assert first == same
    assert first != other
