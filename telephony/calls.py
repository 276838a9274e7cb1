"""What can be asked of ``glm-voice calls``; telephony.records.command carries it out."""

import argparse
from datetime import datetime
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the commands below ``glm-voice calls``."""
    commands = parser.add_subparsers(dest="calls", required=True, metavar="WHAT")

    listing = commands.add_parser("list", help="print calls, the latest last")
    _add_search(listing)
    listing.add_argument("--limit", type=int, default=50, help="the latest so many (50)")
    listing.add_argument("--json", action="store_true", help="print JSON, a call a line")

    show = commands.add_parser("show", help="print what was said on a call")
    show.add_argument("sid", help="Twilio's identifier of the call")

    export = commands.add_parser("export", help="write events as JSON, one a line")
    export.add_argument("sids", nargs="*", metavar="SID", help="these calls (default: all found)")
    _add_search(export)
    export.add_argument("-o", "--out", type=Path, metavar="FILE", help="(default: standard output)")

    forget = commands.add_parser("forget", help="erase calls and all that belongs to them")
    forget.add_argument("--number", help="with this number")
    forget.add_argument("--before", type=_moment, metavar="DATE", help="that ended before")
    forget.add_argument("--dry-run", action="store_true", help="only say how many that would be")

    migrating = commands.add_parser("migrate", help="bring the database's tables up to date")
    redeliver = commands.add_parser("redeliver", help="try every dead letter once more")
    for command in (listing, show, export, forget, migrating, redeliver):
        command.add_argument("--settings", type=Path, help="YAML file (default: defaults only)")
        command.add_argument(
            "--records", metavar="URL|FILE", help="the database, in place of that of the settings"
        )


def _add_search(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--number", help="with this number")
    parser.add_argument("--since", type=_moment, metavar="DATE", help="that began then or later")
    parser.add_argument("--before", type=_moment, metavar="DATE", help="that began before")
    parser.add_argument("--agent", metavar="NAME", help="of this agent")


def _moment(text: str) -> float:
    """Unix seconds of a date or a time, the machine's own where it names no zone."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a date such as 2025-03-04 or 2025-03-04T12:30, got {text!r}"
        ) from None
