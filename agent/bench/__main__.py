"""``python -m agent.bench``: both sides on the same weights in the same run, one thread each.

Exit codes: 0 measured, whatever the figures; 1 both sides do not compute the same, or the reference
failed; 2 what was asked for cannot be done.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from agent.bench.agreement import check
from agent.bench.bench import Bench, Group, Weights
from agent.bench.reference import Reference, ReferenceFailure
from agent.bench.table import NOT_HERE, Report, Result
from agent.bench.weights import random_checkpoint
from agent.settings import SHIPPED_CHECKPOINT
from agent.speech.checkpoint import CheckpointError

# A row group is a module with run(bench); its rows come in this order.
GROUPS = {
    "listening": "agent.bench.listening",
    "first-audio": "agent.bench.first_audio",
    "decoder": "agent.bench.decoding",
    "language-model": "agent.bench.generating",
    "prompt": "agent.bench.prompt_window",
    "settings": "agent.bench.settings_cost",
    "playback": "agent.bench.playback",
    "gateway": "agent.bench.gateway_price",
    "isolation": "agent.bench.isolation",
}

if TYPE_CHECKING:
    from agent.bench import (
        decoding,
        first_audio,
        gateway_price,
        generating,
        isolation,
        listening,
        playback,
        prompt_window,
        settings_cost,
    )

    _CHECKED: tuple[Group, ...] = (
        listening,
        first_audio,
        decoding,
        generating,
        prompt_window,
        settings_cost,
        playback,
        gateway_price,
        isolation,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    begin = time.monotonic()
    try:
        with ExitStack() as stack:
            bench = _bench(options, stack)
            report, same = measure(bench, options.only or list(GROUPS))
            report.facts["load when it ended"] = f"{os.getloadavg()[0]:.1f}"
            report.facts["took"] = f"{time.monotonic() - begin:.0f} s"
    except (ValueError, CheckpointError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except ReferenceFailure as error:
        print(f"bench: the reference failed: {error}", file=sys.stderr)
        return 1
    folder = write(report, options.out)
    print(report.markdown())
    print(f"written to {folder}")
    return 0 if same else 1


def measure(bench: Bench, groups: Sequence[str]) -> tuple[Report, bool]:
    """Compare both sides, then measure row groups.

    Returns:
        The report, and whether both sides compute the same.
    """
    bench.progress("do both sides compute the same?")
    lines, same = check(bench)
    results: list[Result] = []
    for name in groups:
        group: Group = importlib.import_module(GROUPS[name])
        results += group.run(bench)
    return Report(_facts(bench), tuple(lines), tuple(results)), same


def write(report: Report, out: Path) -> Path:
    """Write ``table.md`` and ``table.json`` into a new directory named after the time."""
    folder = out / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(report.markdown(), encoding="utf-8")
    text = json.dumps(report.json(), indent=1)
    (folder / "table.json").write_text(text + "\n", encoding="utf-8")
    return folder


def _bench(options: argparse.Namespace, stack: ExitStack) -> Bench:
    reference = None
    if options.reference is not None:
        if not (options.reference / "flow_inference.py").is_file():
            raise ValueError(f"--reference {options.reference} has no flow_inference.py")
        reference = stack.enter_context(
            Reference(options.reference, options.reference_python, options.reference_lm)
        )
    random = options.weights or random_checkpoint(options.out / "weights")
    return Bench(
        mid_size=Weights("mid-size", random),
        nano=Weights("nano", SHIPPED_CHECKPOINT),
        reference=reference,
        quick=options.quick,
        recordings=options.wav,
        progress=_Progress(),
    )


class _Progress:
    """Says what is being measured, and how long after the start."""

    def __init__(self) -> None:
        self._begin = time.monotonic()

    def __call__(self, line: str) -> None:
        print(f"{time.monotonic() - self._begin:6.0f} s  {line}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m agent.bench", description="Both sides on the same weights, one thread each."
    )
    parser.add_argument("--reference", type=Path, help="a GLM-4-Voice checkout")
    parser.add_argument(
        "--reference-python",
        type=Path,
        default=Path(sys.executable),
        help="an interpreter that can import it (default: this one)",
    )
    parser.add_argument(
        "--reference-lm",
        type=Path,
        help="directory with the published modeling_chatglm.py and configuration_chatglm.py",
    )
    parser.add_argument("--only", nargs="+", choices=GROUPS, help="row groups (default: all)")
    parser.add_argument("--quick", action="store_true", help="once each, shorter answers")
    parser.add_argument("--weights", type=Path, help="a checkpoint in place of the random one")
    parser.add_argument("--wav", type=Path, nargs="*", default=[], help="more 16 kHz mono speech")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="(runs/bench)")
    return parser


def _facts(bench: Bench) -> dict[str, str]:
    versions = {"python": platform.python_version(), "torch": torch.__version__}
    there = NOT_HERE
    if bench.reference is not None:
        there = ", ".join(f"{name} {value}" for name, value in bench.reference.versions.items())
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "machine": _machine(),
        "ours": ", ".join(f"{name} {value}" for name, value in versions.items()),
        "reference": there,
        "threads": f"{torch.get_num_threads()} on each side",
        "seconds": "CPU time of the process that works, which is the time that passes if idle",
        "run": "quick" if bench.quick else "full",
    }


def _machine() -> str:
    name = platform.machine()
    cpus = Path("/proc/cpuinfo")
    if cpus.is_file():
        models = [
            line.partition(":")[2].strip()
            for line in cpus.read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ]
        name = models[0] if models else name
    return f"{name}, {os.cpu_count()} cores"


if __name__ == "__main__":
    sys.exit(main())
