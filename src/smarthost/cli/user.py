"""smarthost user: hashes a password for the configuration."""

import argparse
import getpass
import json
import sys

from smarthost.cli.exits import misused
from smarthost.cli.parser import add_json
from smarthost.crypto.password import hash_password

LONGEST = 4096  # octets of a password


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    hashing = actions.add_parser(
        "hash",
        help="print the Argon2id hash of a password",
        description="Reads a password from standard input (its first line), or asks twice on a terminal, and prints "
        'the hash that goes into the configuration: [[user]] password = "...". The password is never an argument: '
        "other users of the machine could read it.",
    )
    add_json(hashing)


def run(chosen: argparse.Namespace) -> int:
    """Run the command; gives the exit code."""
    hashed = hash_password(read_password())
    print(json.dumps({"password": hashed}) if chosen.json else hashed)
    return 0


def read_password() -> str:
    """Read a password: twice from a terminal, else the first line of standard input."""
    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != password:
            raise misused("the two passwords differ")
    else:
        try:
            password = sys.stdin.buffer.readline(LONGEST + 2).rstrip(b"\r\n").decode()
        except UnicodeDecodeError:
            raise misused("the password on standard input is not UTF-8") from None
    if not password:
        raise misused("the password is empty")
    if len(password.encode()) > LONGEST or "\0" in password:
        raise misused(f"the password is longer than {LONGEST} octets, or holds a NUL")
    return password
