"""smarthost status: says how the running relay is."""

import argparse
import json
from typing import Any

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
        print(format_fields([(key, _write(value)) for key, value in done.items()]), end="")
    return 0


def _write(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(str(inner) for inner in value)
    return str(value)
