"""smarthost explain: says what would become of a message, and when it would leave; sends nothing."""

import argparse
import asyncio
import json
import os
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from smarthost.cli.exits import CommandFailed, misconfigured
from smarthost.cli.explain_format import format_explanation
from smarthost.cli.parser import add_json, add_relay
from smarthost.cli.relay import RelayDown, ask_one
from smarthost.cli.settings import find_data_directory, load_config
from smarthost.control_verbs import Question, Refusal
from smarthost.crypto.dkim_keys import KeyUnreadable
from smarthost.explain import explain, known_from

# What would not be sent, or not now, is no success for a script.
_EXIT_CODES: Mapping[str, int] = MappingProxyType(
    {"refused": os.EX_NOPERM, "suppressed": os.EX_NOPERM, "fails": os.EX_NOHOST, "unresolved": os.EX_TEMPFAIL}
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments."""
    parser.add_argument("recipient", metavar="RECIPIENT", help="the address that the message would go to")
    parser.add_argument("--sender", default="", metavar="ADDRESS", help='the reverse-path, "<>" for the null one')
    parser.add_argument("--from", dest="author", default="", metavar="ADDRESS", help="the header From [the sender]")
    parser.add_argument("--user", default="", metavar="NAME", help="the user who hands it in [nobody]")
    parser.add_argument("--tag", default="", metavar="WORD", help="its X-Smarthost-Tag [none]")
    parser.add_argument(
        "--address", default="", metavar="IP", help="our address as others see it, for SPF [the local one]"
    )
    add_relay(parser)
    add_json(parser)


def run(chosen: argparse.Namespace) -> int:
    """Run the command; gives 0, 68 (the domain takes no mail), 75 (DNS gives no answer) or 77 (refused)."""
    question = Question(chosen.recipient, chosen.sender, chosen.author, chosen.user, chosen.tag, chosen.address)
    try:
        row = ask_one(find_data_directory(chosen), "explain", msgspec.to_builtins(question))
    except RelayDown:
        if chosen.data_directory is not None and chosen.config is None:
            raise  # whose configuration it would be, nobody has said
        row = _from_configuration(chosen, question)
    if chosen.json:
        print(json.dumps(row, ensure_ascii=False))
    else:
        print(format_explanation(row, time.time()), end="")
    return _EXIT_CODES.get(row["verdict"], os.EX_OK)


def _from_configuration(chosen: argparse.Namespace, question: Question) -> dict[str, Any]:
    """Say what the configuration alone says, as no relay runs."""
    config = load_config(chosen)

    async def answer() -> dict[str, Any]:
        return await explain(known_from(config, time.time), question)

    try:
        return asyncio.run(answer())
    except KeyUnreadable as fault:
        raise misconfigured(str(fault)) from None
    except Refusal as refusal:
        raise CommandFailed(str(refusal), os.EX_USAGE) from None
