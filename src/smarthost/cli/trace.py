"""smarthost trace: tells the whole story of a message."""

import argparse
import json
from typing import Any

from smarthost.cli.exits import misused
from smarthost.cli.parser import add_json, add_relay
from smarthost.cli.relay import ask
from smarthost.cli.settings import find_data_directory
from smarthost.cli.table import printable
from smarthost.mail.message import parse_id

# What every line has in its first columns, or says in other words.
_SHOWN = frozenset(
    {"time", "event", "id", "recipient", "sender", "code", "status", "reply", "seconds", "signed", "host"}
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("id", metavar="ID", help="the message id that our 250 reply named")
    add_relay(parser)
    add_json(parser)


def run(chosen: argparse.Namespace) -> int:
    """Run the command; gives the exit code."""
    if parse_id(chosen.id) is None:
        raise misused(f"{chosen.id!r} is no message id: it has 12 letters and digits")
    for row in ask(find_data_directory(chosen), "trace", {"id": chosen.id}):
        print(json.dumps(row, ensure_ascii=False) if chosen.json else format_event(row))
    return 0


def format_event(row: dict[str, Any]) -> str:
    """Write an event on one line: when, what, whom, what the peer said, then the details."""
    words = [row.get("time", ""), f"{row.get('event', ''):<9}"]
    if "sender" in row:
        words.append(f"from <{row['sender']}>")
    if row.get("recipient"):
        words.append(f"to <{row['recipient']}>")
    if row.get("host"):
        words.append(f"at {row['host']}")
    reply = " ".join(str(row[key]) for key in ("code", "status", "reply") if row.get(key))
    if reply:
        words.append(f"({reply})")
    words += [f"{key}={value}" for key, value in row.items() if key not in _SHOWN]
    if row.get("signed"):
        words.append(f"signed={','.join(row['signed'])}")
    words += [f"{phase}={seconds * 1000:.1f}ms" for phase, seconds in row.get("seconds", {}).items()]
    return printable(" ".join(words))
