import numpy as np
import pytest

from agent.serving.tokenizing import TokenizingSessions
from agent.speech.request import TurnRequest


class Stream:
    """A token for each two samples; the last odd one at the end. Revising negates the tokens."""

    def __init__(self):
        self.rest = np.zeros(0, dtype=np.float32)
        self.all = np.zeros(0, dtype=np.int64)

    def push(self, samples):
        if not np.isfinite(samples).all():
            raise ValueError("samples are not finite")
        samples = np.concatenate([self.rest, samples])
        count = len(samples) // 2
        self.rest = samples[2 * count :]
        found = samples[: 2 * count : 2].astype(np.int64)
        self.all = np.concatenate([self.all, found])
        return found

    def finish(self):
        self.all = self.preview() * -1
        return self.rest.astype(np.int64)

    def revise(self):
        return -self.all

    def preview(self):
        return -np.concatenate([self.all, self.rest.astype(np.int64)])


class Tokenizer:
    stream = Stream


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def audio(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Listener:
    def __init__(self):
        self.heard = []

    def listen(self, session, tokens, request):
        self.heard.append((session, tokens.tolist(), request))


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def sessions(clock, listener) -> TokenizingSessions:
    return TokenizingSessions(Tokenizer(), listener, 60.0, clock)


def push(sessions, session, samples, end=False, request=None):
    return sessions.push(session, samples, end, request or TurnRequest())


def test_the_end_of_a_turn_returns_all_its_tokens_and_the_next_starts_empty(sessions):
    assert push(sessions, "a", audio(1, 1, 2))[0].tolist() == [1]
    assert push(sessions, "a", audio(2, 3, 3))[0].tolist() == [2, 3]
    tokens, request = push(sessions, "a", audio(4), end=True)
    assert tokens.tolist() == [-1, -2, -3, -4]
    assert request.timing == {"tokenise": 0.0}
    assert push(sessions, "a", audio(9), end=True)[0].tolist() == [-9]


def test_sessions_do_not_mix(sessions):
    push(sessions, "a", audio(1, 1))
    push(sessions, "b", audio(5, 5))
    assert push(sessions, "a", audio(), end=True)[0].tolist() == [-1]
    assert push(sessions, "b", audio(), end=True)[0].tolist() == [-5]


def test_close_forgets_the_turn(sessions):
    push(sessions, "a", audio(1, 1))
    tokens, _ = push(sessions, "a", audio(7, 7), request=TurnRequest(close=True))
    assert tokens.tolist() == []
    assert len(sessions) == 0
    assert push(sessions, "a", audio(2, 2), end=True)[0].tolist() == [-2]


def test_bad_audio_leaves_the_turn_as_it_was(sessions):
    push(sessions, "a", audio(1, 1))
    with pytest.raises(ValueError, match="not finite"):
        push(sessions, "a", audio(np.nan, 0))
    assert push(sessions, "a", audio(2, 2), end=True)[0].tolist() == [-1, -2]


def test_a_turn_that_nobody_ends_is_forgotten(sessions, clock):
    push(sessions, "a", audio(1, 1))
    clock.now = 61.0
    assert len(sessions) == 0


def test_the_request_passes_through(sessions):
    request = TurnRequest(temperature=0.7, instruction="Be kind.", timing={"queue": 1.0})
    _, passed = push(sessions, "a", audio(), end=True, request=request)
    assert passed.instruction == "Be kind."
    assert passed.temperature == 0.7
    assert passed.timing == {"queue": 1.0, "tokenise": 0.0}


def test_an_early_answer_ends_the_turn(sessions):
    push(sessions, "a", audio(1, 1))
    tokens, request = push(sessions, "a", audio(2), end=True, request=TurnRequest(early=True))
    assert tokens.tolist() == [-1, -2]
    assert request.early
    assert request.timing == {"tokenise": 0.0}
    assert push(sessions, "a", audio(2), end=True)[0].tolist() == [-1, -2]


def test_the_language_model_is_told_what_it_has_not_asked_for(sessions, listener):
    request = TurnRequest(listen=True, system="Be kind.")
    push(sessions, "a", audio(1), request=request)
    assert listener.heard == []
    push(sessions, "a", audio(1, 2, 2), request=request)
    push(sessions, "a", audio(3, 3))
    push(sessions, "a", audio(4, 4), request=request)
    push(sessions, "a", audio(5, 5), end=True, request=request)
    assert listener.heard == [("a", [-1, -2], request), ("a", [-1, -2, -3, -4], request)]


@pytest.mark.parametrize(
    "typed", [{"say": "One moment."}, {"instruction": "Greet."}, {"result": "done"}]
)
def test_words_to_say_end_the_turn_that_is_being_spoken(sessions, typed):
    push(sessions, "a", audio(1, 1))
    tokens, _ = push(sessions, "a", audio(), end=True, request=TurnRequest(**typed))
    assert tokens.tolist() == []
    assert push(sessions, "a", audio(2, 2), end=True)[0].tolist() == [-1, -2]
