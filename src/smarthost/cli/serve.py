"""smarthost serve: runs the relay."""

import argparse
import resource

from smarthost import running
from smarthost.cli.parser import add_config
from smarthost.cli.settings import load_config

FILES = 65_536  # that may be open, as in the systemd unit: mail for thousands of destinations has as many connections


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    add_config(parser)
    parser.epilog = (
        "SIGTERM: accept no more, let running transactions end, exit 0; a second one exits at once. "
        "SIGHUP: read the configuration again."
    )


def run(chosen: argparse.Namespace) -> int:
    """Run the relay until it is stopped; gives its exit code."""
    config = load_config(chosen)
    allow_files()
    return running.main(config)


def allow_files() -> None:
    """Raise the limit of open files as far as the system lets us; most shells begin with 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
