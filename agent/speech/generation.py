"""Many conversations through one language model: continuous batching, stop, lead limit."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from agent.speech.answer import PIECE, AnswerPiece, AnswerWriter
from agent.speech.kv_cache import KVCache
from agent.speech.language_model import LanguageModel
from agent.speech.prompt import TOKENS_PER_SECOND, Interleave, Prompt, heard
from agent.speech.request import TurnRequest
from agent.speech.sampling import sample

__all__ = ["AnswerPiece", "CapacityError", "Clock", "GenerationEngine"]


class Clock(Protocol):
    """Tells the time in seconds; only differences matter."""

    def time(self) -> float:
        """The time now."""


class _Monotonic:
    def time(self) -> float:
        return time.monotonic()


class CapacityError(RuntimeError):
    """The engine holds as many sessions as it may."""


@dataclass
class _Turn:
    """Ids of one exchange: the caller's, template included, and the answer's without its end."""

    user: list[int]
    answer: list[int] = field(default_factory=list)


@dataclass
class _Answer:
    """An answer in the making.

    Attributes:
        request: What was asked for.
        writer: Cuts it into pieces.
        ids: The answer so far; the same list as the turn's.
        pending: Ids the model has not read yet; when it has, the next id is chosen.
        limit: Most ids.
        since: When it was asked for.
        runs: Text runs still to be forced, or None where the model chooses its words.
        run_spoken: Speech tokens since the last forced run.
        decoded: Speech tokens that have become audio.
    """

    request: TurnRequest
    writer: AnswerWriter
    ids: list[int]
    pending: list[int]
    limit: int
    since: float
    runs: list[list[int]] | None
    run_spoken: int = 0
    decoded: int = 0


@dataclass
class _Session:
    """One conversation.

    Attributes:
        cache: What the model has read.
        read: The ids in the cache, in order.
        random: The session's own random numbers.
        touched: When its caller or its decoder was last heard of.
        system: Its system prompt, once the first turn has set it.
        turns: The history, the running turn included.
        answer: The answer in the making, if any.
    """

    cache: KVCache
    random: torch.Generator
    touched: float
    system: str = ""
    read: list[int] = field(default_factory=list)
    turns: list[_Turn] = field(default_factory=list)
    answer: _Answer | None = None


class GenerationEngine:
    """Answers turns of many sessions; each :meth:`step` is one pass of all that can go on.

    Not thread-safe and without threads: one owner calls everything. Each session keeps its history
    and the cache of it, so a turn costs only its own tokens; an edit of the history costs only what
    follows the edit.

    Args:
        model: Shared by all sessions.
        lead_limit: An answer pauses when it is this many speech tokens ahead of what
            :meth:`credit` reports decoded.
        prefill_budget: Most prompt tokens in one step, all sessions together, so that a long
            prompt does not hold up the answers that are running.
        time_to_live: Seconds after which a session of which nothing is heard is forgotten.
        max_sessions: Most sessions at once.
        interleave: How answers alternate.
        clock: Tells the time.

    Raises:
        ValueError: A limit that would never let an answer go on.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        lead_limit: int = 75,
        prefill_budget: int = 512,
        time_to_live: float = 600.0,
        max_sessions: int = 64,
        interleave: Interleave | None = None,
        clock: Clock | None = None,
    ):
        if lead_limit < PIECE:
            raise ValueError(f"lead_limit is {lead_limit}, expected at least a piece of {PIECE}")
        if prefill_budget < 1 or max_sessions < 1 or time_to_live <= 0:
            raise ValueError(
                f"prefill_budget {prefill_budget}, max_sessions {max_sessions} and time_to_live "
                f"{time_to_live} must all be above 0"
            )
        self._model = model
        self._tokenizer = model.text_tokenizer
        self._prompt = Prompt(model.text_tokenizer)
        self._lead_limit = lead_limit
        self._prefill_budget = prefill_budget
        self._time_to_live = time_to_live
        self._max_sessions = max_sessions
        self._interleave = interleave or Interleave()
        self._clock = clock or _Monotonic()
        self._ends = frozenset({*model.config.eos_token_id, self._prompt.user})
        # What a forced answer may choose: speech, and once its words are said also an end.
        self._not_speech = torch.ones(model.config.padded_vocab_size, dtype=torch.bool)
        offset = model.audio_offset
        self._not_speech[offset : offset + self._tokenizer.audio_count] = False
        self._not_speech_or_end = self._not_speech.clone()
        self._not_speech_or_end[list(self._ends)] = False
        self._not_speech = self._not_speech.to(model.device)
        self._not_speech_or_end = self._not_speech_or_end.to(model.device)
        self._sessions: dict[str, _Session] = {}
        self._outbox: list[AnswerPiece] = []

    @property
    def idle(self) -> bool:
        """Whether :meth:`step` has nothing to do until something else is called."""
        return not self._outbox and not any(map(self._runnable, self._sessions.values()))

    @property
    def sessions(self) -> int:
        """Sessions held."""
        return len(self._sessions)

    def history(self, session: str) -> list[int]:
        """All ids of a conversation so far, as a fresh prompt would have them.

        Raises:
            KeyError: No such session.
        """
        state = self._sessions[session]
        return self._history(state.system, state.turns)

    def submit(
        self, session: str, tokens: npt.ArrayLike, request: TurnRequest | None = None
    ) -> None:
        """Start a session's next answer; an answer that still runs is stopped first.

        Its pieces come from the next calls of :meth:`step`, after the last piece of a stopped one.

        Args:
            session: A new name begins a conversation.
            tokens: int64 [m], the codes of what the caller said; may be empty when the request
                has an instruction or a text to say.
            request: Settings of the turn.

        Raises:
            ValueError: Codes out of range, an empty turn, or one too long for the model. The
                session is as it was.
            CapacityError: A new session where there is no room for one.
        """
        request = request or TurnRequest()
        user = self._user_turn(np.asarray(tokens), request)
        state = self._sessions.get(session)
        if state is None and len(self._sessions) >= self._max_sessions:
            raise CapacityError(f"{self._max_sessions} sessions are running, no room for another")
        turns = list(state.turns) if state else []
        if turns and request.heard_seconds is not None:
            count = int(request.heard_seconds * TOKENS_PER_SECOND + 0.5)
            before = turns[-1]
            flags = map(self._tokenizer.is_speech, before.answer)
            turns[-1] = _Turn(before.user, heard(before.answer, flags, count))
        turn = _Turn(user)
        system = request.system or (state.system if state else "")
        if not system:
            typed = request.instruction is not None or request.say is not None
            system = self._prompt.default_system("text" if typed else "speech")
        turns = self._fitting(system, [*turns, turn], request.max_new_tokens)
        ids = self._history(system, turns)
        runs = None
        if request.say is not None:
            text = self._tokenizer.encode_plain(request.say)
            runs = [list(run) for run, _ in self._interleave.runs(text)]

        self.stop(session)
        if state is None:
            state = self._new_session()
            self._sessions[session] = state
        state.system, state.turns, state.touched = system, turns, self._clock.time()
        if request.seed is not None:
            state.random.manual_seed(request.seed)
        common = _common_prefix(state.read, ids)
        state.cache.truncate(common)
        del state.read[common:]
        state.answer = _Answer(
            request=request,
            writer=AnswerWriter(session, self._tokenizer, self._interleave, dict(request.timing)),
            ids=turn.answer,
            pending=ids[common:],
            limit=min(request.max_new_tokens, self._model.config.seq_length - len(ids)),
            since=self._clock.time(),
            runs=runs,
        )
        if runs is not None:
            self._force(state.answer)

    def stop(self, session: str) -> None:
        """End a session's running answer now; what was generated stays in the history.

        The next :meth:`step` returns its last piece, empty. No answer running: nothing happens.
        """
        state = self._sessions.get(session)
        if state is not None and state.answer is not None:
            self._outbox.append(state.answer.writer.abandon())
            state.answer = None

    def close(self, session: str) -> None:
        """Forget a session; a running answer ends as with :meth:`stop`."""
        self.stop(session)
        self._sessions.pop(session, None)

    def credit(self, session: str, decoded: int) -> None:
        """Report how many speech tokens of the running answer have become audio.

        A report for an answer that is over changes nothing.
        """
        state = self._sessions.get(session)
        if state is None:
            return
        state.touched = self._clock.time()
        if state.answer is not None:
            answer = state.answer
            answer.decoded = max(answer.decoded, min(decoded, answer.writer.spoken))

    def expire(self) -> list[str]:
        """Forget sessions that outlived their time; every step does so too.

        Returns:
            Their names.
        """
        oldest = self._clock.time() - self._time_to_live
        expired = [name for name, state in self._sessions.items() if state.touched < oldest]
        for name in expired:
            self.close(name)
        return expired

    def step(self) -> list[AnswerPiece]:
        """One pass of the model over every session that can go on.

        Each of them gets its next token; sessions that are still reading their prompt share
        the prefill budget, first come first served.

        Returns:
            The pieces that became complete, in order for each session.
        """
        self.expire()
        pieces, self._outbox = self._outbox, []
        batch = self._plan()
        if not batch:
            return pieces
        device = self._model.device
        lengths = [count for _, count in batch]
        chunks = [_answer(state).pending[:count] for state, count in batch]
        ids = torch.tensor([i for chunk in chunks for i in chunk], device=device)
        rows = torch.tensor(lengths, device=device).cumsum(0) - 1
        with torch.no_grad():
            logits = self._model(ids, lengths, [state.cache for state, _ in batch], rows)
        for (state, count), chunk, row in zip(batch, chunks, logits, strict=True):
            answer = _answer(state)
            state.read += chunk
            del answer.pending[:count]
            if not answer.pending:
                state.touched = self._clock.time()
                self._choose(state, answer, row)
        pieces += self._outbox
        self._outbox = []
        return pieces

    def _new_session(self) -> _Session:
        generator = torch.Generator(self._model.device)
        generator.seed()
        return _Session(self._model.cache(), generator, self._clock.time())

    def _user_turn(self, tokens: npt.NDArray[np.int64], request: TurnRequest) -> list[int]:
        if tokens.ndim != 1 or (tokens.size and tokens.dtype.kind not in "iu"):
            raise ValueError(
                f"speech tokens have shape {tokens.shape} and dtype {tokens.dtype}, "
                "expected one row of whole numbers"
            )
        if request.instruction is not None:
            return self._prompt.typed(request.instruction)
        if tokens.size:
            return self._prompt.spoken(tokens.tolist())
        if request.say is not None:
            return self._prompt.say(request.say)
        raise ValueError("an empty turn: no speech tokens, no instruction, nothing to say")

    def _history(self, system: str, turns: Sequence[_Turn]) -> list[int]:
        ids = self._prompt.opening(system)
        for turn in turns:
            ids += turn.user
            ids += turn.answer
        return ids

    def _fitting(self, system: str, turns: list[_Turn], wanted: int) -> list[_Turn]:
        """The latest turns that leave room for an answer, half of all positions at most."""
        longest = self._model.config.seq_length
        room = min(max(wanted, self._interleave.text), longest // 2)
        for first in range(len(turns)):
            if len(self._history(system, turns[first:])) + room <= longest:
                return turns[first:]
        raise ValueError(
            f"a turn of {len(turns[-1].user)} tokens is too long for a model of {longest} positions"
        )

    def _runnable(self, state: _Session) -> bool:
        answer = state.answer
        return answer is not None and answer.writer.spoken - answer.decoded < self._lead_limit

    def _plan(self) -> list[tuple[_Session, int]]:
        """Who reads how many tokens in this step."""
        runnable = [state for state in self._sessions.values() if self._runnable(state)]
        runnable.sort(key=lambda state: _answer(state).since)
        batch = []
        budget = self._prefill_budget
        for state in runnable:
            count = len(_answer(state).pending)
            if count > 1:
                count = min(count, budget)
                budget -= count
            if count:
                batch.append((state, count))
        return batch

    def _choose(self, state: _Session, answer: _Answer, logits: torch.Tensor) -> None:
        """Take the next token from the logits and see what it completes."""
        request = answer.request
        if answer.runs is not None:
            barred = self._not_speech if answer.runs else self._not_speech_or_end
            logits = logits.masked_fill(barred, float("-inf"))
        token = sample(logits, request.temperature, request.top_p, state.random)
        if token in self._ends:
            self._finish(state, answer)
            return
        self._take(answer, token)
        if answer.runs is not None:
            answer.run_spoken += 1
            if answer.runs and answer.run_spoken == self._interleave.speech:
                self._force(answer)
        if len(answer.ids) >= answer.limit:
            self._finish(state, answer)

    def _force(self, answer: _Answer) -> None:
        """Put the next run of the text to say into the answer."""
        assert answer.runs is not None
        for token in answer.runs.pop(0):
            self._take(answer, token)
        answer.run_spoken = 0

    def _take(self, answer: _Answer, token: int) -> None:
        answer.writer.timing.setdefault("first_token", self._clock.time() - answer.since)
        answer.ids.append(token)
        answer.pending.append(token)
        self._outbox += answer.writer.push(token)

    def _finish(self, state: _Session, answer: _Answer) -> None:
        self._outbox.append(answer.writer.finish())
        state.answer = None


def _answer(state: _Session) -> _Answer:
    assert state.answer is not None
    return state.answer


def _common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    for position, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return position
    return min(len(first), len(second))
