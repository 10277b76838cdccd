"""smarthost batch: sends a template to the recipients of a file, and shows, suspends, resumes or cancels batches."""

import argparse
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TypeVar

import msgspec

from smarthost.cli.api import add_api, api_client
from smarthost.cli.batch_send import send, wait
from smarthost.cli.exits import misused
from smarthost.cli.parser import add_json
from smarthost.cli.table import format_age, format_fields, format_table
from smarthost.client import Batch, BatchEvent, BatchSummary, Client

T = TypeVar("T")

_CHANGES = {"suspend": "suspended", "resume": "resumed", "cancel": "cancelled"}
_HELP = {
    "list": "list batches, newest first",
    "show": "show a batch",
    "events": "tell what became of the recipients of a batch",
    "summary": "sum up a batch",
    "suspend": "send nothing more of a batch until it is resumed",
    "resume": "go on with a batch that is suspended",
    "cancel": "send nothing more of a batch, ever",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    text = "send a template to the recipients of a file"
    sending = actions.add_parser(
        "send",
        help=text,
        description="Sends a template to the recipients of a file: CSV with a line of names, one of them email and "
        "the others variables, or JSON lines, an object each. The file is checked as a whole before anything is sent.",
    )
    sending.add_argument("file", metavar="FILE", type=Path, help="recipients.csv or recipients.jsonl; - is stdin")
    sending.add_argument("--template", required=True, metavar="ID", help="the template's id")
    sending.add_argument("--format", choices=("csv", "jsonl"), help="of the file [as its name ends, else csv]")
    sending.add_argument("--var", action="append", default=[], metavar="NAME=VALUE", help="for those without their own")
    sending.add_argument("--from", dest="author", default="", metavar="ADDRESS", help="the author")
    sending.add_argument("--reply-to", default="", metavar="ADDRESS")
    sending.add_argument("--tag", default="")
    sending.add_argument("--priority", choices=("immediate", "high", "medium", "low"))
    sending.add_argument("--send-at", type=_moment, metavar="TIME", help="not before, as 2030-01-31T08:00:00Z")
    sending.add_argument("--route", default="", metavar="NAME")
    sending.add_argument("--account", default="", metavar="ID")
    sending.add_argument("--metadata", action="append", default=[], metavar="NAME=VALUE", help="is shown with it")
    sending.add_argument("--idempotency-key", default="", metavar="KEY", help="the same key is sent once [a new one]")
    sending.add_argument("--wait", action="store_true", help="wait until the batch is over")
    for name, text in _HELP.items():
        each = actions.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if name != "list":
            each.add_argument("id", metavar="ID")
        if name in ("list", "events"):
            each.add_argument(
                "--limit", type=int, default=50 if name == "list" else 0, help="how many at most [%(default)s]"
            )
        if name == "events":
            each.add_argument(
                "--type", metavar="TYPE", default="", help="SENT, FAILED, BOUNCE, COMPLAINT or SUPPRESSED"
            )
        if name == "summary":
            each.add_argument("--wait", action="store_true", help="wait until the batch is over")
    for each in actions.choices.values():
        add_api(each)
        add_json(each)


def run(chosen: argparse.Namespace) -> int:
    """Run the command; gives the exit code."""
    with api_client(chosen) as client:
        if chosen.action == "send":
            return send(client, chosen)
        if chosen.action == "list":
            _list(client, chosen)
        elif chosen.action == "show":
            _print(client.batches.get(chosen.id), _page, chosen.json)
        elif chosen.action == "events":
            _events(client, chosen)
        elif chosen.action == "summary":
            _print(wait(client, chosen.id) if chosen.wait else client.batches.summary(chosen.id), _sums, chosen.json)
        else:
            change: Callable[[str], Batch] = getattr(client.batches, chosen.action)
            _print(change(chosen.id), lambda batch: f"{_CHANGES[chosen.action]}: {batch.id}\n", chosen.json)
    return 0


def _list(client: Client, chosen: argparse.Namespace) -> None:
    batches = list(_some(client.batches.list(), chosen.limit))
    if chosen.json:
        for each in batches:
            _print(each, _page, True)
    elif not batches:
        print("there are no batches")
    else:
        headings = ("ID", "STATUS", "AGE", "TOTAL", "PENDING", "SENT", "FAILED", "SUPPRESSED", "TEMPLATE", "TAG")
        print(format_table(headings, [_cells(each) for each in batches]), end="")


def _cells(batch: Batch) -> tuple[str, ...]:
    counts = batch.counts
    numbers = (counts.total, counts.pending, counts.sent, counts.failed, counts.suppressed)
    age = format_age(time.time() - batch.created_at.timestamp())
    return batch.id, batch.status, age, *map(str, numbers), batch.template or batch.template_id, batch.tag


def _events(client: Client, chosen: argparse.Namespace) -> None:
    wanted = chosen.type.upper()
    found = (each for each in client.batches.events(chosen.id) if not wanted or each.type == wanted)
    for each in _some(found, chosen.limit):
        _print(each, _line, chosen.json)


def _some(listed: Iterable[T], limit: int) -> Iterable[T]:
    if limit < 0:
        raise misused("--limit: a number above 0 is needed, or 0 for all")
    return islice(listed, limit or None)


def _print(shown: T, write: Callable[[T], str], as_json: bool) -> None:
    print(f"{msgspec.json.encode(shown).decode()}\n" if as_json else write(shown), end="")


def _page(batch: Batch) -> str:
    told: list[tuple[str, object]] = [
        ("id", batch.id),
        ("status", batch.status),
        ("template", batch.template or batch.template_id),
        ("created", _time(batch.created_at)),
        ("send at", _time(batch.send_at)),
        ("ended", _time(batch.ended_at)),
        ("tag", batch.tag),
        ("priority", batch.priority),
    ]
    told += [(name, str(count)) for name, count in msgspec.structs.asdict(batch.counts).items()]
    return format_fields(told) + (f"\n{msgspec.json.encode(batch.metadata).decode()}\n" if batch.metadata else "")


def _sums(summary: BatchSummary) -> str:
    told = [("status", summary.status), ("done", f"{summary.progress:.1%}"), ("total", str(summary.total))]
    told += [("pending", str(summary.pending)), ("cancelled", str(summary.cancelled))]
    return format_fields([*told, *((name.lower(), str(count)) for name, count in summary.events.items())])


def _time(at: datetime | None) -> str:
    return at.isoformat(timespec="seconds") if at is not None else ""


def _line(event: BatchEvent) -> str:
    said = " ".join(str(each) for each in (event.code or "", event.status, event.reason) if each)
    return f"{_time(event.timestamp)} {event.type} {event.recipient} {said}".rstrip() + "\n"


def _moment(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: 2030-01-31T08:00:00Z is") from None
