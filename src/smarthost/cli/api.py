"""Api: a command's side of the HTTP API: where it is, with which key, and what goes wrong as an exit code."""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smarthost.cli.exits import CommandFailed, misused, refused, unavailable
from smarthost.cli.parser import add_config
from smarthost.cli.settings import load_config
from smarthost.client import ApiError, Client, SmarthostError, Unreachable, Unreadable

_ANY_HOST = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "": "127.0.0.1"}
_EXIT_CODES = {401: os.EX_NOPERM, 403: os.EX_NOPERM, 404: os.EX_NOINPUT, 429: os.EX_TEMPFAIL, 503: os.EX_TEMPFAIL}


def add_api(parser: argparse.ArgumentParser) -> None:
    """Add the options by which the API is found and opened."""
    add_config(parser)
    parser.add_argument("--url", default="", help="where the API is [SMARTHOST_URL, else [http] of the configuration]")
    parser.add_argument("--key-file", type=Path, metavar="FILE", help="the API key's file [else SMARTHOST_API_KEY]")
    parser.add_argument(
        "--ca", type=Path, metavar="FILE", help="certificates that are trusted, for an address by https"
    )


@contextmanager
def api_client(chosen: argparse.Namespace) -> Iterator[Client]:
    """Give a client for the time of a command; what goes wrong with it ends the command (CommandFailed)."""
    key = _read_key(chosen)
    try:
        client = Client(chosen.url or os.environ.get("SMARTHOST_URL", "") or _find_url(chosen), key, ca=chosen.ca)
    except ValueError as error:
        raise misused(str(error)) from None
    except OSError as error:
        raise misused(f"{chosen.ca} cannot be read: {error.strerror or error}") from None
    with client:
        try:
            yield client
        except SmarthostError as fault:
            raise _failed(fault) from None


def _read_key(chosen: argparse.Namespace) -> str:
    if chosen.key_file is None:
        key = os.environ.get("SMARTHOST_API_KEY", "")
        if not key:
            raise misused("no API key: --key-file or SMARTHOST_API_KEY gives one; smarthost key add makes one")
        return key
    try:
        text: str = chosen.key_file.read_text()
    except UnicodeDecodeError:
        raise misused(f"{chosen.key_file} has no key") from None
    except OSError as error:
        raise refused(f"{chosen.key_file} cannot be read: {error.strerror or error}") from None
    return text.strip() or _no_key(chosen.key_file)


def _no_key(file: Path) -> str:
    raise misused(f"{file} is empty")


def _find_url(chosen: argparse.Namespace) -> str:
    address = load_config(chosen).http_address
    if not address:
        raise unavailable("the configuration has no [http] address; --url says where the API is")
    host, _, port = address.rpartition(":")
    return f"http://{_ANY_HOST.get(host, host)}:{port}"


def _failed(fault: SmarthostError) -> CommandFailed:
    if isinstance(fault, ApiError):
        fields = [f"\n  {each.field}: {each.message}" for each in fault.errors]
        code = _EXIT_CODES.get(fault.status, os.EX_SOFTWARE if fault.status >= 500 else os.EX_DATAERR)
        return CommandFailed(f"the relay refused: {fault.detail or fault.title}{''.join(fields)}", code)
    if isinstance(fault, Unreadable):
        return CommandFailed(f"this is not the relay's API: {fault}", os.EX_PROTOCOL)
    assert isinstance(fault, Unreachable)
    return unavailable(str(fault))
