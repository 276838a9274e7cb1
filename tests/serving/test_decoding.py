"""The decoding thread over a decoder that can be held, so that a test knows what is queued."""

import queue
import threading

import numpy as np
import pytest
import torch

from agent.serving.decoding import SAMPLE_RATE, DecodingThread
from agent.serving.schedule import DeadlineSchedule, TurnSchedule
from agent.speech.answer import AnswerPiece


class Decoder:
    """So many samples for each token; keeps what it has decoded, in order."""

    def __init__(self, samples=1):
        self.samples = samples
        self.free = threading.Event()
        self.free.set()
        self.begun = threading.Semaphore(0)
        self.log: list[int] = []
        self.batches: list[int] = []

    def stream(self):
        return Stream(self)

    def advance(self, pieces):
        if any((tokens < 0).any() for _, tokens, _ in pieces):
            raise ValueError("pieces[0]: tokens holds -1")
        self.batches.append(len(pieces))
        return [stream.push(tokens, last) for stream, tokens, last in pieces]


class Stream:
    def __init__(self, decoder):
        self.decoder = decoder

    def push(self, tokens, last=False):
        self.decoder.begun.release()
        assert self.decoder.free.wait(10)
        if (tokens < 0).any():
            raise ValueError("tokens holds -1")
        self.decoder.log += tokens.tolist()
        return tokens.to(torch.float32).repeat_interleave(self.decoder.samples) / 100


class Link:
    def __init__(self):
        self.credits: list[tuple[str, str, int]] = []
        self.stops: list[tuple[str, str]] = []

    def credit(self, *args):
        self.credits.append(args)

    def stop(self, *args):
        self.stops.append(args)


class Reply:
    def __init__(self):
        self.events: queue.Queue = queue.Queue()
        self.gone = False

    def cancelled(self):
        return self.gone

    def audio(self, piece, audio):
        self.events.put((piece, audio))

    def fail(self, message):
        self.events.put(message)

    def finish(self):
        self.events.put(None)

    def get(self):
        return self.events.get(timeout=10)


@pytest.fixture
def decoder():
    return Decoder()


@pytest.fixture
def link():
    return Link()


@pytest.fixture
def decoding(decoder, link):
    thread = DecodingThread(decoder, link, TurnSchedule(), ttl_seconds=60.0)
    thread.start()
    yield thread
    decoder.free.set()
    thread.shutdown()


def submit(decoding, session, *tokens, sequence=0, last=False, text="", reply=None):
    reply = reply or Reply()
    piece = AnswerPiece(session, np.array(tokens, dtype=np.int64), text, sequence, last)
    decoding.submit(f"{session}/0", piece, reply)
    return reply


def hold(decoding, decoder):
    """Have the thread work on a piece of nobody's interest until the decoder is set free."""
    decoder.free.clear()
    submit(decoding, "hold", 1000, last=True)
    assert decoder.begun.acquire(timeout=10)


def test_audio_is_full_scale_and_text_stays_with_it(decoding):
    piece, audio = submit(decoding, "a", 100, 0, 50, text="hi", last=True).get()
    assert audio.dtype == np.int16
    assert audio.tolist() == [32767, 0, 16384]
    assert piece.text == "hi"
    assert piece.timing["first_audio"] >= 0


def test_an_answer_stays_in_order_and_answers_take_turns(decoding, decoder):
    submit(decoding, "a", 1).get()
    submit(decoding, "b", 11).get()
    hold(decoding, decoder)
    replies = [submit(decoding, "a", n) for n in (2, 3, 4)]
    replies += [submit(decoding, "b", n) for n in (12, 13)]
    decoder.free.set()
    for reply in replies:
        reply.get()
    order = [token for token in decoder.log if token != 1000]
    assert order == [1, 11, 2, 12, 3, 13, 4]


def test_an_answer_that_nobody_has_heard_goes_first(decoding, decoder):
    submit(decoding, "a", 1).get()
    hold(decoding, decoder)
    replies = [submit(decoding, "a", n) for n in (2, 3)]
    replies.append(submit(decoding, "new", 21))
    decoder.free.set()
    for reply in replies:
        reply.get()
    assert decoder.log[-3:] == [21, 2, 3]


def test_credit_counts_all_tokens_of_the_answer(decoding, link):
    submit(decoding, "a", 1, 2).get()
    submit(decoding, "a", text="no speech, no credit").get()
    submit(decoding, "a", 3).get()
    submit(decoding, "a", 4, last=True).get()
    submit(decoding, "b", 1).get()  # the last of a is done with when this has been decoded
    assert [credit for credit in link.credits if credit[0] == "a"] == [
        ("a", "a/0", 2),
        ("a", "a/0", 3),
    ]


def test_an_error_ends_its_answer_and_no_other(decoding, link):
    submit(decoding, "a", 1).get()
    submit(decoding, "b", 2).get()
    assert "tokens holds -1" in submit(decoding, "a", -1).get()
    assert submit(decoding, "a", 3).get() is None
    assert submit(decoding, "b", 4).get()[1].tolist() == [1311]
    assert link.stops == [("a", "a/0")]


def test_a_client_that_is_gone_stops_the_language_model_once(decoding, decoder, link):
    submit(decoding, "a", 1).get()
    gone = Reply()
    gone.gone = True
    assert submit(decoding, "a", 2, reply=gone).get() is None
    assert submit(decoding, "a", 3).get() is None
    assert link.stops == [("a", "a/0")]
    assert decoder.log == [1]


@pytest.mark.parametrize("name", ["a/0", ""])
def test_a_stop_throws_away_what_is_queued_of_its_answer_alone(decoding, decoder, link, name):
    submit(decoding, "a", 1).get()
    hold(decoding, decoder)
    stopped = [submit(decoding, "a", n) for n in (2, 3)]
    other = submit(decoding, "b", 11)
    decoding.stop("a", name)
    decoding.stop("b", "b/7")
    decoder.free.set()
    assert [reply.get() for reply in stopped] == [None, None]
    assert other.get()[0].speech_tokens.tolist() == [11]
    assert 2 not in decoder.log
    # Whoever stopped the decoder has stopped the language model as well.
    assert link.stops == []


def test_a_client_that_vanishes_with_pieces_queued_gets_none_of_them(decoding, decoder, link):
    submit(decoding, "a", 1).get()
    hold(decoding, decoder)
    queued = [submit(decoding, "a", n) for n in (2, 3)]
    # Triton tells only the piece that came after the client went.
    gone = Reply()
    gone.gone = True
    queued.append(submit(decoding, "a", 4, reply=gone))
    decoder.free.set()
    assert [reply.get() for reply in queued] == [None, None, None]
    assert link.stops == [("a", "a/0")]


def test_the_state_of_an_answer_goes_with_its_last_piece(decoder, link):
    counts: queue.Queue = queue.Queue()
    decoding = DecodingThread(decoder, link, TurnSchedule(), ttl_seconds=60.0, report=counts.put)
    decoding.start()
    submit(decoding, "a", 1)
    assert counts.get(timeout=10) == 1
    submit(decoding, "a", 2, last=True)
    assert counts.get(timeout=10) == 0
    decoding.shutdown()


class Broken(Reply):
    def audio(self, piece, audio):
        raise RuntimeError("the response sender is closed")

    def fail(self, message):
        raise RuntimeError("the response sender is closed")


def test_a_response_that_triton_does_not_take_stops_nobody_else(decoding):
    submit(decoding, "a", 1, reply=Broken())
    submit(decoding, "b", -1, reply=Broken())
    assert submit(decoding, "c", 2).get()[0].speech_tokens.tolist() == [2]


def test_a_nameless_answer_may_follow_at_once_on_the_one_before(decoding):
    second = Reply()

    class Follow(Reply):
        def audio(self, piece, audio):
            submit(decoding, "a", 2, last=True, reply=second)

    submit(decoding, "a", 1, last=True, reply=Follow())
    assert second.get()[0].speech_tokens.tolist() == [2]


def test_an_answer_whose_language_model_died_is_forgotten(decoder, link):
    counts: queue.Queue = queue.Queue()
    now = [0.0]
    decoding = DecodingThread(
        decoder, link, TurnSchedule(), 60.0, report=counts.put, clock=lambda: now[0]
    )
    decoding.start()
    submit(decoding, "a", 1)
    assert counts.get(timeout=10) == 1
    now[0] = 61.0
    submit(decoding, "b", 1)
    counts.get(timeout=10)
    while counts.get(timeout=10) != 1:
        pass
    decoding.shutdown()


def test_unloading_ends_what_waits(decoder, link):
    decoding = DecodingThread(decoder, link, TurnSchedule(), ttl_seconds=60.0)
    decoding.start()
    hold(decoding, decoder)
    waiting = submit(decoding, "a", 1)
    threading.Thread(target=decoding.shutdown).start()
    while not decoding._stopping:
        pass
    decoder.free.set()
    assert waiting.get() == "the speech decoder is being unloaded"


@pytest.fixture
def together(decoder, link):
    """Up to three pieces at once."""
    thread = DecodingThread(decoder, link, TurnSchedule(max_batch=3), ttl_seconds=60.0)
    thread.start()
    for name in "abcd":
        submit(thread, name, 1).get()
    hold(thread, decoder)
    yield thread
    decoder.free.set()
    thread.shutdown()


def test_answers_are_decoded_together_but_one_piece_of_each(together, decoder, link):
    replies = [submit(together, name, n) for n in (2, 3) for name in "abcd"]
    decoder.free.set()
    for reply in replies:
        reply.get()
    assert decoder.batches == [3, 3, 2]
    assert sorted(decoder.log[5:9]) == [2, 2, 2, 2]
    together.shutdown()
    assert sorted(link.credits[4:]) == sorted((n, f"{n}/0", c) for n in "abcd" for c in (2, 3))


def test_a_wrong_piece_among_several_ends_its_answer_alone(together, decoder, link):
    replies = [submit(together, name, n) for name, n in (("a", 2), ("b", -1), ("c", 2))]
    decoder.free.set()
    assert replies[0].get()[0].speech_tokens.tolist() == [2]
    assert "tokens holds -1" in replies[1].get()
    assert replies[2].get()[0].speech_tokens.tolist() == [2]
    assert link.stops == [("b", "b/0")]


def test_a_stopped_piece_among_several_is_left_out(together, decoder):
    replies = [submit(together, name, 2) for name in "abc"]
    together.stop("b", "")
    decoder.free.set()
    assert replies[1].get() is None
    assert replies[0].get()[0].speech_tokens.tolist() == [2]
    assert replies[2].get()[0].speech_tokens.tolist() == [2]


def test_a_batch_that_breaks_ends_its_answers_and_no_other(together, decoder, link, monkeypatch):
    def broken(pieces):
        raise RuntimeError("no memory")

    monkeypatch.setattr(decoder, "advance", broken)
    replies = [submit(together, name, 2) for name in "abcd"]
    decoder.free.set()
    assert [reply.get() for reply in replies[:3]] == ["no memory"] * 3
    assert replies[3].get()[0].speech_tokens.tolist() == [2]
    assert len(link.stops) == 3


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def by_deadline(link, clock):
    """A second of audio for each token, and 3 s of lead; time stands still by itself."""
    decoder = Decoder(SAMPLE_RATE)
    done: queue.Queue = queue.Queue()
    thread = DecodingThread(
        decoder, link, DeadlineSchedule(3.0), 60.0, report=done.put, clock=clock
    )
    thread.decoder, thread.done = decoder, done
    thread.start()
    yield thread
    decoder.free.set()
    thread.shutdown()


def finished(decoding, replies=1):
    """Wait until the thread is done with so many: the clock may be put on."""
    for _ in range(replies):
        decoding.done.get(timeout=10)


def pass_by(decoding, name, others=0):
    """Another answer comes and goes: the thread has looked at everything that waits."""
    submit(decoding, name, 0, last=True)
    finished(decoding, 1 + others)


def test_an_answer_ahead_of_its_playback_is_decoded_when_it_is_due(by_deadline, clock, link):
    log = by_deadline.decoder.log
    submit(by_deadline, "a", 1, 1, 1, 1)
    finished(by_deadline)
    submit(by_deadline, "a", 2)
    pass_by(by_deadline, "b")
    clock.now = 0.9
    pass_by(by_deadline, "c")
    assert 2 not in log
    # Nor does the language model hear that it may go on.
    assert link.credits == [("a", "a/0", 4)]
    clock.now = 1.1
    pass_by(by_deadline, "d", others=1)
    assert 2 in log
    # 4 s were out at 0 s and one more since: due at 2 s.
    submit(by_deadline, "a", 3)
    pass_by(by_deadline, "e")
    assert 3 not in log
    clock.now = 2.1
    pass_by(by_deadline, "f", others=1)
    assert 3 in log


def test_what_needs_no_decoding_goes_out_at_once(by_deadline):
    submit(by_deadline, "a", 1, 1, 1, 1).get()
    assert submit(by_deadline, "a", text="on").get()[0].text == "on"
    assert submit(by_deadline, "a", last=True).get()[0].last


def test_a_stop_throws_away_what_is_not_due(by_deadline):
    submit(by_deadline, "a", 1, 1, 1, 1).get()
    held = submit(by_deadline, "a", 2)
    by_deadline.stop("a", "a/0")
    assert held.get() is None


class Slow(Reply):
    """Takes its time to send."""

    def __init__(self, clock, seconds):
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def audio(self, piece, audio):
        self.clock.now += self.seconds
        super().audio(piece, audio)


def test_a_stopped_answer_holds_nobody_back(by_deadline, clock):
    submit(by_deadline, "a", 1)
    # A piece takes nearly as long as it plays: nobody else can be let in.
    submit(by_deadline, "a", 2, reply=Slow(clock, 0.9))
    finished(by_deadline, 2)
    held = submit(by_deadline, "b", 11, last=True)
    submit(by_deadline, "a", text="and")
    finished(by_deadline)
    assert 11 not in by_deadline.decoder.log
    by_deadline.stop("a", "a/0")
    assert held.get()[0].speech_tokens.tolist() == [11]


def test_what_a_piece_costs_is_learnt_from_pieces_after_the_first(decoder, link, clock):
    measured: queue.Queue = queue.Queue()

    class Schedule(TurnSchedule):
        def measured(self, pieces, seconds):
            measured.put((pieces, seconds))

    decoding = DecodingThread(decoder, link, Schedule(), 60.0, clock=clock)
    decoding.start()
    submit(decoding, "a", 1, reply=Slow(clock, 7.0))
    submit(decoding, "a", text="free", reply=Slow(clock, 5.0))
    submit(decoding, "a", 2, reply=Slow(clock, 0.25))
    assert measured.get(timeout=10) == (1, 0.25)
    decoding.shutdown()
    assert measured.empty()


def test_the_wait_for_the_decoder_is_told(by_deadline, clock):
    decoder = by_deadline.decoder
    decoder.free.clear()
    submit(by_deadline, "a", 1, last=True)
    assert decoder.begun.acquire(timeout=10)
    second = submit(by_deadline, "b", 1, last=True)
    clock.now = 0.5
    decoder.free.set()
    timing = second.get()[0].timing
    assert timing == {"decoder_queue": 0.5, "first_audio": 0.5}


def test_the_end_of_an_answer_says_what_the_engine_can_carry(decoder, link):
    schedule = DeadlineSchedule(3.0)
    decoding = DecodingThread(decoder, link, schedule, 60.0)
    decoding.start()
    piece, _ = submit(decoding, "a", last=True).get()
    assert "carries" not in piece.timing
    schedule.measured(1, 0.24)
    piece, _ = submit(decoding, "b", last=True).get()
    assert piece.timing["carries"] == pytest.approx(3.0)
    decoding.shutdown()
