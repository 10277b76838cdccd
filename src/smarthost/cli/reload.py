"""smarthost reload: makes the running relay read its configuration again."""

import argparse
import json
import os
import sys

from smarthost.cli.parser import add_json, add_relay
from smarthost.cli.relay import ask_one
from smarthost.cli.settings import find_data_directory


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_relay(parser)
    add_json(parser)


def run(chosen: argparse.Namespace) -> int:
    """Run the command; gives the exit code: 78 when the relay refused the new configuration and keeps the old."""
    done = ask_one(find_data_directory(chosen), "reload", {})
    problems = done.get("problems", [])
    if chosen.json:
        print(json.dumps(done))
    else:
        for problem in problems:
            print(problem, file=sys.stderr)
        for warning in done.get("warnings", []):
            print(f"warning: {warning}", file=sys.stderr)
        print("reloaded" if not problems else "the old configuration stays in use")
    return os.EX_CONFIG if problems else os.EX_OK
