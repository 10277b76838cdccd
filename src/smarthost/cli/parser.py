"""Parser: argparse with the exit codes of sysexits.h, and the options that many commands share."""

import argparse
import os
import re
from pathlib import Path
from typing import NoReturn

_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")


class Parser(argparse.ArgumentParser):
    """Argument parser whose errors are one sentence and exit 64."""

    def __init__(self, **settings: object) -> None:
        """Take argparse's settings; a shortened option is an error, since it may mean another one tomorrow."""
        settings.setdefault("allow_abbrev", False)
        super().__init__(**settings)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, on standard error, and exit 64."""
        self.exit(os.EX_USAGE, f"{self.prog}: {message}\n{self.prog} --help shows what there is\n")


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the configuration."""
    parser.add_argument("--config", metavar="FILE", type=Path, help="the configuration [SMARTHOST_CONFIG, else /etc]")


def add_relay(parser: argparse.ArgumentParser) -> None:
    """Add the options by which a running relay is found."""
    add_config(parser)
    parser.add_argument(
        "--data-directory",
        metavar="DIR",
        type=Path,
        help="the relay's data directory; then no configuration is read",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option that turns tables into JSON."""
    parser.add_argument("--json", action="store_true", help="JSON for programs: one object, or one object a line")


def parse_age(text: str) -> float:
    """Read an age such as "90s", "30min", "4h" or "2d" as seconds; for argparse."""
    found = _DURATION.fullmatch(text.strip().lower())
    unit = _UNITS.get(found.group(2) or "s") if found else None
    if found is None or unit is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no age: 90s, 30min, 4h and 2d are")
    return float(found.group(1)) * unit
