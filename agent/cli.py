"""The command ``glm-voice``: where the parts are put together.

Exit codes: 0 done, 1 it did not work out (a call that did not go as its scenario expects, an engine
that does not start), 2 what was asked for cannot be done (a wrong argument, file or setting), 3 not
all calls of a rehearsal fitted into its budget, and those that did held.
"""

import argparse
import asyncio
import contextlib
import datetime
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from loguru import logger

from agent.settings import AUTH_TOKEN_VARIABLE, SHIPPED_CHECKPOINT, load_settings

if TYPE_CHECKING:
    from telephony.agents import CallCentre
    from telephony.serve import Service

if TYPE_CHECKING:
    from telephony.simulator import Outputs

_MOST_CALLS = 512
"""So many calls a search for the capacity tries, unless --calls says otherwise."""
_LOG_FORMAT = "{time:HH:mm:ss.SSS} {level:<7} {name}: {message} {extra}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The command line without the program's name; None takes the process's own.

    Returns:
        The exit code.
    """
    # Numpy's products are small here: a second thread only spins between them, in workers too.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    options = _parser().parse_args(arguments)
    logger.remove()
    logger.add(sys.stderr, level=_level(options), format=_LOG_FORMAT)
    from agent.speech.checkpoint import CheckpointError

    try:
        code: int = options.run(options)
    except (ValueError, CheckpointError) as error:
        print(f"glm-voice {options.command}: {error}", file=sys.stderr)
        return 2
    except (RuntimeError, OSError) as error:
        print(f"glm-voice {options.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="glm-voice", description="A phone number answered by GLM-4-Voice."
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="log everything")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _serve_parser(commands.add_parser("serve", help="answer calls until stopped"))
    check = commands.add_parser("check", help="say what is wrong with a file of settings")
    check.add_argument("settings", type=Path, metavar="FILE", help="YAML file, as for serve")
    check.set_defaults(run=_check)
    _dial_parser(commands.add_parser("dial", help="call a number, or everybody on a list"))
    _simulate_parser(commands.add_parser("simulate", help="place scripted calls and judge them"))
    _calls_parser(commands.add_parser("calls", help="look at the records of calls, erase them"))
    _loopback_parser(commands.add_parser("loopback-twilio", help="serve Twilio's REST API here"))

    _train_parser(commands.add_parser("train", help="train a part from data, or fine-tune it"))
    _evaluate_parser(commands.add_parser("evaluate", help="run the paper's evaluation"))

    tokenize = commands.add_parser("tokenize", help="print the speech tokens of a recording")
    tokenize.add_argument("wav", type=Path, help="16 kHz mono WAV")
    tokenize.add_argument("--json", action="store_true", help="print a JSON list")
    tokenize.set_defaults(run=_tokenize)

    decode = commands.add_parser("decode", help="write the sound of speech tokens")
    decode.add_argument("ids", help="file with ids (JSON list, or numbers), or - for stdin")
    decode.set_defaults(run=_decode)

    say = commands.add_parser("say", help="write a recording of words spoken as they are")
    say.add_argument("text", help="what to say")
    say.add_argument("--temperature", type=float, default=0.2, help="0 is greedy (default 0.2)")
    say.add_argument("--seed", type=int, default=0, help="makes it repeatable (default 0)")
    say.set_defaults(run=_say)

    for command in (decode, say):
        command.add_argument("-o", "--out", type=Path, required=True, help="22.05 kHz WAV")
    for command in (tokenize, decode, say):
        command.add_argument(
            "--checkpoint",
            type=Path,
            default=SHIPPED_CHECKPOINT,
            help="directory with speech_tokenizer/, language_model/, speech_decoder/"
            " (default: the one that ships)",
        )
    return parser


def _serve_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--settings", type=Path, help="YAML file (default: defaults only)")
    parser.set_defaults(run=_serve)


def _dial_parser(parser: argparse.ArgumentParser) -> None:
    from telephony.outbound.command import add_arguments

    add_arguments(parser)
    parser.set_defaults(run=_dial)


def _simulate_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths", type=Path, nargs="*", metavar="PATH", help="scenario (YAML), or directory of them"
    )
    parser.add_argument("--demo", action="store_true", help="the scenario that ships")
    parser.add_argument("--url", help="voice webhook to call; without it, a gateway is started")
    parser.add_argument(
        "--auth-token", help=f"with --url: the account's (default: ${AUTH_TOKEN_VARIABLE})"
    )
    parser.add_argument("--via", help="http://host:port to connect to instead of --url's host")
    parser.add_argument(
        "--records",
        metavar="URL|FILE",
        help="with --url: the gateway's database, or a file *.jsonl, for text and timing",
    )
    parser.add_argument("--settings", type=Path, help="without --url: the gateway's YAML file")
    parser.add_argument(
        "--repeat", type=int, default=1, metavar="K", help="calls of each scenario (default 1)"
    )
    parser.add_argument(
        "--parallel", type=int, default=1, metavar="N", help="calls at a time (default 1)"
    )
    parser.add_argument(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="for all calls; what does not fit is skipped",
    )
    load = parser.add_argument_group("load")
    load.add_argument(
        "--calls", type=int, metavar="N", help="callers that call at once, again and again"
    )
    load.add_argument(
        "--for", type=float, default=60.0, dest="seconds", metavar="T", help="seconds (60)"
    )
    load.add_argument(
        "--ramp", type=float, default=0.0, metavar="R", help="seconds over which they begin (0)"
    )
    load.add_argument(
        "--find-capacity", action="store_true", help="the largest N (--calls at most) within --p95"
    )
    load.add_argument(
        "--p95",
        type=float,
        metavar="MS",
        help="bound on voice-to-voice time at the 95th percentile",
    )
    reports = parser.add_argument_group("reports")
    place = reports.add_mutually_exclusive_group()
    place.add_argument(
        "--runs", type=Path, default=Path("runs"), help="a new directory below it is filled (runs)"
    )
    place.add_argument("--out", type=Path, metavar="DIR", help="this directory is filled instead")
    reports.add_argument("--junit", type=Path, metavar="FILE", help="JUnit XML (default: none)")
    reports.add_argument("--html", type=Path, metavar="FILE", help="(default: DIR/report.html)")
    reports.add_argument("--json", type=Path, metavar="FILE", help="(default: DIR/report.json)")
    parser.set_defaults(run=_simulate)


def _calls_parser(parser: argparse.ArgumentParser) -> None:
    from telephony.calls import add_arguments

    add_arguments(parser)
    parser.set_defaults(run=_calls)


def _loopback_parser(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--url", required=True, help="the agent's voice webhook, as it knows it")
    parser.add_argument("--via", help="http://host:port to connect to instead of --url's host")
    parser.add_argument("--account-sid", help="the account (default: made up and printed)")
    parser.add_argument("--phone-book", type=Path, help="YAML file: who answers which number")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8085, help="port to listen on (8085)")
    parser.set_defaults(run=_loopback)


def _train_parser(parser: argparse.ArgumentParser) -> None:
    from agent.training.command import add_parts

    add_parts(parser)
    parser.set_defaults(run=_train)


def _evaluate_parser(parser: argparse.ArgumentParser) -> None:
    from agent.evaluation.command import add_arguments

    add_arguments(parser)
    parser.set_defaults(run=_evaluate)


def _level(options: argparse.Namespace) -> str:
    if options.verbose:
        return "DEBUG"
    return "INFO" if options.command in ("serve", "train") else "ERROR"


def _progress(line: str) -> None:
    print(f"  {line}", flush=True)


def _serve(options: argparse.Namespace) -> int:
    from telephony.agents import CallCentre

    def read() -> CallCentre:
        return load_settings(options.settings, None, CallCentre)

    asyncio.run(_serve_until_stopped(read))
    return 0


async def _serve_until_stopped(read: Callable[[], "CallCentre"]) -> None:
    """Serve until SIGINT, or until SIGTERM and the end of the calls; SIGHUP reads settings anew."""
    started: asyncio.Future[Service] = asyncio.get_running_loop().create_future()
    serve = asyncio.create_task(_serve_forever(read(), started))
    draining: set[asyncio.Task[None]] = set()

    async def drain(service: "Service") -> None:
        _progress("draining: no more calls are taken")
        await service.drain()
        serve.cancel()

    def terminate() -> None:
        # While it starts, and at a second signal, there is nothing to wait for.
        if draining or not started.done():
            serve.cancel()
        else:
            draining.add(asyncio.create_task(drain(started.result())))

    def reload() -> None:
        if started.done():
            _reload(started.result(), read)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, serve.cancel)
    loop.add_signal_handler(signal.SIGTERM, terminate)
    loop.add_signal_handler(signal.SIGHUP, reload)
    with contextlib.suppress(asyncio.CancelledError):
        await serve
    _progress("stopped")


def _reload(service: "Service", read: Callable[[], "CallCentre"]) -> None:
    try:
        differ = service.take_over(read())
    except ValueError as error:
        print(f"glm-voice serve: settings stay as they were:\n{error}", file=sys.stderr, flush=True)
        return
    _progress("agents reloaded; calls that run keep theirs")
    if differ:
        _progress(f"changed, but read at the start only: {', '.join(differ)}")


async def _serve_forever(settings: "CallCentre", started: "asyncio.Future[Service]") -> None:
    _progress("loading")
    from telephony.serve import serving

    async with serving(settings, _progress) as service:
        started.set_result(service)
        await asyncio.Event().wait()


def _check(options: argparse.Namespace) -> int:
    from telephony.check import check

    mistakes, warnings = check(options.settings, datetime.date.today())
    for mistake in mistakes:
        print(mistake)
    for warning in warnings:
        print(f"warning: {warning}")
    if not mistakes:
        print(f"{options.settings}: no mistakes")
    return 2 if mistakes else 0


def _dial(options: argparse.Namespace) -> int:
    from telephony.outbound.command import run

    return run(options)


def _simulate(options: argparse.Namespace) -> int:
    if options.demo == bool(options.paths):
        raise ValueError("give a scenario or --demo, one of the two")
    for name in ("via", "records", "auth_token"):
        if getattr(options, name) is not None and options.url is None:
            raise ValueError(f"--{name.replace('_', '-')} needs --url")
    if options.url is not None and options.settings is not None:
        raise ValueError("--settings is for a gateway that is started here, without --url")
    from telephony.simulator import Outputs, Plan, rehearse, simulate
    from telephony.simulator.commands import DEMO_SCENARIO, DEMO_SETTINGS

    paths = [DEMO_SCENARIO] if options.demo else options.paths
    outputs = Outputs(options.runs, options.out, options.html, options.json, options.junit)
    if options.calls is not None or options.find_capacity:
        return _load(options, paths, outputs)
    plan = Plan(options.repeat, options.parallel, options.budget)
    if options.url is None:
        settings = options.settings or (DEMO_SETTINGS if options.demo else None)
        return rehearse(paths, outputs, settings, plan=plan)
    token = options.auth_token or os.environ.get(AUTH_TOKEN_VARIABLE, "")
    return simulate(paths, options.url, token, outputs, options.records, plan=plan, via=options.via)


def _load(options: argparse.Namespace, paths: Sequence[Path], outputs: "Outputs") -> int:
    for name in ("parallel", "budget", "records", "junit"):
        if getattr(options, name) not in (None, 1):
            raise ValueError(f"--{name} is not for load runs")
    from telephony.simulator.commands import DEMO_SETTINGS
    from telephony.simulator.load_commands import Agent, capacity, load
    from telephony.simulator.load_tally import LoadPlan
    from telephony.simulator.target import Target

    token = options.auth_token or os.environ.get(AUTH_TOKEN_VARIABLE, "")
    target = Target(options.url, token, via=options.via) if options.url is not None else None
    agent = Agent(target, options.settings or (DEMO_SETTINGS if options.demo else None))
    if not options.find_capacity:
        if options.repeat != 1:
            raise ValueError("--repeat is for rehearsals and for --find-capacity")
        plan = LoadPlan(options.calls, options.seconds, options.ramp)
        return load(paths, agent, plan, outputs, p95_ms=options.p95)
    if options.p95 is None:
        raise ValueError("--find-capacity needs --p95")
    plan = LoadPlan(options.calls or _MOST_CALLS, options.seconds, options.ramp)
    return capacity(paths, agent, plan, outputs, p95_ms=options.p95, repeat=options.repeat)


def _calls(options: argparse.Namespace) -> int:
    from telephony.records.command import run

    return run(options)


def _loopback(options: argparse.Namespace) -> int:
    from telephony.simulator.loopback import serve_loopback
    from telephony.simulator.target import Target

    account = {"account_sid": options.account_sid} if options.account_sid else {}
    token = os.environ.get(AUTH_TOKEN_VARIABLE, "")
    target = Target(options.url, token, via=options.via, **account)
    return asyncio.run(
        serve_loopback(target, options.phone_book, options.host, options.port, _progress)
    )


def _train(options: argparse.Namespace) -> int:
    from agent.training.command import run

    run(options)
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from agent.evaluation.command import evaluate

    return evaluate(options)


def _tokenize(options: argparse.Namespace) -> int:
    from agent import offline

    ids = offline.tokenize(options.checkpoint, options.wav)
    print(json.dumps(ids) if options.json else " ".join(map(str, ids)))
    return 0


def _decode(options: argparse.Namespace) -> int:
    from agent import offline

    if options.ids == "-":
        text, source = sys.stdin.read(), "stdin"
    else:
        try:
            text, source = Path(options.ids).read_text("utf-8"), options.ids
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{options.ids}: {error}") from error
    seconds = offline.decode(options.checkpoint, offline.parse_ids(text, source), options.out)
    print(f"{options.out}: {seconds:.2f} s")
    return 0


def _say(options: argparse.Namespace) -> int:
    from agent import offline
    from agent.speech.request import TurnRequest

    request = TurnRequest(say=options.text, temperature=options.temperature, seed=options.seed)
    seconds = offline.say(options.checkpoint, request, options.out)
    print(f"{options.out}: {seconds:.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
