"""Silero and smart-turn, loaded once for the process and shared by its calls.

Pipecat loads both models anew for every call, 140 ms of blocking work. Their ONNX Runtime sessions
hold no call's state and may run from many threads at once, so they are shared; the recurrent state
and audio buffers are each call's own. Silero runs in the event loop (agent.voice_activity),
smart-turn in a thread of the call.

The two subclasses replace Pipecat's constructors, which load, and how Silero is asked; they rest on
attributes of Pipecat 1.14, to which the package is pinned.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime
from pipecat.audio.turn.base_turn_analyzer import EndOfTurnState
from pipecat.audio.turn.smart_turn.base_smart_turn import BaseSmartTurn, SmartTurnParams
from pipecat.audio.turn.smart_turn.local_smart_turn_v3 import LocalSmartTurnAnalyzerV3
from pipecat.audio.utils import exp_smoothing
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADAnalyzer, VADParams, VADState

from agent.settings import TurnSettings, VADSettings
from agent.voice_activity import SAMPLE_RATE, WINDOW, SharedSilero, SpeechMemory

_WINDOW_BYTES = 2 * WINDOW
_UNHEARD_WINDOWS = 12
"""Windows of a quiet line that the model hears before speech: 0.4 s. The first three or four are
the speech itself, until it counts as loud."""
_LOUDNESS_WINDOWS = 13
"""Windows that Pipecat measures loudness over: 0.4 s."""


@dataclass(frozen=True)
class Pauses:
    """Who wants to know of a caller's pauses.

    Attributes:
        seconds: Silence that makes a pause.
        tell: Called in the event loop, with True when one has begun and False when speech goes on.
    """

    seconds: float
    tell: Callable[[bool], None]


class _SharedVAD(SileroVADAnalyzer):
    """Also tells of pauses that are too short for the VAD to call them silence."""

    def __init__(self, silero: SharedSilero, params: VADParams, pauses: Pauses | None):
        VADAnalyzer.__init__(self, sample_rate=SAMPLE_RATE, params=params)
        self._silero = silero
        self._pauses = pauses
        self._pausing = False
        self._memory = SpeechMemory()
        # Pipecat resets its model in clear silence: here, what belongs to this call.
        self._model = self._memory  # type: ignore[assignment]
        self._windows_since_reset = 0
        self._low_confidence_windows = 0
        self._waiting = b""
        self._confidence = self._loudness = 0.0
        self._unheard: deque[bytes] = deque(maxlen=_UNHEARD_WINDOWS)
        self._skipped = 0
        self._zeros = 0

    @property
    def state(self) -> VADState:
        """What it has made of the audio so far."""
        return self._vad_state

    async def analyze_audio(self, buffer: bytes) -> VADState:
        """Analyse audio; tell of a pause that has lasted long enough, or of its end."""
        self._waiting += buffer
        while len(self._waiting) >= _WINDOW_BYTES:
            window, self._waiting = self._waiting[:_WINDOW_BYTES], self._waiting[_WINDOW_BYTES:]
            self._loudness = self._loudness_with(window)
            self._confidence = await self._confidence_of(window)
            self._run_analyzer(window)
        if self._pauses is not None:
            self._tell_pauses(self._pauses)
        return self._vad_state

    def voice_confidence(self, buffer: bytes) -> float:
        """What the model said of the window."""
        return self._confidence

    def _get_smoothed_volume(self, audio: bytes) -> float:
        return self._loudness

    def _loudness_with(self, window: bytes) -> float:
        self._volume_tracker.update(window, SAMPLE_RATE)
        self._zeros = self._zeros + 1 if window.count(0) == len(window) else 0
        # Nothing but zeros has no loudness; measuring it costs half of what the model does.
        loudness = 0.0 if self._zeros >= _LOUDNESS_WINDOWS else self._volume_tracker.volume
        return exp_smoothing(loudness, self._prev_volume, self._smoothing_factor)

    async def _confidence_of(self, window: bytes) -> float:
        """What the model says of the next window; 0 if that cannot change anything.

        A window that is too quiet is no speech, whatever the model says. It is kept, and the model
        hears the last of them when the line is loud again; if there were more, as after one of the
        resets that it gets in silence anyway.
        """
        self._unheard.append(window)
        if self._loudness < self._params.min_volume:
            self._skipped += 1
            return 0.0
        if self._skipped >= _UNHEARD_WINDOWS:
            self._memory.reset_states()
            self._windows_since_reset = self._low_confidence_windows = 0
        self._skipped = 0
        confidence = 0.0
        while self._unheard:
            samples = np.frombuffer(self._unheard.popleft(), "<i2")
            confidence = await self._silero.ask(samples, self._memory)
            self._maybe_reset_model(confidence)
        return confidence

    def _tell_pauses(self, pauses: Pauses) -> None:
        if self._vad_state is VADState.SPEAKING and self._pausing:
            self._pausing = False
            pauses.tell(False)
        elif self._vad_state is VADState.STOPPING and not self._pausing:
            silence = self._vad_stopping_count * self._vad_frames / SAMPLE_RATE
            if silence >= pauses.seconds:
                self._pausing = True
                pauses.tell(True)


class _SharedSmartTurn(LocalSmartTurnAnalyzerV3):
    """Asks smart-turn not only when the VAD reports silence, but again while the silence lasts."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        params: SmartTurnParams,
        ask_again_secs: float,
    ):
        BaseSmartTurn.__init__(self, sample_rate=SAMPLE_RATE, params=params)
        self._session = session
        self._log_data = False
        self._ask_again_ms = 1000.0 * ask_again_secs
        self._ask_at_ms = self._ask_again_ms
        self._asked: Future[tuple[EndOfTurnState, Any]] | None = None

    def append_audio(self, buffer: bytes, is_speech: bool) -> EndOfTurnState:
        """Take audio; in silence, ask in the background and report the answer when it is there."""
        state = super().append_audio(buffer, is_speech)
        if is_speech or not self._speech_triggered:
            self._forget_question()
        elif self._asked is not None:
            if self._asked.done():
                verdict, _ = self._asked.result()
                self._asked = None
                if verdict is EndOfTurnState.COMPLETE:
                    self._clear(verdict)
                    return verdict
        elif self._silence_ms >= self._ask_at_ms:
            self._ask_at_ms = self._silence_ms + self._ask_again_ms
            self._asked = self._model_executor.submit(
                self._process_speech_segment, list(self._audio_buffer)
            )
        return state

    def _clear(self, turn_state: EndOfTurnState) -> None:
        super()._clear(turn_state)
        self._forget_question()

    def _forget_question(self) -> None:
        self._asked = None
        self._ask_at_ms = self._ask_again_ms


@dataclass(frozen=True)
class SharedModels:
    """What decides on speech and turns, for all calls of a process; see :meth:`load`."""

    silero: SharedSilero
    smart_turn: onnxruntime.InferenceSession

    @classmethod
    def load(cls) -> "SharedModels":
        """Load both models, one thread each, and run each once so that no call pays for it."""
        silero = SharedSilero(SileroVADAnalyzer(sample_rate=SAMPLE_RATE)._model.session)
        silero.judge(np.zeros(WINDOW, dtype=np.int16), SpeechMemory())
        analyzer = LocalSmartTurnAnalyzerV3(sample_rate=SAMPLE_RATE, cpu_count=1)
        analyzer._session = _without_overflow(analyzer._session)
        analyzer._predict_endpoint(np.zeros(SAMPLE_RATE, dtype=np.float32))
        return cls(silero, analyzer._session)

    def vad(self, settings: VADSettings, pauses: Pauses | None = None) -> _SharedVAD:
        """A voice activity detector for one call, at 16 kHz."""
        params = VADParams(
            confidence=settings.confidence,
            start_secs=settings.start_secs,
            stop_secs=settings.stop_secs,
            min_volume=settings.min_volume,
        )
        return _SharedVAD(self.silero, params, pauses)

    def turn_analyzer(self, turn: TurnSettings, vad: VADSettings) -> LocalSmartTurnAnalyzerV3:
        """An end-of-turn detector for one call, at 16 kHz."""
        # Smart-turn counts silence from when the VAD reports it, stop_secs after it began.
        patience = max(turn.max_wait_secs - vad.stop_secs, 0.0)
        params = SmartTurnParams(stop_secs=patience)
        return _SharedSmartTurn(self.smart_turn, params, turn.ask_again_secs)


def _without_overflow(session: onnxruntime.InferenceSession) -> onnxruntime.InferenceSession:
    """The same quantised model, summed up without overflow.

    On processors with AVX2 but no VNNI, ONNX Runtime's default 8-bit kernels saturate at 16 bits;
    smart-turn then misjudges one turn in three. The other kernels cost no measurable time.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(session._model_path, sess_options=options)
