"""Reads the queue through the running relay, or, when it is down, from its spool without changing anything."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from smarthost.cli import queue_offline
from smarthost.cli.exits import CommandFailed
from smarthost.cli.relay import RelayDown, ask, ask_one
from smarthost.mail.message import parse_id
from smarthost.spool.store import Filter

Row = dict[str, Any]


def list_entries(folder: Path, wanted: Mapping[str, Any], limit: int) -> Iterator[Row]:
    """Give the entries that a filter chooses, at most `limit` of them unless it is 0."""

    def offline(spool: Path) -> Iterator[Row]:
        return queue_offline.list_entries(spool, _to_filter(wanted), limit)

    return read_rows(folder, "queue.list", {"filter": wanted, "limit": limit}, offline)


def export_messages(folder: Path, wanted: Mapping[str, Any]) -> Iterator[Row]:
    """Give whole messages as rows; content is in base64."""

    def offline(spool: Path) -> Iterator[Row]:
        return queue_offline.export_messages(spool, _to_filter(wanted))

    return read_rows(folder, "queue.export", {"filter": wanted}, offline)


def show_message(folder: Path, message: str) -> Row:
    """Give a message with its entries and events; raises CommandFailed (66) when nobody knows it."""
    try:
        return ask_one(folder, "queue.show", {"id": message})
    except RelayDown as down:
        shown = queue_offline.show_message(find_spool(folder, down), parse_id(message) or 0)
    if shown is None:
        detail = f"{message} is neither in the queue nor in the history that is kept"
        raise CommandFailed(detail, os.EX_NOINPUT)
    return shown


def read_rows(
    folder: Path, verb: str, arguments: Mapping[str, Any], offline: Callable[[Path], Iterator[Row]]
) -> Iterator[Row]:
    """Give the running relay's answer to a verb, or what `offline` reads from the spool of one that is down."""
    try:
        rows = iter(ask(folder, verb, arguments))
    except RelayDown as down:
        rows = offline(find_spool(folder, down))
    yield from rows


def find_spool(folder: Path, down: RelayDown) -> Path:
    """Find the spool of a relay that is down, and say that it is read; raises what said that it is down if none."""
    spool = queue_offline.find_spool(folder)
    if spool is None:
        raise down
    print(f"smarthost: the relay is not running; this is what its spool in {spool} holds", file=sys.stderr)
    return spool


def _to_filter(wanted: Mapping[str, Any]) -> Filter:
    ids = tuple(number for text in wanted.get("ids", ()) if (number := parse_id(text)) is not None)
    return msgspec.convert({**wanted, "ids": ids}, Filter)
