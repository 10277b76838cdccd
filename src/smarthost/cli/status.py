"""smarthost status: says how the running relay is."""

import argparse
import json

from smarthost.cli.parser import add_json, add_relay
from smarthost.cli.relay import ask_one
from smarthost.cli.settings import find_data_directory
from smarthost.cli.table import format_fields


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_relay(parser)
    add_json(parser)


def run(chosen: argparse.Namespace) -> int:
    """Run the command; gives the exit code."""
    done = ask_one(find_data_directory(chosen), "status", {})
    if chosen.json:
        print(json.dumps(done))
    else:
        print(format_fields(list(done.items())), end="")
    return 0
