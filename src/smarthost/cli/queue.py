"""smarthost queue: lists, shows, exports and changes queued messages."""

import argparse
import json
import os
import sys
import time
from typing import Any

from smarthost.cli.exits import CommandFailed, misused
from smarthost.cli.parser import add_json, add_relay, parse_age
from smarthost.cli.queue_export import export
from smarthost.cli.queue_format import format_message, format_queue
from smarthost.cli.queue_read import list_entries, show_message
from smarthost.cli.relay import ask_one
from smarthost.cli.settings import find_data_directory
from smarthost.mail.entry import Why
from smarthost.mail.message import parse_id

SHOWN = 100  # entries in a table unless --limit says otherwise

# Verb -> what it does, what it says when done.
_CHANGES = {
    "flush": ("try waiting messages now", "will be tried now"),
    "hold": ("keep messages back until they are released", "held"),
    "release": ("let held messages go on", "released"),
    "retry": ("route messages again and try them now", "routed again, will be tried now"),
    "fail": ("give messages up, with the reports that their senders asked for", "failed"),
    "delete": ("delete messages without any report", "deleted"),
}
_TEXTS = ("sender", "recipient", "destination", "route", "user", "tag")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = _add(actions, "list", "list what is queued; works read-only when the relay is down")
    _add_filter(listing)
    listing.add_argument(
        "--limit", type=int, metavar="N", help=f"at most N entries, 0 for all [{SHOWN}; all with --json]"
    )
    showing = _add(actions, "show", "show one message, its entries and events; works read-only when the relay is down")
    showing.add_argument("id", metavar="ID", help="the message id that our 250 reply named")
    for name, (text, _) in _CHANGES.items():
        changing = _add(actions, name, text)
        _add_filter(changing)
        changing.add_argument("--all", action="store_true", help="everything in the queue: needed without a filter")
        changing.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    exporting = _add(actions, "export", "write messages into files; works read-only when the relay is down")
    _add_filter(exporting)
    exporting.add_argument("--all", action="store_true", help="everything in the queue: needed without a filter")
    exporting.add_argument(
        "--out", metavar="DIR", help="ID.eml and ID.json for each message go here; without it, one ID: standard output"
    )


def run(chosen: argparse.Namespace) -> int:
    """Run the command; gives the exit code."""
    if chosen.action == "list":
        return _list(chosen)
    if chosen.action == "show":
        return _show(chosen)
    if chosen.action == "export":
        _demand_filter(chosen)
        return export(chosen, read_filter(chosen))
    return _change(chosen)


def read_filter(chosen: argparse.Namespace) -> dict[str, Any]:
    """Give the filter of the command line as it travels to the relay: what was not given is left out."""
    for text in chosen.ids:
        if parse_id(text) is None:
            raise misused(f"{text!r} is no message id: it has 12 letters and digits")
    wanted = {key: getattr(chosen, key) for key in (*_TEXTS, "older", "why", "ids")}
    return {key: value for key, value in wanted.items() if value}


def _add(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    add_relay(parser)
    add_json(parser)
    return parser


def _add_filter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", metavar="ID", nargs="*", help="message ids")
    group = parser.add_argument_group("filters (all of them must fit; texts are patterns with * and ?, case ignored)")
    for name in _TEXTS:
        group.add_argument(f"--{name}", metavar="PATTERN", default="")
    group.add_argument(
        "--older", metavar="AGE", type=parse_age, default=0.0, help="arrived longer ago than that: 30min, 4h, 2d"
    )
    group.add_argument("--why", choices=[str(why) for why in Why], default="", metavar="WHY", help=", ".join(Why))


def _demand_filter(chosen: argparse.Namespace) -> None:
    wanted = read_filter(chosen)
    if not wanted and not chosen.all:
        raise misused(f"queue {chosen.action} wants ids or a filter; --all means everything in the queue")
    if wanted and chosen.all:
        raise misused("--all and a filter contradict each other")


def _list(chosen: argparse.Namespace) -> int:
    limit = chosen.limit if chosen.limit is not None else 0 if chosen.json else SHOWN
    if limit < 0:
        raise misused("--limit must not be negative")
    wanted = read_filter(chosen)
    rows = list_entries(find_data_directory(chosen), wanted, limit + 1 if limit else 0)
    if chosen.json:
        for number, row in enumerate(rows):
            if not limit or number < limit:
                print(json.dumps(row, ensure_ascii=False))
        return 0
    entries = list(rows)
    is_cut = bool(limit) and len(entries) > limit
    if is_cut:
        del entries[limit:]
    if not entries:
        print("nothing is queued" if not wanted else "nothing in the queue fits")
        return 0
    print(format_queue(entries, time.time()), end="")
    if is_cut:
        print(f"... and more: these are the first {limit}; --limit 0 shows all")
    return 0


def _show(chosen: argparse.Namespace) -> int:
    if parse_id(chosen.id) is None:
        raise misused(f"{chosen.id!r} is no message id: it has 12 letters and digits")
    shown = show_message(find_data_directory(chosen), chosen.id)
    if chosen.json:
        print(json.dumps(shown, ensure_ascii=False))
    else:
        print(format_message(shown, time.time()), end="")
    return 0


def _change(chosen: argparse.Namespace) -> int:
    _demand_filter(chosen)
    arguments = {"filter": read_filter(chosen), "dry_run": chosen.dry_run, "everything": chosen.all}
    done = ask_one(find_data_directory(chosen), f"queue.{chosen.action}", arguments)
    touched = any(done.values())
    if chosen.json:
        print(json.dumps(done | {"dry_run": chosen.dry_run}))
        return 0 if touched or not chosen.ids else os.EX_NOINPUT
    if not touched:
        if chosen.ids:
            raise CommandFailed(f"nothing was done: queue {chosen.action} found none of these messages", os.EX_NOINPUT)
        print("nothing in the queue fits")
        return 0
    counts = ", ".join(f"{key} {value}" for key, value in done.items())
    if chosen.dry_run:
        print(f"{counts}: nothing was done (--dry-run)", file=sys.stdout)
    else:
        print(f"{counts}: {_CHANGES[chosen.action][1]}")
    return 0
