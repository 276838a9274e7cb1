"""``glm-voice evaluate``: its options, and the run from data to report."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.settings import SHIPPED_CHECKPOINT

if TYPE_CHECKING:
    from agent.evaluation.answering import Checkpoint
    from agent.evaluation.hearing import Hearing
    from agent.evaluation.results import TaskResult
    from agent.evaluation.services import ChatJudge

NANO_SET = Path(__file__).resolve().parent / "nano"
TASKS = ("cloze", "qa", "asr", "tts", "chat", "style", "latency")
LAYOUT_NAMES = (
    "librispeech",
    "aishell",
    "llama-questions",
    "web-questions",
    "triviaqa",
    "storycloze",
)
DOMAIN_FILE = "domain.txt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command; loads no model code."""
    parser.add_argument(
        "tasks",
        nargs="*",
        metavar="TASK",
        type=_task,
        help=f"of {', '.join(TASKS)} (default: those the data has)",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default=SHIPPED_CHECKPOINT,
        help="directory with speech_tokenizer/, language_model/, speech_decoder/"
        " (default: the one that ships)",
    )
    parser.add_argument(
        "--data", type=Path, default=NANO_SET, help="directory (default: the nano's small set)"
    )
    parser.add_argument("--layout", choices=LAYOUT_NAMES, help="the data is a published set")
    parser.add_argument("--out", type=Path, required=True, help="directory for the report")
    parser.add_argument("--limit", type=int, help="only so many items of each set")
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, ...")
    parser.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default)")
    parser.add_argument("--seed", type=int, default=0, help="for a temperature (default 0)")
    parser.add_argument("--max-new-tokens", type=int, default=2000, help="longest answer (2000)")
    parser.add_argument("--transcription-prompt", help="for asr, instead of the config's own")
    parser.add_argument(
        "--recogniser-url", help="/v1/audio/transcriptions of a service (default: pocketsphinx)"
    )
    parser.add_argument("--recogniser-model", default="whisper-1", help="(default whisper-1)")
    parser.add_argument(
        "--domain", type=Path, help=f"sentences pocketsphinx expects (default: {DOMAIN_FILE})"
    )
    parser.add_argument("--judge-url", help="for chat: /v1/chat/completions of a service")
    parser.add_argument("--judge-model", default="gpt-4o", help="(default gpt-4o)")


def _task(name: str) -> str:
    if name not in TASKS:
        raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(TASKS)}")
    return name


def evaluate(options: argparse.Namespace) -> int:
    """Run the command.

    Returns:
        0, or 1 if a task that was named, or every task, could not run.

    Raises:
        ValueError: Wrong data or options; names file, line and field.
        CheckpointError: The checkpoint is missing or damaged.
    """
    if options.limit is not None and options.limit < 1:
        raise ValueError(f"--limit is {options.limit}, expected at least 1")
    from agent.evaluation.answering import Checkpoint, Sampling
    from agent.evaluation.layouts import read_items
    from agent.evaluation.page import page
    from agent.evaluation.report import Report
    from agent.evaluation.results import TaskResult

    items = {
        task: read_items(task, options.data, options.layout) for task in options.tasks or TASKS
    }
    items = {task: found for task, found in items.items() if found or options.tasks}
    if not items:
        raise ValueError(f"{options.data}: no {' or '.join(f'{task}.jsonl' for task in TASKS)}")
    sampling = Sampling(
        temperature=options.temperature,
        max_new_tokens=options.max_new_tokens,
        seed=options.seed,
    )
    checkpoint = Checkpoint(
        options.checkpoint, options.device, sampling, options.transcription_prompt
    )
    run = _Run(checkpoint, _hearing(checkpoint, options), _judge(options))
    report = Report(str(options.checkpoint), str(options.data), _settings(options))
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        for task, found in items.items():
            print(f"  {task}: {len(found or ())} items", flush=True)
            try:
                if not found:
                    raise RuntimeError(f"{options.data} has no items for it")
                result = run.task(task, _limited(found, options.limit))
            except RuntimeError as error:
                # Such as a service that does not answer; the other tasks may not need it.
                result = TaskResult(task, notes=[f"It failed: {error}."])
            report.results.append(result)
    finally:
        # A run that is stopped, or meets a sound it cannot read, keeps what it found so far.
        for name, text in (
            ("report.json", report.to_json()),
            ("report.md", report.to_markdown()),
            ("report.html", page(report)),
        ):
            (options.out / name).write_text(text, encoding="utf-8")
    print(f"{options.out / 'report.html'}: {len(report.results)} tasks")
    ran = [result.ran for result in report.results]
    return 0 if any(ran) and (all(ran) or not options.tasks) else 1


@dataclass
class _Run:
    checkpoint: Checkpoint
    hearing: Hearing
    judge: ChatJudge | None

    def task(self, task: str, items: Any) -> TaskResult:
        from agent.evaluation import chat, cloze, latency, speech_tasks, style

        if task == "cloze":
            return cloze.run(self.checkpoint, items)
        if task == "qa":
            return speech_tasks.question_answering(self.checkpoint, items, self.hearing)
        if task == "asr":
            return speech_tasks.recognition(self.checkpoint, items)
        if task == "tts":
            return speech_tasks.speaking(self.checkpoint, items, self.hearing)
        if task == "chat":
            return chat.run(self.checkpoint, items, self.hearing, self.judge)
        if task == "style":
            return style.run(self.checkpoint, items)
        return latency.run(self.checkpoint, items)


def _hearing(checkpoint: Checkpoint, options: argparse.Namespace) -> Hearing:
    from agent.evaluation.hearing import Hearing
    from agent.evaluation.services import UrlRecogniser

    if options.recogniser_url:
        if options.domain:
            raise ValueError("--domain is for pocketsphinx, without --recogniser-url")
        return Hearing(checkpoint, UrlRecogniser(options.recogniser_url, options.recogniser_model))
    try:
        from agent.evaluation.judge import Judge
    except ImportError:
        missing = "pocketsphinx is not installed (extra 'train') and there is no --recogniser-url"
        return Hearing(checkpoint, None, missing=missing)
    domain = options.domain or options.data / DOMAIN_FILE
    sentences = None
    if options.domain or domain.is_file():
        try:
            sentences = domain.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{domain}: {error}") from error
    try:
        return Hearing(checkpoint, Judge(sentences), languages=("en",))
    except ValueError as error:
        raise ValueError(f"{domain}: {error}") from error


def _judge(options: argparse.Namespace) -> ChatJudge | None:
    from agent.evaluation.services import ChatJudge

    return ChatJudge(options.judge_url, options.judge_model) if options.judge_url else None


def _limited(items: list[Any], limit: int | None) -> list[Any]:
    from agent.evaluation.results import by_set

    return [item for group in by_set(items).values() for item in group[:limit]]


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    import torch

    return {
        "layout": options.layout or "the evaluation's own",
        "temperature": options.temperature,
        "seed": options.seed,
        "longest answer": options.max_new_tokens,
        "limit": options.limit or "none",
        "device": options.device,
        "PyTorch": f"{torch.__version__}, {torch.get_num_threads()} thread(s)",
    }
