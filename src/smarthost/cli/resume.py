"""smarthost resume: lets a site, a route, a user or a batch that was suspended send again."""

import argparse
import json

from smarthost.cli.parser import add_json, add_relay
from smarthost.cli.relay import ask_one
from smarthost.cli.settings import find_data_directory
from smarthost.cli.suspend import KINDS


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("kind", choices=KINDS, help="what was suspended")
    parser.add_argument("name", metavar="NAME", help="its name, as it was suspended")
    add_relay(parser)
    add_json(parser)


def run(chosen: argparse.Namespace) -> int:
    """Run the command; gives the exit code."""
    row = ask_one(find_data_directory(chosen), "resume", {"kind": chosen.kind, "name": chosen.name})
    print(json.dumps(row, ensure_ascii=False) if chosen.json else f"resumed: {row['kind']} {row['name']}")
    return 0
