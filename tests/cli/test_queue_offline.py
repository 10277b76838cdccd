"""Reading the spool of a relay that is down."""

import asyncio
import json
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from smarthost.__main__ import main
from smarthost.mail.entry import Entry, Why
from smarthost.mail.envelope import Envelope, Recipient
from smarthost.mail.event import Event, Kind
from smarthost.mail.message import Arrival, Message, MessageIds, format_id
from smarthost.spool import schema
from smarthost.spool.sqlite import SqliteSpool
from smarthost.spool.store import Accepted, Content

NEVER = float("inf")
LARGE = b"Subject: large\r\n\r\n" + b"x" * 300_000 + b"\r\n"


async def fill(folder: Path) -> list[str]:
    """Put two messages into a spool: a small one that is due, a large one that is held; give their ids."""
    now = time.time()
    spool = SqliteSpool.open(folder, loop=asyncio.get_running_loop(), clock=time.time, on_fatal=lambda reason: None)
    ids = MessageIds()
    small, large = ids.mint(now), ids.mint(now)
    file = spool.new_file(large)
    file.write(LARGE)
    file.seal()
    contents = [Content(b"Subject: small\r\n\r\n", "", 18), Content(b"Sig: 1\r\n", file.name, len(LARGE) + 8)]
    for number, content, name in zip((small, large), contents, ("a", "b"), strict=True):
        recipient = Recipient(f"{name}@example.net", "example.net")
        envelope = Envelope(f"{name}@example.org", (recipient,))
        message = Message(number, Arrival(now), envelope, content.size)
        due, why = (now, Why.NEW) if name == "a" else (NEVER, Why.HELD)
        entry = Entry(message, 1, "mx/example.net", (recipient,), due, now + 1000, due, why=why)
        done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        spool.record([Event(time=now, event=Kind.ACCEPTED, message=number, sender=f"{name}@example.org")])
        spool.accept(Accepted(message, content, (entry,)), done.set_result)
        assert await done is None
    await spool.close()
    return [format_id(small), format_id(large)]


@pytest.fixture
def ids(tmp_path: Path) -> list[str]:
    """The ids of two messages in the spool of a data directory whose relay is down."""
    return asyncio.run(fill(tmp_path / "spool"))


def run(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Run a queue command in this process; give exit code and what was printed."""
    exit_code = main(["queue", *arguments, "--data-directory", str(folder)])
    printed = capsys.readouterr()
    return exit_code, printed.out, printed.err


def test_list_and_show(ids: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Entries are listed by the same filters as by the running relay, and it is said that it is down."""
    exit_code, out, err = run(capsys, tmp_path, "list", "--json")
    assert (exit_code, [json.loads(line)["id"] for line in out.splitlines()]) == (0, ids)
    assert "the relay is not running" in err
    exit_code, out, _ = run(capsys, tmp_path, "list", "--json", "--sender", "B@*", "--why", "held")
    assert [json.loads(line)["id"] for line in out.splitlines()] == ids[1:]
    assert json.loads(out)["due"] is None
    assert "nothing in the queue fits" in run(capsys, tmp_path, "list", "--route", "relayhost")[1]
    exit_code, out, _ = run(capsys, tmp_path, "show", ids[0], "--json")
    shown = json.loads(out)
    assert (exit_code, shown["message"]["sender"], shown["events"][0]["event"]) == (0, "a@example.org", "accepted")
    assert run(capsys, tmp_path, "show", "0" * 12)[0] == os.EX_NOINPUT


def test_a_spool_of_schema_1_has_an_empty_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before a newer relay has opened an older spool, nothing is suppressed in it; that is no damage."""
    (tmp_path / "spool").mkdir()
    with closing(sqlite3.connect(tmp_path / "spool" / schema.DATABASE)) as database:
        for statement in schema.MIGRATIONS[0]:
            database.execute(statement)
        database.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        database.commit()
    where = ("--data-directory", str(tmp_path))
    assert main(["suppress", "list", *where]) == 0
    assert "no address is on the suppression list" in capsys.readouterr().out
    assert main(["suppress", "export", *where]) == 0
    assert capsys.readouterr().out.startswith("address,user")


def test_export(ids: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Small and large content come out octet for octet; a content file that is gone is told and is exit 65."""
    out = tmp_path / "out"
    assert run(capsys, tmp_path, "export", "--all", "--out", str(out))[0] == 0
    assert (out / f"{ids[0]}.eml").read_bytes() == b"Subject: small\r\n\r\n"
    assert (out / f"{ids[1]}.eml").read_bytes() == b"Sig: 1\r\n" + LARGE
    (tmp_path / "spool" / "content" / ids[1]).unlink()
    exit_code, _, err = run(capsys, tmp_path, "export", "--all", "--out", str(out))
    assert (exit_code, f"{ids[1]}: the content is missing or damaged" in err) == (os.EX_DATAERR, True)


def test_changes_need_the_relay(ids: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is changed in the spool of a relay that is down."""
    assert run(capsys, tmp_path, "delete", ids[0])[0] == os.EX_UNAVAILABLE


def test_damaged_spool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no database is one sentence, and no traceback."""
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "spool.db").write_bytes(b"no database at all" * 100)
    exit_code, _, err = run(capsys, tmp_path, "list")
    assert (exit_code, "is damaged" in err) == (os.EX_DATAERR, True)
