"""Command line of the evaluation."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from agent.training.evaluation import __doc__ as about
from agent.training.evaluation.measure import NANO_LINES, measure
from agent.training.evaluation.report import markdown
from agent.training.line import read_line


def main() -> None:
    """Evaluate a checkpoint from the command line."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0] if about else None)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="a rendered corpus")
    parser.add_argument(
        "--lines", type=Path, nargs="+", default=NANO_LINES, help="YAML files of the line"
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--limit", type=int, help="held-out recordings; default all")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    lines = [read_line(path) for path in arguments.lines]
    figures = measure(arguments.checkpoint, arguments.data, lines, arguments.limit)
    arguments.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(markdown(figures) + "\n")


if __name__ == "__main__":
    main()
