"""The public reference implementation, run for the benchmark in an interpreter of its own.

Started by :mod:`agent.bench.reference` as ``python reference_worker.py CHECKOUT LM_DIRECTORY`` with
an interpreter that can import the reference; nothing of this project is imported here, and nothing
of the reference is contained here. One JSON object a line comes in, ``{"command": name, ...}``, and
one goes out, ``{"result": ...}`` or ``{"error": text}``. Arrays travel in .npy and .npz files.

What is changed of the reference, and why:

- it runs on the CPU: ``Tensor.cuda`` gives the tensor itself;
- modules that it imports and does not need to compute (torchaudio, Matcha-TTS's training utilities)
  are stood in for by empty ones;
- flow and vocoder are in eval mode, as in the goldens; it leaves their dropout on;
- a config without object tags gets those of the published one.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import json
import os
import sys
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

_CLASSES = {
    "flow": "cosyvoice.flow.flow.MaskedDiffWithXvec",
    "flow.encoder": "cosyvoice.transformer.encoder.BlockConformerEncoder",
    "flow.length_regulator": "cosyvoice.flow.length_regulator.InterpolateRegulator",
    "flow.decoder": "cosyvoice.flow.flow_matching.ConditionalCFM",
    "flow.decoder.cfm_params": "omegaconf.DictConfig",
    "flow.decoder.estimator": "cosyvoice.flow.decoder.ConditionalDecoder",
    "hift": "cosyvoice.hifigan.generator.HiFTGenerator",
    "hift.f0_predictor": "cosyvoice.hifigan.f0_predictor.ConvRNNF0Predictor",
}
# Fields of the shipped checkpoint's flow that the reference does not know.
_UNKNOWN = ("mel_mean", "mel_std")
_HOP = 256
# As on the other side: CPU time, so that what else runs on the machine counts little.
_clock = time.process_time


def _stand_in(name: str, **members: object) -> None:
    module = types.ModuleType(name)
    # Transformers asks which packages there are.
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__dict__.update(members)
    sys.modules[name] = module


def _prepare(checkout: Path) -> None:
    """Make the reference importable, without what it imports but does not compute with."""
    import logging

    for path in (checkout / "third_party" / "Matcha-TTS", checkout):
        sys.path.insert(0, str(path))
    try:
        importlib.import_module("torchaudio")
    except (ImportError, OSError):
        _stand_in("torchaudio", transforms=types.SimpleNamespace(Resample=object))
    _stand_in("matcha.utils")
    _stand_in("matcha.utils.pylogger", get_pylogger=logging.getLogger)
    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]


def _tagged(config: Path, folder: Path) -> Path:
    """A config that HyperPyYAML makes modules of: ``config`` itself, or a copy with tags."""
    import yaml

    text = config.read_text(encoding="utf-8")
    if "!new:" in text:
        return config

    class Tagged(dict):  # type: ignore[type-arg]
        tag = ""

    class Dumper(yaml.SafeDumper):
        pass

    Dumper.add_representer(Tagged, lambda d, value: d.represent_mapping(value.tag, value))

    def marked(value: Any, place: str) -> Any:
        if not isinstance(value, dict):
            return value
        inner = {
            name: marked(item, f"{place}.{name}" if place else name)
            for name, item in value.items()
            if name not in _UNKNOWN
        }
        if place not in _CLASSES:
            return inner
        tagged = Tagged(inner)
        tagged.tag = f"!new:{_CLASSES[place]}"
        return tagged

    plain = yaml.safe_load(text)
    plain.pop("decoding", None)
    out = folder / "reference_config.yaml"
    out.write_text(yaml.dump(marked(plain, ""), Dumper=Dumper, sort_keys=False), encoding="utf-8")
    return out


class _Features:
    """The reference's feature extractor, kept on the CPU."""

    def __init__(self, extractor: Any):
        self._extractor = extractor
        self.hop_length = extractor.hop_length

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        features = self._extractor(*arguments, **options | {"device": "cpu"})
        features.to = lambda **_: features
        return features


class Worker:
    """One checkpoint at a time in the reference's own classes."""

    def __init__(self, checkout: Path, lm: Path | None):
        _prepare(checkout)
        self._checkout = checkout
        self._lm = lm
        self._loaded: dict[str, Any] = {}

    def hello(self) -> dict[str, Any]:
        """Versions, and which parts can be run: None, or the reason why not."""
        parts: dict[str, str | None] = {}
        for part, importing in (
            ("tokenizer", self._tokenizer_classes),
            ("language_model", self._language_model_classes),
            ("decoder", self._decoder_class),
        ):
            try:
                importing()
                parts[part] = None
            except Exception as error:  # whatever a foreign module raises, the rest still runs
                parts[part] = f"{type(error).__name__}: {error}"
        versions = {"torch": torch.__version__, "python": sys.version.split()[0]}
        for name in ("transformers", "diffusers"):
            if name in sys.modules:
                versions[name] = sys.modules[name].__version__
        return {"parts": parts, "versions": versions, "threads": torch.get_num_threads()}

    def _tokenizer_classes(self) -> tuple[Any, Any, Any]:
        from speech_tokenizer.modeling_whisper import WhisperVQEncoder
        from speech_tokenizer.utils import extract_speech_token
        from transformers import WhisperFeatureExtractor

        return WhisperVQEncoder, WhisperFeatureExtractor, extract_speech_token

    def _language_model_classes(self) -> Any:
        if self._lm is None:
            raise FileNotFoundError("no directory with modeling_chatglm.py was given")
        if not (self._lm / "modeling_chatglm.py").is_file():
            raise FileNotFoundError(f"{self._lm} has no modeling_chatglm.py")
        # The two files import each other as members of a package, whatever the directory is called.
        package = types.ModuleType("reference_chatglm")
        package.__path__ = [str(self._lm)]
        sys.modules.setdefault("reference_chatglm", package)
        return importlib.import_module("reference_chatglm.modeling_chatglm")

    def _decoder_class(self) -> Any:
        for name in _CLASSES.values():
            importlib.import_module(name.rpartition(".")[0])
        from flow_inference import AudioDecoder

        return AudioDecoder

    def load(self, part: str, path: str, folder: str) -> dict[str, Any]:
        """Load one part of a checkpoint in place of the one loaded before."""
        directory = Path(path)
        if part == "tokenizer":
            encoder, extractor, _ = self._tokenizer_classes()
            self._loaded[part] = (
                encoder.from_pretrained(directory).eval(),
                _Features(extractor.from_pretrained(directory)),
            )
        elif part == "language_model":
            made = self._language_model_classes().ChatGLMForConditionalGeneration
            self._loaded[part] = made.from_pretrained(directory, torch_dtype=torch.float32).eval()
        else:
            config = _tagged(directory / "config.yaml", Path(folder))
            decoder = self._decoder_class()(
                str(config), str(directory / "flow.pt"), str(directory / "hift.pt"), device="cpu"
            )
            decoder.flow.eval()
            decoder.hift.eval()
            self._loaded[part] = decoder
        return {}

    def _extract(self, audio: str) -> tuple[list[int], float]:
        encoder, features = self._loaded["tokenizer"]
        extract = self._tokenizer_classes()[2]
        samples = torch.from_numpy(np.load(audio))[None]
        begin = _clock()
        ids = extract(encoder, features, [(samples, 16_000)])[0]
        return ids, _clock() - begin

    def tokens(self, audio: str) -> dict[str, Any]:
        """Tokenise a whole recording (.npy, float32 [n] at 16 kHz)."""
        ids, seconds = self._extract(audio)
        return {"ids": ids, "seconds": seconds}

    def _generate(self, ids: list[int], count: int) -> tuple[list[int], list[float], float]:
        """Greedy ids whatever their meaning, when each came, and when it began."""
        from transformers import GenerationConfig
        from transformers.generation.streamers import BaseStreamer

        times: list[float] = []

        class Clock(BaseStreamer):  # type: ignore[misc]
            def put(self, value: Any) -> None:
                times.append(_clock())

            def end(self) -> None:
                pass

        model = self._loaded["language_model"]
        # The published generation settings, but greedy, and no id ends the answer.
        settings = GenerationConfig(max_new_tokens=count, do_sample=False)
        model.generation_config = settings
        tokens = torch.tensor([ids])
        begin = _clock()
        with torch.inference_mode():
            out = model.generate(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                position_ids=torch.arange(len(ids))[None],
                generation_config=settings,
                streamer=Clock(),
            )
        return out[0, len(ids) :].tolist(), times[1:], begin  # the first is the prompt itself

    def generate(self, ids: list[int], count: int) -> dict[str, Any]:
        """Continue a prompt greedily; seconds of the prefill with the first id, and of the rest."""
        made, times, begin = self._generate(ids, count)
        return {"ids": made, "first": times[0] - begin, "seconds": times[-1] - times[0]}

    def first_audio(
        self,
        audio: str,
        before: list[int],
        offset: int,
        after: list[int],
        steps: int,
        codes: list[int],
    ) -> dict[str, Any]:
        """From the end of a turn to the first audio, as its demo goes about it."""
        begin = _clock()
        heard, tokenising = self._extract(audio)
        _, times, started = self._generate([*before, *(offset + i for i in heard), *after], steps)
        generated = _clock()
        decoder = self._loaded["decoder"]
        with torch.inference_mode():
            speech, _ = decoder.token2wav(torch.tensor([codes]), uuid="first", finalize=False)
        end = _clock()
        decoder.hift_cache_dict.pop("first", None)
        decoder.mel_overlap_dict.pop("first", None)
        return {
            "seconds": end - begin,
            "parts": {
                "tokenise": tokenising,
                "prefill": times[0] - started,
                "steps": times[-1] - times[0],
                "decode": end - generated,
            },
            "samples": speech.shape[-1],
        }

    def stream(self, codes: list[int], only_last: bool, one_step: bool) -> dict[str, Any]:
        """An answer in blocks of the encoder's size; seconds of each block.

        With ``only_last``, the flow and the vocoder of all blocks but the last are stood in for by
        zeros of the right shapes: the last block meets what it would meet, and costs what it costs.
        With ``one_step``, the first Euler step of a block is timed and counted for every step:
        they are all the same work.
        """
        decoder = self._loaded["decoder"]
        blocks = -(-len(codes) // decoder.flow.encoder.block_size)
        seconds: list[float] = []
        decode = decoder.token2wav

        def timed(*arguments: Any, **options: Any) -> Any:
            with (
                _silenced(decoder, only_last and len(seconds) < blocks - 1),
                _first_step(decoder.flow.decoder.estimator, one_step) as skipped,
            ):
                begin = _clock()
                result = decode(*arguments, **options)
                seconds.append(_clock() - begin + sum(skipped))
                return result

        decoder.token2wav = timed
        try:
            with torch.inference_mode():  # it writes into what its flow made in that mode
                speech = decoder.stream_inference(torch.tensor([codes]))
        finally:
            del decoder.token2wav
        return {"seconds": seconds, "samples": speech.shape[-1]}

    def mel(self, codes: list[int], out: str) -> dict[str, Any]:
        """Flow of whole tokens: writes ``mel`` and the noise ``z`` that it began with."""
        flow = self._loaded["decoder"].flow
        drawn: list[torch.Tensor] = []
        plain = torch.randn_like

        def recorded(*arguments: Any, **options: Any) -> torch.Tensor:
            drawn.append(plain(*arguments, **options))
            return drawn[-1]

        torch.randn_like = recorded
        try:
            mel = flow.inference(
                token=torch.tensor([codes]),
                token_len=torch.tensor([len(codes)]),
                prompt_token=torch.zeros(1, 0, dtype=torch.int64),
                prompt_token_len=torch.tensor([0]),
                prompt_feat=torch.zeros(1, 0, 80),
                prompt_feat_len=torch.tensor([0]),
                embedding=torch.zeros(1, 192),
            )
        finally:
            torch.randn_like = plain
        np.savez(out, mel=mel[0].numpy(), z=drawn[0][0].numpy())
        return {}

    def vocode(self, given: str, out: str) -> dict[str, Any]:
        """Vocoder with a given source: reads ``mel`` and ``source``, writes the waveform."""
        arrays = np.load(given)
        wave, _ = self._loaded["decoder"].hift.inference(
            mel=torch.from_numpy(arrays["mel"])[None],
            cache_source=torch.from_numpy(arrays["source"])[None],
        )
        np.save(out, wave[0].numpy())
        return {}


@contextmanager
def _first_step(estimator: Any, really: bool) -> Iterator[list[float]]:
    """Run only the first two calls (both halves of the guidance); gives what the others saved."""
    skipped: list[float] = []
    if not really:
        yield skipped
        return
    forward = estimator.forward
    times: list[float] = []
    last: list[torch.Tensor] = []

    def counted(*arguments: Any, **options: Any) -> torch.Tensor:
        if len(times) == 2:
            skipped.append(sum(times) / 2)
            return last[-1]
        begin = _clock()
        last.append(forward(*arguments, **options))
        times.append(_clock() - begin)
        return last[-1]

    estimator.forward = counted
    try:
        yield skipped
    finally:
        del estimator.forward


@contextmanager
def _silenced(decoder: Any, really: bool) -> Iterator[None]:
    """Stand in zeros for what the flow and the vocoder make."""
    if not really:
        yield
        return

    def flow(token: Any, prompt_token: Any, prompt_feat: Any, **_: Any) -> torch.Tensor:
        count = token.shape[1] + prompt_token.shape[1]
        frames = int(count / decoder.flow.input_frame_rate * 22_050 / _HOP)
        return torch.zeros(1, 80, frames - prompt_feat.shape[1])

    def hift(mel: torch.Tensor, **_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        samples = mel.shape[2] * _HOP
        return torch.zeros(1, samples), torch.zeros(1, 1, samples)

    decoder.flow.inference, decoder.hift.inference = flow, hift
    try:
        yield
    finally:
        del decoder.flow.inference, decoder.hift.inference


def main() -> None:
    """Answer commands until the input ends."""
    # The reference prints: its words go to the log, ours alone to the pipe.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    torch.set_num_threads(1)
    worker = Worker(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2] else None)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer: Callable[..., dict[str, Any]] = getattr(worker, request.pop("command"))
            reply: dict[str, Any] = {"result": answer(**request)}
        except Exception as error:
            import traceback

            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
