"""The reference implementation at the other end of a pipe: see :mod:`agent.bench.reference_worker`.

It stays loaded between measurements, so that these can take turns with ours.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Part: TypeAlias = Literal["tokenizer", "language_model", "decoder"]

WORKER = Path(__file__).with_name("reference_worker.py")


class ReferenceFailure(RuntimeError):
    """The reference did not do what it was asked for; says what it said."""


class Reference:
    """A worker process with the reference in it; a context that ends the process.

    Args:
        checkout: Directory of a GLM-4-Voice checkout, with Matcha-TTS in third_party/Matcha-TTS.
        python: Interpreter that can import what the reference imports.
        language_model: Directory with modeling_chatglm.py and configuration_chatglm.py, the remote
            code of the published language model, which the checkout lacks; None: not measured.
        worker: The script to run.

    Attributes:
        missing: For each part, None if it can be run, or the reason why not.
        versions: What it runs on.

    Raises:
        ReferenceFailure: The process does not start.
    """

    def __init__(
        self,
        checkout: Path,
        python: Path,
        language_model: Path | None = None,
        worker: Path = WORKER,
    ):
        self._folder = tempfile.TemporaryDirectory(prefix="bench-")
        self._log = Path(self._folder.name) / "stderr"
        self._files = 0
        self._loaded: dict[Part, Path] = {}
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        with self._log.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    [str(python), str(worker), str(checkout), str(language_model or "")],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env=environment | {"OMP_NUM_THREADS": "1"},
                )
            except OSError as error:
                self._folder.cleanup()
                raise ReferenceFailure(f"{python}: {error}") from error
        try:
            hello = self.call("hello")
        except ReferenceFailure:
            self.close()
            raise
        self.missing: Mapping[Part, str | None] = hello["parts"]
        self.versions: Mapping[str, str] = hello["versions"]

    def __enter__(self) -> Reference:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                # A process that died may have left unread what was written to it.
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._folder.cleanup()

    def call(self, command: str, **arguments: object) -> dict[str, Any]:
        """Run one command of the worker.

        Raises:
            ReferenceFailure: It failed or the process is gone.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"command": command, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the reply, or that there is none, says why
        line = self._process.stdout.readline()
        if not line:
            last = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-1:]
            raise ReferenceFailure(f"{command}: the process ended ({' '.join(last)})")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise ReferenceFailure(f"{command}: {reply['error']}")
        result: dict[str, Any] = reply["result"]
        return result

    def load(self, part: Part, checkpoint: Path) -> None:
        """Have one part of a checkpoint loaded; nothing happens if it is."""
        if self._loaded.get(part) == checkpoint:
            return
        folders = {"tokenizer": "speech_tokenizer", "decoder": "speech_decoder"}
        path = checkpoint / folders.get(part, part)
        self.call("load", part=part, path=str(path.resolve()), folder=self._folder.name)
        self._loaded[part] = checkpoint

    def path(self, suffix: str) -> Path:
        """A new file name that both sides can use."""
        self._files += 1
        return Path(self._folder.name) / f"{self._files}{suffix}"

    def share(self, array: npt.NDArray[Any]) -> str:
        """Write an array where the worker can read it; returns the file's name."""
        path = self.path(".npy")
        np.save(path, array)
        return str(path)
