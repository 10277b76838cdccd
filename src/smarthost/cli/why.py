"""smarthost why: says what a message waits for, since when and until when."""

import argparse
import json
import time
from typing import Any

from smarthost.cli.exits import misused
from smarthost.cli.parser import add_json, add_relay
from smarthost.cli.queue_format import age_of, time_left
from smarthost.cli.relay import ask
from smarthost.cli.settings import find_data_directory
from smarthost.cli.table import format_fields
from smarthost.mail.entry import Why
from smarthost.mail.message import parse_id


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("id", metavar="ID", help="the message id that our 250 reply named")
    add_relay(parser)
    add_json(parser)


def run(chosen: argparse.Namespace) -> int:
    """Run the command; gives the exit code."""
    if parse_id(chosen.id) is None:
        raise misused(f"{chosen.id!r} is no message id: it has 12 letters and digits")
    now = time.time()
    first = True
    for row in ask(find_data_directory(chosen), "why", {"id": chosen.id}):
        if chosen.json:
            print(json.dumps(row, ensure_ascii=False))
            continue
        since, until = row.get("since"), row.get("until")
        fields = [
            ("recipients", row.get("recipients")),
            ("waits for", row.get("text") or row.get("why")),
            ("since", f"{since} ({age_of(since, now)})" if since else None),
            (
                "until",
                f"{until} ({time_left(until, now)})" if until else _until_whom(row),
            ),
            ("attempts", row.get("attempts")),
            ("last reply", row.get("last")),
            ("gives up", row.get("expires")),
            ("queue", row.get("queue")),
        ]
        print(("" if first else "\n") + format_fields(fields), end="")
        first = False
    return 0


def _until_whom(row: dict[str, Any]) -> str:
    """Say what ends a wait that has no time of its own."""
    if row.get("why") == Why.SUSPENDED:
        return "a person resumes it: smarthost resume"
    return "a person acts: release, retry, fail or delete" if row.get("due") is None else "it is its turn"
