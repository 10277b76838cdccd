"""smarthost suppress: lists, adds, removes, imports and exports addresses to which nothing is sent."""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from smarthost.cli import queue_offline
from smarthost.cli.exits import CommandFailed, misused
from smarthost.cli.parser import add_json, add_relay, parse_age
from smarthost.cli.queue_read import read_rows
from smarthost.cli.relay import ask_one
from smarthost.cli.settings import find_data_directory
from smarthost.cli.suppress_file import Wanted, open_input, read_list, write_list
from smarthost.cli.table import format_age, format_table
from smarthost.control_verbs import SuppressionChoice
from smarthost.mail.suppression import REASON_MOST, Key, Origin
from smarthost.report.rows import suppression_row
from smarthost.report.timestamp import parse_time
from smarthost.spool.suppressions import has_list, read_page

Row = dict[str, Any]

SHOWN = 100  # addresses in a table unless --limit says otherwise
CHUNK = 500  # addresses that travel to the relay at a time, so that a request stays below its 1 MiB
_ORIGINS = tuple(str(origin) for origin in Origin)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = _add(actions, "list", "list suppressed addresses; works read-only when the relay is down")
    _add_choice(listing, "MATCH")
    listing.add_argument("--counted", action="store_true", help="those, too, whose failures are only counted so far")
    listing.add_argument("--limit", type=int, metavar="N", help=f"at most N, 0 for all [{SHOWN}; all with --json]")
    adding = _add(actions, "add", "send nothing to these addresses")
    adding.add_argument("addresses", metavar="ADDRESS", nargs="+")
    _add_owner(adding)
    _add_terms(adding)
    removing = _add(actions, "remove", "send to these addresses again, and forget their failures")
    removing.add_argument("addresses", metavar="ADDRESS", nargs="*")
    removing.add_argument("--match", metavar="PATTERN", default="", help="instead of addresses: *@example.net")
    removing.add_argument("--origin", choices=_ORIGINS, help="with --match: only what failures, or people, put there")
    _add_owner(removing)
    removing.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    importing = _add(actions, "import", "add the addresses of a file: CSV with a heading, or one address a line")
    importing.add_argument("file", metavar="FILE", help='"-" is standard input')
    _add_owner(importing)
    _add_terms(importing)
    exporting = _add(actions, "export", "write the list as CSV, or JSON; works read-only when the relay is down")
    _add_choice(exporting, "--match")
    exporting.add_argument("--counted", action="store_true", help="those, too, whose failures are only counted so far")
    exporting.add_argument("--out", metavar="FILE", help="[standard output]")


def _add(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    add_relay(parser)
    add_json(parser)
    return parser


def _add_owner(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--user", metavar="NAME", help="for this user's mail only [for everybody's]")


def _add_choice(parser: argparse.ArgumentParser, match: str) -> None:
    if match.startswith("-"):
        parser.add_argument(match, metavar="PATTERN", default="", help="addresses such as *@example.net")
    else:
        parser.add_argument("match", metavar=match, nargs="?", default="", help="a pattern such as *@example.net")
    parser.add_argument("--user", metavar="NAME", help="this user's part of the list, \"\" for everybody's [all]")
    parser.add_argument("--origin", choices=_ORIGINS, help="only what failures, or people, put there")


def _add_terms(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", metavar="TEXT", default="", help="kept with the address")
    parser.add_argument("--for", dest="age", metavar="AGE", type=parse_age, help="until then: 30d [for good]")
    parser.add_argument("--keep", action="store_true", help="leave what is on the list already as it is")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")


def run(chosen: argparse.Namespace) -> int:
    """Run the command; gives the exit code: 65 when some of the addresses are none."""
    if chosen.action == "list":
        return _list(chosen)
    if chosen.action == "export":
        return _export(chosen)
    if chosen.action == "remove":
        return _remove(chosen)
    expires = time.time() + chosen.age if chosen.age is not None else None
    if chosen.action == "add":
        wanted = iter([Wanted(text, chosen.user or "", chosen.reason, expires) for text in chosen.addresses])
        return _put(chosen, wanted)
    file = sys.stdin if chosen.file == "-" else open_input(chosen.file)
    with file:
        return _put(chosen, _with_terms(read_list(file, chosen.user), chosen.reason, expires))


def _with_terms(wanted: Iterator[Wanted], reason: str, expires: float | None) -> Iterator[Wanted]:
    """Fill in what a file does not say, and pass over what has expired in it."""
    now = time.time()
    for each in wanted:
        if each.expires is None or each.expires > now:
            yield each._replace(
                reason=(each.reason or reason)[:REASON_MOST], expires=each.expires if each.expires else expires
            )


def _put(chosen: argparse.Namespace, wanted: Iterator[Wanted]) -> int:
    folder = find_data_directory(chosen)
    counts = {"added": 0, "known": 0, "invalid": 0}
    problems: list[str] = []
    while chunk := [each._asdict() for each in islice(wanted, CHUNK)]:
        asked = {"addresses": chunk, "keeps": chosen.keep, "dry_run": chosen.dry_run}
        done = ask_one(folder, "suppress.add", asked)
        problems += done.pop("problems", [])
        counts = {name: count + done.get(name, 0) for name, count in counts.items()}
    for text in problems[:10]:
        print(f"smarthost: {text[:80]!r} is no address", file=sys.stderr)
    _tell(chosen, counts, "nothing is sent to them any more")
    return os.EX_DATAERR if counts["invalid"] else os.EX_OK


def _remove(chosen: argparse.Namespace) -> int:
    if bool(chosen.addresses) == bool(chosen.match):
        raise misused('suppress remove wants addresses or --match PATTERN; --match "*" means all')
    if chosen.origin and not chosen.match:
        raise misused("--origin goes with --match")
    folder = find_data_directory(chosen)
    if chosen.match:
        choice = {"match": chosen.match, "counted": True}
        choice |= {name: value for name in ("user", "origin") if (value := getattr(chosen, name)) is not None}
        done = ask_one(folder, "suppress.remove", {"choice": choice, "dry_run": chosen.dry_run})
    else:
        asked = {"addresses": chosen.addresses, "user": chosen.user or "", "dry_run": chosen.dry_run}
        done = ask_one(folder, "suppress.remove", asked)
    if chosen.addresses and not done["removed"]:
        raise CommandFailed("none of these addresses is on the list", os.EX_NOINPUT)
    _tell(chosen, done, "mail is sent to them again")
    return os.EX_OK


def _tell(chosen: argparse.Namespace, counts: Row, then: str) -> None:
    if chosen.json:
        print(json.dumps(counts | {"dry_run": chosen.dry_run}))
        return
    text = ", ".join(f"{name} {count}" for name, count in counts.items())
    print(f"{text}: {'nothing was done (--dry-run)' if chosen.dry_run else then}")


def _rows(chosen: argparse.Namespace, limit: int = 0) -> Iterator[Row]:
    """Give the rows that are meant, from the relay or from its disk."""
    choice = SuppressionChoice(
        chosen.user, chosen.match, Origin(chosen.origin) if chosen.origin else None, chosen.counted, limit
    )

    def offline(spool: Path) -> Iterator[Row]:
        after: Key = ("", "")
        left = limit or -1
        with queue_offline.reading(spool) as reader:
            if not has_list(reader.rows):
                return
            while left and (page := read_page(reader.rows, after, CHUNK)):
                after = page[-1].key
                rows = [row for row in page if choice.means(row, time.time())]
                for row in rows[:left] if left > 0 else rows:
                    yield suppression_row(row)
                left = max(left - len(rows), 0) if left > 0 else left

    return read_rows(find_data_directory(chosen), "suppress.list", msgspec.to_builtins(choice), offline)


def _list(chosen: argparse.Namespace) -> int:
    limit = chosen.limit if chosen.limit is not None else 0 if chosen.json else SHOWN
    if limit < 0:
        raise misused("--limit must not be negative")
    if chosen.json:
        for row in _rows(chosen, limit):
            print(msgspec.json.encode(row).decode())
        return os.EX_OK
    rows = list(_rows(chosen, limit + 1 if limit else 0))
    if not rows:
        print("no address is on the suppression list" if not chosen.match else "no address on the list fits")
        return os.EX_OK
    now = time.time()
    is_cut = bool(limit) and len(rows) > limit
    shown = rows[:limit] if is_cut else rows
    print(
        format_table(("ADDRESS", "FOR", "SINCE", "ENDS IN", "BY", "REASON"), [_cells(row, now) for row in shown]),
        end="",
    )
    if is_cut:
        print(f"... and more: these are the first {limit}; --limit 0 shows all")
    return os.EX_OK


def _cells(row: Row, now: float) -> tuple[str, ...]:
    failed = f"{row['failures']} failure{'s' if row['failures'] != 1 else ''}"
    return (
        row["address"],
        row["user"] or "everybody",
        f"{format_age(now - parse_time(row['since']))} ago" if row["since"] else f"not yet ({failed})",
        format_age(parse_time(row["expires"]) - now) if row["expires"] else "never",
        row["origin"],
        row["reason"],
    )


def _export(chosen: argparse.Namespace) -> int:
    if not chosen.out:
        _write(chosen, sys.stdout)
        return os.EX_OK
    try:
        descriptor = os.open(chosen.out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            count = _write(chosen, file)
    except OSError as error:
        raise CommandFailed(f"{chosen.out}: {error.strerror or error}", os.EX_CANTCREAT) from None
    print(json.dumps({"addresses": count}) if chosen.json else f"{count} addresses are in {chosen.out}")
    return os.EX_OK


def _write(chosen: argparse.Namespace, file: Any) -> int:
    if not chosen.json:
        return write_list(_rows(chosen), file)
    count = 0
    for row in _rows(chosen):
        file.write(msgspec.json.encode(row).decode() + "\n")
        count += 1
    return count
