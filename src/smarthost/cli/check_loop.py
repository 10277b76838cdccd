"""smarthost check-loop: looks at the running relay's delivery twice, and says whether it goes on."""

import argparse
import json
import os
import time
from typing import Any

from smarthost.cli.parser import add_json, add_relay, parse_age
from smarthost.cli.relay import ask_one
from smarthost.cli.settings import find_data_directory
from smarthost.cli.table import format_fields

LOOK = 5.0  # seconds between the two looks
_TEXTS = {
    "idle": "nothing is due",
    "moving": "mail was tried between the two looks",
    "delivering": "sessions are open and peers have not answered yet",
    "waiting": "everything that is due has a reason to wait",
    "stopped": "delivery has stopped",
    "stuck": "mail is due, nothing was tried, and nothing says why: please report this as a bug",
}
_BAD = ("stopped", "stuck")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_relay(parser)
    add_json(parser)
    parser.add_argument("--wait", metavar="AGE", type=parse_age, default=LOOK, help="between the two looks [5s]")


def run(chosen: argparse.Namespace) -> int:
    """Run the command; gives 0 where delivery goes on or has nothing to do, 75 where it is stopped or stuck."""
    folder = find_data_directory(chosen)
    before = ask_one(folder, "progress", {})
    time.sleep(chosen.wait)
    began = time.monotonic()
    after = ask_one(folder, "progress", {})
    verdict = judge(before, after)
    row = after | {
        "verdict": verdict,
        "attempts_between": after["attempts"] - before["attempts"],
        "relayed_between": after["relayed"] - before["relayed"],
        "answered_in_seconds": round(time.monotonic() - began, 3),
    }
    if chosen.json:
        print(json.dumps(row, ensure_ascii=False))
    else:
        print(_format(row), end="")
    return os.EX_TEMPFAIL if verdict in _BAD else os.EX_OK


def judge(before: dict[str, Any], after: dict[str, Any]) -> str:
    """Say what two looks at delivery tell."""
    if after["stopped"]:
        return "stopped"
    if after["attempts"] != before["attempts"]:
        return "moving"
    if not after["late"]:
        return "idle"
    if after["in_delivery"]:
        return "delivering"
    # Only what was late at both looks: what has become due meanwhile may just be on its way.
    known = {row["id"] for row in before["late"]}
    unexplained = [row for row in after["late"] if not row["is_explained"] and row["id"] in known]
    return "stuck" if unexplained else "waiting"


def _format(row: dict[str, Any]) -> str:
    verdict = row["verdict"]
    fields = [
        ("delivery", f"{verdict}: {row['stopped'] or _TEXTS[verdict]}"),
        ("tried", f"{row['attempts_between']} between the looks, {row['attempts']} since the start"),
        ("relayed", f"{row['relayed_between']} between the looks, {row['relayed']} since the start"),
        ("in delivery", row["in_delivery"]),
        ("queue", row["queue"]),
        ("answered in", f"{row['answered_in_seconds']:g} s"),
    ]
    for late in row["late"]:
        until = f", until {late['until']}" if late["until"] else ""
        fields.append(("due", f"{late['id']} since {late['due']} in {late['queue']}: {late['text']}{until}"))
    return format_fields(fields)
