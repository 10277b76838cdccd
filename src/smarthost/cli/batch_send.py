"""Sends a batch: the file is checked, streamed to the relay with a bar, and waited for where that is wanted."""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from secrets import token_urlsafe

import msgspec

from smarthost.cli.exits import CommandFailed, misused, unavailable
from smarthost.cli.progress import Progress
from smarthost.cli.recipients_file import DATA_ERROR, Convert, converter, read_recipients
from smarthost.client import (
    BatchRecipient,
    BatchSummary,
    Client,
    Forbidden,
    NewBatch,
    SentBatch,
    Unreachable,
)

_FIRST_LOOK, _LONGEST_LOOK = 0.2, 2.0  # seconds between two looks at a batch that is waited for


def send(client: Client, chosen: argparse.Namespace) -> int:
    """Send the batch of the command line; gives the exit code."""
    batch = NewBatch(
        template_id=chosen.template,
        from_=chosen.author,
        reply_to=chosen.reply_to,
        tag=chosen.tag,
        priority=chosen.priority,
        send_at=chosen.send_at,
        route=chosen.route,
        account_id=chosen.account,
        metadata=_pairs(chosen.metadata, "--metadata"),
    )
    convert = _convert(client, chosen.template)
    words = _pairs(chosen.var, "--var")
    try:
        given = {name: convert(name, text) for name, text in words.items()}
    except ValueError as error:
        raise misused(f"--var {error}") from None
    is_json = chosen.format == "jsonl" or (not chosen.format and chosen.file.suffix in (".jsonl", ".ndjson"))
    with _as_file(chosen.file) as file:

        def read() -> Iterator[BatchRecipient]:
            return read_recipients(file, is_json, given, convert)

        total = sum(1 for _ in read())
        if not total:
            raise CommandFailed(f"{chosen.file}: there are no recipients", DATA_ERROR)
        key = chosen.idempotency_key or token_urlsafe(24)
        with Progress("sending", total) as bar:

            def give() -> Iterator[BatchRecipient]:
                for count, each in enumerate(read(), 1):
                    bar.show(count)
                    yield each

            try:
                sent = client.batches.send(batch, give, idempotency_key=key)
            except Unreachable as fault:
                hint = f"; once more with --idempotency-key {key} sends nothing twice"
                raise unavailable(f"{fault}{hint if fault.may_be_done else ''}") from None
    summary = wait(client, sent.id) if chosen.wait else None
    _tell(sent, summary, chosen.json)
    return 0


def wait(client: Client, id: str) -> BatchSummary:
    """Wait until a batch is over, with a bar that shows how far it is."""
    look = _FIRST_LOOK
    summary = client.batches.summary(id)
    with Progress("delivering", summary.total) as bar:
        while not summary.is_over:
            lost = sum(count for name, count in summary.events.items() if name != "SENT")
            bar.show(summary.total - summary.pending, f"{lost:,} not sent" if lost else summary.status.lower())
            time.sleep(look)
            look = min(look * 1.5, _LONGEST_LOOK)
            summary = client.batches.summary(id)
    return summary


def _tell(sent: SentBatch, summary: BatchSummary | None, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(summary or sent).decode())
        return
    for each in sent.rejected:
        print(f"{each.email}: {each.reason}", file=sys.stderr)
    if sent.invalid > len(sent.rejected):
        print(f"and {sent.invalid - len(sent.rejected)} more addresses that are none", file=sys.stderr)
    print(f"{sent.id} {(summary or sent).status} {sent.recipients - sent.invalid} recipients")
    if summary is not None:
        print(", ".join(f"{name.lower()} {count}" for name, count in summary.events.items()))


def _convert(client: Client, template: str) -> Convert:
    """Give what reads cells as the template's variables; a key that may not read takes all for text."""
    try:
        return converter(client.templates.get(template).variables)
    except Forbidden:
        return converter({})


@contextmanager
def _as_file(file: Path) -> Iterator[Path]:
    """Give a file that can be read as often as it takes: standard input is written to one."""
    if str(file) != "-":
        yield file
        return
    with tempfile.NamedTemporaryFile(prefix="recipients-") as copy:
        shutil.copyfileobj(sys.stdin.buffer, copy)
        copy.flush()
        yield Path(copy.name)


def _pairs(words: Sequence[str], option: str) -> dict[str, str]:
    pairs = {}
    for each in words:
        name, equals, value = each.partition("=")
        if not name or not equals:
            raise misused(f"{option} {each!r}: NAME=VALUE is needed")
        pairs[name] = value
    return pairs
