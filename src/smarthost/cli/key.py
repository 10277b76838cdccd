"""smarthost key: makes, lists and revokes API keys; makes tokens of the operator's own for the configuration."""

import argparse
import hashlib
import json
import secrets
import time

from smarthost.cli.exits import misused
from smarthost.cli.parser import add_json, add_relay, parse_age
from smarthost.cli.queue_format import age_of, time_left
from smarthost.cli.relay import Row, ask, ask_one
from smarthost.cli.settings import find_data_directory
from smarthost.cli.table import format_table

SCOPES = ("send", "read", "admin")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    adding = actions.add_parser("add", help="make a key; it is printed this once, and kept only as a hash")
    adding.add_argument("--tenant", default="", metavar="NAME", help="whose key it is [default]")
    adding.add_argument("--name", default="", metavar="TEXT", help="what it is for, to be told from others")
    adding.add_argument("--scope", action="append", choices=SCOPES, help="what it may do; may be given often [send]")
    adding.add_argument("--expires", type=parse_age, default=0.0, metavar="TIME", help="from now on [never]")
    adding.add_argument("--rate", action="append", metavar="RATE", help='messages, as "10/s" or "1000/d" [no limit]')
    listing = actions.add_parser("list", help="list keys, without what opens a door")
    listing.add_argument("--tenant", default="", metavar="NAME", help="of this tenant only")
    revoking = actions.add_parser("revoke", help="make a key good for nothing, at once")
    revoking.add_argument("id", metavar="ID", help="the 8 characters after sh_")
    for each in (adding, listing, revoking):
        add_relay(each)
        add_json(each)
    token = actions.add_parser(
        "token",
        help="make a token for the operator, and its hash for the configuration",
        description="Prints a new token and the line for [http] tokens. Such a token may do everything, for every "
        "tenant; it is revoked by taking the line out and reloading.",
    )
    add_json(token)


def run(chosen: argparse.Namespace) -> int:
    """Run the command; gives the exit code."""
    if chosen.action == "token":
        return _token(chosen.json)
    folder = find_data_directory(chosen)
    if chosen.action == "list":
        return _list(list(ask(folder, "key.list", {"tenant": chosen.tenant})), chosen.json)
    if chosen.action == "revoke":
        row = ask_one(folder, "key.revoke", {"id": _id_of(chosen.id)})
        print(json.dumps(row, ensure_ascii=False) if chosen.json else f"revoked: {row['id']} of {row['tenant']}")
        return 0
    asked = {
        "tenant": chosen.tenant,
        "name": chosen.name,
        "scopes": chosen.scope or ["send"],
        "expires": time.time() + chosen.expires if chosen.expires else 0.0,
        "message_rate": chosen.rate or [],
    }
    row = ask_one(folder, "key.add", asked)
    print(json.dumps(row, ensure_ascii=False) if chosen.json else row["key"])
    return 0


def _id_of(text: str) -> str:
    """Take a whole key too, as it is what a person has at hand."""
    identity = text[3:11] if text.startswith("sh_") else text
    if not identity:
        raise misused("which key?")
    return identity


def _token(as_json: bool) -> int:
    token = "sho_" + secrets.token_urlsafe(32)
    hashed = "sha256:" + hashlib.sha256(token.encode()).hexdigest()
    print(json.dumps({"token": token, "hash": hashed}) if as_json else f'{token}\n[http] tokens = ["{hashed}"]')
    return 0


def _list(rows: list[Row], as_json: bool) -> int:
    now = time.time()
    if as_json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
    elif not rows:
        print("there are no keys; smarthost key add makes one")
    else:
        cells = [_cells(row, now) for row in rows]
        print(format_table(("ID", "TENANT", "SCOPES", "AGE", "USED", "ENDS", "NAME"), cells), end="")
    return 0


def _cells(row: Row, now: float) -> tuple[str, ...]:
    ends = "revoked" if row["revoked"] else (time_left(row["expires"], now) or "-")
    used = age_of(row["used"], now) if row["used"] else "never"
    scopes = ",".join(map(str, row["scopes"])) if isinstance(row["scopes"], list) else ""
    return str(row["id"]), str(row["tenant"]), scopes, age_of(row["created"], now), used, ends, str(row["name"])
