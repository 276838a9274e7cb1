"""``glm-voice dial``: has a running gateway call a number, or everybody on a list."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from agent.settings import OPERATOR_TOKEN_VARIABLE

_OUTCOMES = ("busy", "no-answer", "failed", "machine", "voicemail", "canceled")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.add_argument(
        "target", metavar="NUMBER|LIST", help="+15550100003, or a CSV file with a column to"
    )
    parser.add_argument(
        "--url", default="http://127.0.0.1:8080", help="the gateway (http://127.0.0.1:8080)"
    )
    parser.add_argument(
        "--token", help=f"the operators' token (default: ${OPERATOR_TOKEN_VARIABLE})"
    )
    parser.add_argument("--agent", help="who calls, where several agents call people")
    parser.add_argument("--time-zone", help="of a single number: whose clocks count")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="for a single number: a variable of what the agent says",
    )
    parser.add_argument(
        "--results", type=Path, help="of a list: CSV file (default: LIST-results.csv)"
    )
    parser.add_argument(
        "--per-minute", type=float, default=10.0, help="of a list: calls begun in a minute (10)"
    )
    parser.add_argument("--at-once", type=int, default=1, help="of a list: calls at a time (1)")
    parser.add_argument(
        "--retry",
        action="append",
        default=[],
        metavar="OUTCOME=SECONDS,...",
        help="of a list: call again after so long, such as busy=300,1800; may be repeated",
    )


def run(options: argparse.Namespace) -> int:
    """Do what the command says.

    Returns:
        The exit status: 1 if a single call reached nobody.

    Raises:
        ValueError: An argument cannot be used, or the gateway makes no calls.
        OSError: The results cannot be written.
    """
    from telephony.outbound.call_list import Entry
    from telephony.outbound.campaign import Plan
    from telephony.outbound.client import dial_list, dial_one

    token = options.token or os.environ.get(OPERATOR_TOKEN_VARIABLE, "")
    if not token:
        raise ValueError(f"no operators' token: set {OPERATOR_TOKEN_VARIABLE} or --token")
    if options.target.startswith("+"):
        variables = dict(_pair("--set", one) for one in options.set)
        entry = Entry(0, options.target, options.agent, options.time_zone, variables)
        result = asyncio.run(dial_one(options.url, token, entry))
        told = (result.outcome, result.call_sid, result.detail)
        print(" ".join(part for part in told if part))
        return 0 if result.outcome in ("answered", "voicemail") else 1
    if options.per_minute <= 0 or options.at_once < 1:
        raise ValueError("--per-minute and --at-once: expected more than nothing")
    calls = Path(options.target)
    results = options.results or calls.with_name(f"{calls.stem}-results.csv")
    plan = Plan(options.per_minute, options.at_once, parse_retries(options.retry))
    counts = asyncio.run(
        dial_list(
            options.url,
            token,
            calls,
            results,
            plan,
            lambda line: print(f"  {line}", flush=True),
            agent=options.agent,
        )
    )
    print(f"{results}: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return 0


def parse_retries(rules: list[str]) -> dict[str, tuple[float, ...]]:
    """Rules such as ``busy=300,1800`` by outcome.

    Raises:
        ValueError: One cannot be read.
    """
    retries = {}
    for rule in rules:
        outcome, waits = _pair("--retry", rule)
        try:
            seconds = tuple(float(wait) for wait in waits.split(","))
        except ValueError:
            seconds = ()
        if outcome not in _OUTCOMES or not seconds or min(seconds) < 0:
            raise ValueError(f"--retry: expected {'|'.join(_OUTCOMES)}=SECONDS,..., got {rule!r}")
        retries[outcome] = seconds
    return retries


def _pair(option: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise ValueError(f"{option}: expected NAME=VALUE, got {text!r}")
    return name, value
