"""smarthost dlq: lists, sends again and deletes dead letters, messages by HTTP that failed and are kept for a time."""

import argparse
import json
import time
from typing import Any

from smarthost.cli.exits import misused
from smarthost.cli.parser import add_json, add_relay, parse_age
from smarthost.cli.queue_format import format_queue
from smarthost.cli.queue_read import list_entries
from smarthost.cli.relay import ask_one
from smarthost.cli.settings import find_data_directory
from smarthost.mail.entry import Why
from smarthost.mail.message import parse_id

# Action -> the verb of the queue, what it says when done.
_CHANGES = {"resend": ("queue.retry", "sent again"), "clean": ("queue.delete", "deleted")}
_TEXTS = ("user", "sender", "recipient", "destination", "tag")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, text in (
        ("list", "list dead letters, with the last reply and until when they are kept"),
        ("resend", "send dead letters again, to those for whom they failed"),
        ("clean", "delete dead letters"),
    ):
        each = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        add_relay(each)
        add_json(each)
        each.add_argument("ids", metavar="ID", nargs="*", help="message ids")
        for filter_name in _TEXTS:
            each.add_argument(f"--{filter_name}", metavar="PATTERN", default="")
        each.add_argument("--older", metavar="AGE", type=parse_age, default=0.0, help="arrived longer ago: 4h, 2d")
        if name != "list":
            each.add_argument("--all", action="store_true", help="all dead letters: needed without a filter")
            each.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")


def run(chosen: argparse.Namespace) -> int:
    """Run the command; gives the exit code."""
    for text in chosen.ids:
        if parse_id(text) is None:
            raise misused(f"{text!r} is no message id: it has 12 letters and digits")
    wanted = {key: getattr(chosen, key) for key in (*_TEXTS, "older", "ids") if getattr(chosen, key)}
    folder = find_data_directory(chosen)
    dead: dict[str, Any] = wanted | {"why": str(Why.DEAD_LETTER)}
    if chosen.action == "list":
        rows = list(list_entries(folder, dead, 0))
        if chosen.json:
            for row in rows:
                print(json.dumps(row, ensure_ascii=False))
        else:
            print(format_queue(rows, time.time()) if rows else "there are no dead letters\n", end="")
        return 0
    if bool(wanted) == chosen.all:
        raise misused(f"dlq {chosen.action} wants ids or a filter, or --all")
    verb, said = _CHANGES[chosen.action]
    done = ask_one(folder, verb, {"filter": dead, "dry_run": chosen.dry_run})
    if chosen.json:
        print(json.dumps(done | {"dry_run": chosen.dry_run}))
    else:
        counts = ", ".join(f"{key} {value}" for key, value in done.items())
        print(f"{counts}: {'nothing was done (--dry-run)' if chosen.dry_run else said}")
    return 0
