"""smarthost suspend: lets a site, a route, a user or a batch send nothing for now; alone it lists what is suspended."""

import argparse
import json
import time

from smarthost.cli.exits import misused
from smarthost.cli.parser import add_json, add_relay, parse_age
from smarthost.cli.queue_format import age_of, time_left
from smarthost.cli.relay import ask, ask_one
from smarthost.cli.settings import find_data_directory
from smarthost.cli.table import format_table

KINDS = ("site", "route", "user", "batch")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument(
        "kind", nargs="?", choices=KINDS, help="what is suspended; without it, all suspensions are listed"
    )
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="a glob or suffix of MX hosts, a route's or a user's name, user/tag"
    )
    parser.add_argument("--for", dest="seconds", type=parse_age, metavar="TIME", help="[until resumed]")
    parser.add_argument("--reason", default="", metavar="TEXT", help="for whoever asks why")
    add_relay(parser)
    add_json(parser)


def run(chosen: argparse.Namespace) -> int:
    """Run the command; gives the exit code."""
    folder = find_data_directory(chosen)
    if chosen.kind is None:
        if chosen.seconds is not None or chosen.reason:
            raise misused("what shall be suspended? a site, route, user or batch, and its name")
        return _list(chosen)
    if chosen.name is None:
        raise misused(f"which {chosen.kind}?")
    if chosen.seconds == 0.0:
        raise misused("--for 0s would suspend nothing; without --for it lasts until it is resumed")
    asked = {"kind": chosen.kind, "name": chosen.name, "seconds": chosen.seconds or 0.0, "reason": chosen.reason}
    row = ask_one(folder, "suspend", asked)
    if chosen.json:
        print(json.dumps(row, ensure_ascii=False))
    else:
        print(f"suspended: {row['kind']} {row['name']} until {row['until'] or 'it is resumed'}")
    return 0


def _list(chosen: argparse.Namespace) -> int:
    rows = list(ask(find_data_directory(chosen), "suspensions", {}))
    now = time.time()
    if chosen.json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
    elif not rows:
        print("nothing is suspended")
    else:
        cells = [
            (row["kind"], row["name"], age_of(row["since"], now), time_left(row["until"], now) or "-", row["reason"])
            for row in rows
        ]
        print(format_table(("KIND", "NAME", "AGE", "ENDS", "REASON"), cells), end="")
    return 0
