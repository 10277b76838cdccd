"""smarthost template: lists, adds, shows, fills in and removes templates, from which the HTTP door makes messages."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from smarthost.cli.exits import misused
from smarthost.cli.parser import add_json, add_relay
from smarthost.cli.queue_format import age_of
from smarthost.cli.relay import Row, ask, ask_one
from smarthost.cli.settings import find_data_directory
from smarthost.cli.table import format_fields, format_table, printable

TYPES = ("string", "number", "integer", "boolean", "array", "object")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add(actions, "list", "list a tenant's templates")
    adding = _add(actions, "add", "make a template, from a file of JSON as the API takes it, or from options")
    adding.add_argument("file", metavar="FILE", nargs="?", help='JSON; "-" is standard input')
    adding.add_argument("--name", metavar="TEXT", help="its name, unique within the tenant")
    adding.add_argument("--subject", metavar="TEXT", help="in Handlebars, as the bodies")
    adding.add_argument("--html", metavar="FILE", help="the file of the HTML body")
    adding.add_argument("--text", metavar="FILE", help="the file of the text body")
    adding.add_argument(
        "--variable", action="append", default=[], metavar="NAME[:TYPE[:required]]", help=f"{', '.join(TYPES)}"
    )
    adding.add_argument("--replace", action="store_true", help="put it in the place of the one with this name")
    _add(actions, "show", "show a template whole").add_argument("template", metavar="TEMPLATE", help="its name or id")
    filling = _add(actions, "preview", "fill a template in, and send nothing")
    filling.add_argument("template", metavar="TEMPLATE", help="its name or id")
    filling.add_argument("variables", metavar="NAME=VALUE", nargs="*", help="a value is JSON, else a text")
    filling.add_argument("--variables", dest="object", metavar="JSON", help="all at once, as an object")
    _add(actions, "remove", "remove a template").add_argument("template", metavar="TEMPLATE", help="its name or id")


def _add(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--tenant", default="", metavar="NAME", help="whose templates [default]")
    add_relay(parser)
    add_json(parser)
    return parser


def run(chosen: argparse.Namespace) -> int:
    """Run the command; gives the exit code."""
    # What is read from files is read before the relay is looked for.
    form = _form(chosen) if chosen.action == "add" else {}
    folder = find_data_directory(chosen)
    whose = {"tenant": chosen.tenant}
    if chosen.action == "list":
        return _list(list(ask(folder, "template.list", whose)), chosen.json)
    if chosen.action == "add":
        row = ask_one(folder, "template.add", whose | {"form": form, "replaces": chosen.replace})
        print(json.dumps(row, ensure_ascii=False) if chosen.json else row["id"])
        return 0
    asked = whose | {"name": chosen.template}
    if chosen.action == "remove":
        row = ask_one(folder, "template.remove", asked)
        print(json.dumps(row, ensure_ascii=False) if chosen.json else f"removed: {row['id']} {printable(row['name'])}")
        return 0
    if chosen.action == "preview":
        row = ask_one(folder, "template.preview", asked | {"variables": _variables(chosen)})
    else:
        row = ask_one(folder, "template.show", asked)
    print(json.dumps(row, ensure_ascii=False) if chosen.json else _whole(row), end="\n" if chosen.json else "")
    return 0


def _form(chosen: argparse.Namespace) -> dict[str, Any]:
    """Give the template that is wanted; options stand above the file."""
    form: Any = {}
    if chosen.file is not None:
        try:
            form = json.loads(sys.stdin.read() if chosen.file == "-" else _read(chosen.file))
        except json.JSONDecodeError as error:
            raise misused(f"{chosen.file}: is not JSON: {error}") from None
        if not isinstance(form, dict):
            raise misused(f"{chosen.file}: is not a JSON object")
    given = {"name": chosen.name, "subject": chosen.subject}
    given |= {name: _read(file) for name in ("html", "text") if (file := getattr(chosen, name)) is not None}
    merged: dict[str, Any] = form | {name: value for name, value in given.items() if value is not None}
    if chosen.variable:
        merged["variables"] = dict(map(_variable, chosen.variable))
    if not merged:
        raise misused("template add wants a file, or at least --name, --subject and --text or --html")
    return merged


def _variable(text: str) -> tuple[str, dict[str, Any]]:
    name, _, rest = text.partition(":")
    kind, _, word = rest.partition(":")
    if not name or word not in ("", "required") or kind not in ("", *TYPES):
        raise misused(f"{text!r}: NAME, NAME:TYPE or NAME:TYPE:required is wanted, with TYPE one of {', '.join(TYPES)}")
    return name, {"type": kind or "string", "required": word == "required"}


def _variables(chosen: argparse.Namespace) -> dict[str, Any]:
    try:
        found = json.loads(chosen.object) if chosen.object else {}
    except json.JSONDecodeError as error:
        raise misused(f"--variables is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise misused("--variables is not a JSON object")
    for text in chosen.variables:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise misused(f"{text!r}: NAME=VALUE is wanted")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise misused(f"{file}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise misused(f"{file}: is not UTF-8") from None


def _list(rows: list[Row], as_json: bool) -> int:
    now = time.time()
    if as_json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
    elif not rows:
        print("there are no templates; smarthost template add makes one")
    else:
        cells = [
            (row["id"], row["name"], age_of(row["updated"], now), f"{row['revision']}", _told(row), row["subject"])
            for row in rows
        ]
        print(format_table(("ID", "NAME", "CHANGED", "REV", "VARIABLES", "SUBJECT"), cells), end="")
    return 0


def _told(row: Row) -> str:
    """Write variables in one line; those that are required are marked."""
    return " ".join(name + ("*" if each["required"] else "") for name, each in row["variables"].items()) or "-"


def _whole(row: Row) -> str:
    """Lay a template out for a person: its fields, then its bodies as they are."""
    head = [(name, row.get(name)) for name in ("id", "tenant", "name", "subject", "created", "updated", "revision")]
    if row.get("variables"):
        head.append(("variables", _told(row)))
    parts = [format_fields(head)]
    for name in ("text", "html"):
        if row.get(name):
            body = "\n".join(printable(line) for line in row[name].splitlines())
            parts.append(f"\n{name}:\n{body}\n")
    return "".join(parts)
