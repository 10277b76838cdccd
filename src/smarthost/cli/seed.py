"""smarthost seed: makes a test key and a sample template, and says how to send a first message with them."""

import argparse
import json
import shlex
import time
from typing import Any

from smarthost.cli.exits import unavailable
from smarthost.cli.parser import add_json, add_relay, parse_age
from smarthost.cli.relay import ask_one
from smarthost.cli.settings import find_data_directory

LIFE = 30 * 86400.0  # seconds for which the key is good: what is made for a test is forgotten
SAMPLE = {
    "name": "sample-welcome",
    "subject": "Welcome, {{name}}",
    "text": "Hello {{name}},\n\nthis message came from a template.\n{{#each items}}- {{this}}\n{{/each}}",
    "html": "<p>Hello <b>{{name}}</b>,</p><p>this message came from a template.</p>"
    "{{#if items}}<ul>{{#each items}}<li>{{this}}</li>{{/each}}</ul>{{/if}}",
    "variables": {"name": {"type": "string", "required": True}, "items": {"type": "array", "required": False}},
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("--tenant", default="", metavar="NAME", help="whose key and template [default]")
    parser.add_argument("--from", dest="author", default="", metavar="ADDRESS", help="author [seed@ the relay's name]")
    parser.add_argument("--to", default="", metavar="ADDRESS", help="recipient of the message [the postmaster]")
    parser.add_argument(
        "--expires", type=parse_age, default=LIFE, metavar="TIME", help="until when the key is good [30d]"
    )
    add_relay(parser)
    add_json(parser)


def run(chosen: argparse.Namespace) -> int:
    """Run the command; gives the exit code."""
    folder = find_data_directory(chosen)
    relay = ask_one(folder, "status", {})
    if not relay.get("api"):
        raise unavailable("the HTTP door is closed: [http] address opens it")
    template = ask_one(folder, "template.add", {"tenant": chosen.tenant, "form": SAMPLE, "replaces": True})
    key = ask_one(
        folder,
        "key.add",
        {
            "tenant": chosen.tenant,
            "name": "seed",
            "scopes": ["send", "read", "admin"],
            "expires": time.time() + chosen.expires,
        },
    )
    author = chosen.author or f"seed@{relay['hostname']}"
    command = _command(relay["api"], key["key"], author, chosen.to or relay["postmaster"], template["id"])
    made = {"key": key["key"], "key_id": key["id"], "tenant": key["tenant"], "expires": key["expires"]}
    made |= {"template_id": template["id"], "template": template["name"], "api": relay["api"], "curl": command}
    if chosen.json:
        print(json.dumps(made, ensure_ascii=False))
    else:
        print(f"key       {made['key']}")
        print(
            f"          shown this once; scopes send, read, admin; of tenant {made['tenant']}, until {made['expires']}"
        )
        print(f"template  {made['template_id']} ({made['template']})")
        print(f"\nA first message, to {chosen.to or relay['postmaster']}:\n\n{command}")
    return 0


def _command(api: str, key: str, author: str, recipient: str, template: str) -> str:
    """Write the line for a shell."""
    message: dict[str, Any] = {"from": author, "to": recipient, "template_id": template}
    message["variables"] = {"name": "Ada", "items": ["one", "two"]}
    content = shlex.quote(json.dumps(message, ensure_ascii=False))
    return (
        f"curl -sS {api}/api/v1/messages -H 'Authorization: Bearer {key}' "
        f"-H 'Content-Type: application/json' -d {content}"
    )
