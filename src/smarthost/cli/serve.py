"""smarthost serve: runs the relay."""

import argparse

from smarthost import server
from smarthost.cli.parser import add_config
from smarthost.cli.settings import load_config


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_config(parser)
    parser.epilog = (
        "SIGTERM: accept no more, let running transactions end, exit 0; a second one exits at once. "
        "SIGHUP: read the configuration again."
    )


def run(chosen: argparse.Namespace) -> int:
    """Run the relay until it is stopped; gives its exit code."""
    return server.main(load_config(chosen))
