"""Many conversations through one language model: continuous batching, stop, lead limit."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Protocol

import numpy.typing as npt
import torch

from agent.speech.answer import PIECE, AnswerPiece, AnswerWriter
from agent.speech.dialogue import Dialogue, DialogueWriter, Turn
from agent.speech.language_model import LanguageModel
from agent.speech.prompt import Interleave
from agent.speech.repetition import RepetitionGuard
from agent.speech.request import TurnRequest
from agent.speech.sampling import Choice, choose
from agent.speech.session import Answer, Session

__all__ = ["AnswerPiece", "CapacityError", "Clock", "GenerationEngine"]

_LISTENING_BUDGET = 64
"""Most tokens that are read ahead in a step in which an answer waits for its next token."""


class Clock(Protocol):
    """Tells the time in seconds; only differences matter."""

    def time(self) -> float:
        """The time now."""


class _Monotonic:
    def time(self) -> float:
        return time.monotonic()


class CapacityError(RuntimeError):
    """The engine holds as many sessions as it may."""


class GenerationEngine:
    """Answers turns of many sessions; each :meth:`step` is one pass of all that can go on.

    Not thread-safe and without threads: one owner calls everything. Each session keeps its history
    and the cache of it, so a turn costs only its own tokens, and of those only what :meth:`listen`
    was not told while they were spoken; an edit of the history costs only what follows the edit.

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
        self._lead_limit = lead_limit
        self._prefill_budget = prefill_budget
        self._time_to_live = time_to_live
        self._max_sessions = max_sessions
        self._interleave = interleave or Interleave()
        self._clock = clock or _Monotonic()
        self._dialogues = DialogueWriter(model, self._interleave)
        self._ends = frozenset({*model.config.eos_token_id, self._dialogues.prompt.user})
        # Ranges of ids: what a forced answer may choose is speech, and once its words are said also
        # an end; what a transcript may is the rest.
        start = model.audio_offset
        stop = start + self._tokenizer.audio_count
        self._speech = ((start, stop),)
        self._speech_or_end = (*self._speech, *((end, end + 1) for end in sorted(self._ends)))
        self._not_speech = ((0, start), (stop, model.config.padded_vocab_size))
        self._sessions: dict[str, Session] = {}
        self._outbox: list[AnswerPiece] = []

    @property
    def idle(self) -> bool:
        """Whether :meth:`step` has nothing to do until something else is called."""
        return not self._outbox and not any(map(self._runnable, self._sessions.values()))

    def holds(self, session: str) -> bool:
        """Whether there is a session of this name; may be asked from any thread."""
        return session in self._sessions

    @property
    def sessions(self) -> int:
        """Conversations held."""
        return sum(not state.transcript for state in self._sessions.values())

    def history(self, session: str) -> list[int]:
        """All ids of a conversation so far, as a fresh prompt would have them.

        Raises:
            KeyError: No such session.
        """
        return self._dialogues.ids(self._sessions[session].dialogue)

    def listen(
        self, session: str, tokens: npt.ArrayLike, request: TurnRequest | None = None
    ) -> None:
        """Read the turn that is being spoken, as far as its tokens are final.

        The next steps fill the session's cache, behind the answers of all sessions. That only saves
        time: what :meth:`submit` then does is the same, whatever was listened to. While the
        session's last answer still runs nothing is read.

        Args:
            session: A new name begins a conversation.
            tokens: int64 [m], the codes of the turn so far, from its beginning.
            request: The turn's settings, as far as they are known.

        Raises:
            ValueError: Codes out of range, or a turn too long for the model.
            CapacityError: A new session where there is no room for one.
        """
        request = replace(request or TurnRequest(), listen=True)
        state = self._sessions.get(session)
        dialogue = self._dialogue(session, request)
        turn = Turn(self._dialogues.user(tokens, request))
        ids = self._dialogues.ids(self._dialogues.continued(dialogue, turn, request))
        state = state or self._open(session)
        state.touched = self._clock.time()
        if state.answer is None:
            state.expect(ids)

    def submit(
        self,
        session: str,
        tokens: npt.ArrayLike,
        request: TurnRequest | None = None,
        name: str = "",
    ) -> None:
        """Start a session's next answer; an answer that still runs is stopped first.

        Its pieces come from the next calls of :meth:`step`, after the last piece of a stopped one.

        Args:
            session: A new name begins a conversation.
            tokens: int64 [m], the codes of what the caller said; may be empty when the request
                has an instruction, a tool's result or a text to say.
            request: Settings of the turn.
            name: Of the answer, for :meth:`retract`.

        Raises:
            ValueError: Codes out of range, an empty turn, one too long for the model, or no
                history where the request says that there is one. The session is as it was.
            CapacityError: A new session where there is no room for one.
        """
        request = request or TurnRequest()
        turn = Turn(self._dialogues.user(tokens, request), name=name)
        state = self._sessions.get(session)
        dialogue = self._dialogues.continued(self._dialogue(session, request), turn, request)
        runs = None
        if request.say is not None:
            text = self._tokenizer.encode_plain(request.say)
            runs = [list(run) for run, _ in self._interleave.runs(text)]

        state = state or self._open(session)
        self.stop(session)
        state.dialogue = dialogue
        if request.seed is not None:
            state.random.manual_seed(request.seed)
        self._begin(session, state, request, runs)

    def recall(self, session: str, tokens: npt.ArrayLike, request: TurnRequest) -> None:
        """Take a turn that was answered elsewhere, and its answer, into a session's history.

        The next steps read it, behind the answers of all sessions.

        Args:
            session: A new name begins a conversation.
            tokens: As of :meth:`submit`.
            request: As the turn's was, and ``answered``.

        Raises:
            ValueError: As of :meth:`submit`, or there is no answer.
            CapacityError: A new session where there is no room for one.
        """
        if request.answered is None:
            raise ValueError("request field 'answered' is null, expected an answer")
        answer = self._dialogues.answer(request.answered)
        turn = Turn(self._dialogues.user(tokens, request), answer)
        dialogue = self._dialogues.continued(self._dialogue(session, request), turn, request)
        state = self._sessions.get(session) or self._open(session)
        self.stop(session)
        state.dialogue = dialogue
        state.touched = self._clock.time()
        state.expect(self._dialogues.ids(dialogue))

    def retract(self, session: str, name: str) -> bool:
        """Take back a turn: its answer ends as with :meth:`stop` and the history never had it.

        Args:
            session: Whose.
            name: The answer's; nothing happens unless the session's last turn bears it.

        Returns:
            Whether it does.
        """
        state = self._sessions.get(session)
        if state is None or not state.dialogue.turns or state.dialogue.turns[-1].name != name:
            return False
        self.stop(session)
        state.dialogue = state.dialogue.without_last()
        return True

    def transcribe(self, session: str, transcript: str) -> None:
        """Write down the caller's words in a session's last turn, beside everything else.

        The text comes from the next steps in pieces whose session is ``transcript``; there is only
        the last piece, empty, if the turn was not spoken or the checkpoint cannot do this.

        Args:
            session: Whose words.
            transcript: A name that is no session's.

        Raises:
            ValueError: The name is taken.
        """
        if transcript in self._sessions:
            raise ValueError(f"{transcript!r} is a session already, expected a new name")
        system = self._model.config.transcription_prompt
        state = self._sessions.get(session)
        turns = state.dialogue.turns if state else ()
        codes = self._dialogues.spoken_codes(turns[-1]) if turns else []
        if not codes or system is None:
            self._outbox.append(self._writer(transcript, TurnRequest()).finish())
            return
        # Nobody speaks more than one text token a speech token.
        request = TurnRequest(system=system, temperature=0.0, max_new_tokens=len(codes) + 8)
        turn = Turn(self._dialogues.prompt.spoken(codes))
        dialogue = self._dialogues.continued(Dialogue(), turn, request)
        writes = self._new_session()
        writes.transcript, writes.dialogue = True, dialogue
        self._sessions[transcript] = writes
        self._begin(transcript, writes, request)

    def stop(self, session: str) -> None:
        """End a session's running answer now; what was generated stays in the history.

        The next :meth:`step` returns its last piece, empty. No answer running: nothing happens.
        """
        state = self._sessions.get(session)
        if state is not None and state.answer is not None:
            self._outbox.append(state.answer.writer.abandon())
            self._end(session, state)

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
        the prefill budget, first come first served, and what is left of it goes to reading along
        with callers who still speak.

        Returns:
            The pieces that became complete, in order for each session.
        """
        self.expire()
        pieces, self._outbox = self._outbox, []
        batch = self._plan()
        if not batch:
            return pieces
        chunks = [state.pending[:count] for _, state, count in batch]
        last = list(itertools.accumulate(map(len, chunks)))
        choosing = [
            (session, state, state.answer, end - 1)
            for (session, state, count), end in zip(batch, last, strict=True)
            if state.answer is not None and count == len(state.pending)
        ]
        device = self._model.device
        rows = torch.tensor([row for *_, row in choosing], dtype=torch.int64, device=device)
        with torch.no_grad():
            logits = self._model(
                torch.tensor([i for chunk in chunks for i in chunk], device=device),
                list(map(len, chunks)),
                [state.cache for _, state, _ in batch],
                rows,
            )
        for (_, state, count), chunk in zip(batch, chunks, strict=True):
            state.read += chunk
            del state.pending[:count]
        choices = [self._choice(state, answer) for _, state, answer, _ in choosing]
        tokens = choose(logits, choices)
        for (session, state, answer, _), token in zip(choosing, tokens, strict=True):
            state.touched = self._clock.time()
            self._go_on(session, state, answer, token)
        pieces += self._outbox
        self._outbox = []
        return pieces

    def _dialogue(self, session: str, request: TurnRequest) -> Dialogue:
        """A session's history.

        Raises:
            ValueError: There is none, and the request says that there is.
        """
        state = self._sessions.get(session)
        dialogue = state.dialogue if state else Dialogue()
        if request.goes_on and not dialogue.turns:
            raise ValueError("the history of this session is not held (any more)")
        return dialogue

    def _open(self, session: str) -> Session:
        if self.sessions >= self._max_sessions:
            raise CapacityError(f"{self._max_sessions} sessions are running, no room for another")
        self._sessions[session] = state = self._new_session()
        return state

    def _new_session(self) -> Session:
        generator = torch.Generator(self._model.device)
        generator.seed()
        return Session(self._model.cache(), generator, self._clock.time())

    def _writer(self, session: str, request: TurnRequest) -> AnswerWriter:
        return AnswerWriter(session, self._tokenizer, self._interleave, dict(request.timing))

    def _begin(
        self,
        session: str,
        state: Session,
        request: TurnRequest,
        runs: list[list[int]] | None = None,
    ) -> None:
        """Answer the last turn of a session's dialogue."""
        ids = self._dialogues.ids(state.dialogue)
        state.expect(ids)
        state.touched = self._clock.time()
        state.answer = Answer(
            request=request,
            writer=self._writer(session, request),
            ids=state.dialogue.turns[-1].answer,
            limit=min(request.max_new_tokens, self._model.config.seq_length - len(ids)),
            since=state.touched,
            guard=RepetitionGuard(self._speech[0]),
            runs=runs,
        )
        if runs is not None:
            self._force(state, state.answer)

    def _end(self, session: str, state: Session) -> None:
        """The answer is over."""
        state.answer = None
        state.pending.clear()
        if state.transcript:
            del self._sessions[session]

    def _runnable(self, state: Session) -> bool:
        answer = state.answer
        if answer is None:
            return bool(state.pending)
        return answer.writer.spoken - answer.decoded < self._lead_limit

    def _plan(self) -> list[tuple[str, Session, int]]:
        """Who reads how many tokens in this step."""
        runnable = [item for item in self._sessions.items() if self._runnable(item[1])]
        runnable.sort(key=lambda item: item[1].urgency)
        batch: list[tuple[str, Session, int]] = []
        budget = self._prefill_budget
        for session, state in runnable:
            count = len(state.pending)
            if state.answer is None and batch:
                budget = min(budget, _LISTENING_BUDGET)
            if count > 1 or state.answer is None:
                count = min(count, budget)
                budget -= count
            if count:
                batch.append((session, state, count))
        return batch

    def _choice(self, state: Session, answer: Answer) -> Choice:
        """How an answer's next token is chosen."""
        spans: tuple[tuple[int, int], ...] = ()
        if answer.runs is not None:
            spans = self._speech if answer.runs else self._speech_or_end
        elif state.transcript:
            spans = self._not_speech
        request = answer.request
        barred = answer.guard.barred if request.repetition_guard else set()
        return Choice(request.temperature, request.top_p, state.random, spans, barred)

    def _go_on(self, session: str, state: Session, answer: Answer, token: int) -> None:
        """See what the next token completes."""
        if token in self._ends:
            self._finish(session, state, answer)
            return
        self._take(state, answer, [token])
        if answer.runs is not None:
            answer.run_spoken += 1
            if answer.runs and answer.run_spoken == self._interleave.speech:
                self._force(state, answer)
        if len(answer.ids) >= answer.limit:
            self._finish(session, state, answer)

    def _force(self, state: Session, answer: Answer) -> None:
        """Put the next run of the text to say into the answer."""
        assert answer.runs is not None
        self._take(state, answer, answer.runs.pop(0))
        answer.run_spoken = 0

    def _take(self, state: Session, answer: Answer, tokens: Iterable[int]) -> None:
        answer.writer.timing.setdefault("first_token", self._clock.time() - answer.since)
        for token in tokens:
            answer.ids.append(token)
            answer.guard.push(token)
            state.pending.append(token)
            self._outbox += answer.writer.push(token)

    def _finish(self, session: str, state: Session, answer: Answer) -> None:
        self._outbox.append(answer.writer.finish())
        self._end(session, state)
