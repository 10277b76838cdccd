"""smarthost test-dispatch: sends one test message through the running relay, and follows it."""

import argparse
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from smarthost.cli.parser import add_json, add_relay, parse_age
from smarthost.cli.relay import ask, ask_one
from smarthost.cli.settings import find_data_directory
from smarthost.cli.table import format_fields

PATIENCE = 60.0  # seconds
_STEP = 0.2  # seconds between two looks
_ENDS: Mapping[str, int] = MappingProxyType(
    {
        "relayed": os.EX_OK,
        "delayed": os.EX_TEMPFAIL,
        "held": os.EX_TEMPFAIL,
        "failed": os.EX_UNAVAILABLE,
        "expired": os.EX_UNAVAILABLE,
        "deleted": os.EX_UNAVAILABLE,
    }
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("--to", metavar="ADDRESS", required=True, help="who gets the message")
    parser.add_argument("--from", dest="sender", metavar="ADDRESS", default="", help="its sender [the postmaster]")
    parser.add_argument("--wait", metavar="AGE", type=parse_age, default=PATIENCE, help="for its first attempt [60s]")
    add_relay(parser)
    add_json(parser)


def run(chosen: argparse.Namespace) -> int:
    """Run the command; gives 0 when the message was relayed, 75 when it waits, 69 when it failed."""
    folder = find_data_directory(chosen)
    began = time.monotonic()
    row = ask_one(folder, "test.send", {"to": chosen.to, "sender": chosen.sender})
    if not chosen.json:
        print(f"{row['id']} from <{row['sender']}> to <{row['to']}> is in the queue", flush=True)
    event = _follow(folder, row["id"], began + chosen.wait)
    row |= {"result": "waiting", "after_seconds": round(time.monotonic() - began, 2)}
    if event is not None:
        kept = ("time", "route", "site", "host", "address", "tls", "code", "status", "reply", "seconds")
        row |= {"result": event["event"]} | {key: event[key] for key in kept if key in event}
    else:
        row["why"] = [each.get("text", "") for each in ask(folder, "why", {"id": row["id"]})]
    if chosen.json:
        print(json.dumps(row, ensure_ascii=False))
    else:
        print(_format(row), end="")
    return _ENDS.get(row["result"], os.EX_TEMPFAIL)


def _follow(folder: Path, message: str, deadline: float) -> dict[str, Any] | None:
    """Give the event that tells what became of a message, None when there was none in time."""
    while True:
        for event in ask(folder, "trace", {"id": message}):
            if event.get("event") in _ENDS:
                return event
        if time.monotonic() > deadline:
            return None
        time.sleep(_STEP)


def _format(row: dict[str, Any]) -> str:
    host, address = row.get("host", ""), row.get("address", "")
    reply = " ".join(str(row[key]) for key in ("code", "status", "reply") if row.get(key))
    fields = [
        ("result", row["result"]),
        ("because", row.get("why")),
        ("host", f"{host} ({address})" if address else host),
        ("tls", row.get("tls") or ("none" if host else None)),
        ("reply", reply),
        ("after", f"{row['after_seconds']:g} s"),
        ("route", row.get("route")),
        ("seconds", row.get("seconds")),
        ("more", f"smarthost trace {row['id']}"),
    ]
    return format_fields(fields)
