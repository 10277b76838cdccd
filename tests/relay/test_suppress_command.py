"""smarthost suppress: files in and out, with the relay and without it, and what goes wrong said by exit status."""

import json
import os
from asyncio import to_thread
from pathlib import Path

import pytest
from relay_house import House

from smarthost.__main__ import main
from smarthost.mail.envelope import Recipient
from smarthost.policy.suppression import SuppressionRules

pytestmark = pytest.mark.asyncio

CSV = """Email,Reason,User,Expires
bob@example.net,complained,,
"amy@example.net","left, long ago",app1,2100-01-01T00:00:00Z
old@example.net,over,,2001-01-01T00:00:00Z
"""


async def suppress(house: House, *words: str) -> int:
    """Run the command against the relay, or its disk."""
    action, *rest = words
    return await to_thread(main, ["suppress", action, "--data-directory", str(house.folder), *rest])


async def test_a_file_goes_in_and_comes_out(house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """CSV and plain lists are imported, counts are told, a dry run does nothing, an export can be imported again."""
    await house.open(suppression=SuppressionRules(enabled=True))
    table, lines, out = tmp_path / "list.csv", tmp_path / "list.txt", tmp_path / "out.csv"
    table.write_text(CSV)
    lines.write_text("# a provider's list\n\nCarl@Example.net\n<dora@bücher.example>\nnobody\n")
    assert await suppress(house, "import", str(table), "--dry-run") == 0
    assert capsys.readouterr().out == "added 2, known 0, invalid 0: nothing was done (--dry-run)\n"
    assert await suppress(house, "import", str(table)) == 0
    assert await suppress(house, "import", str(lines), "--reason", "a list", "--for", "30d", "--json") == os.EX_DATAERR
    said = capsys.readouterr()
    assert json.loads(said.out.splitlines()[-1]) == {"added": 2, "known": 0, "invalid": 1, "dry_run": False}
    assert "'nobody' is no address" in said.err
    suppression = house.server.relay.suppression
    assert suppression.count == 4
    assert suppression.is_suppressed("", Recipient("dora@bücher.example", "xn--bcher-kva.example"))
    assert not suppression.is_suppressed("", Recipient("amy@example.net", "example.net"))
    assert await suppress(house, "export", "--out", str(out)) == 0
    exported = out.read_text()
    assert "amy@example.net,app1,true,0," in exported
    assert await suppress(house, "remove", "--match", "*") == 0
    assert suppression.count == 0
    assert await suppress(house, "import", str(out)) == 0
    assert suppression.count == 4
    capsys.readouterr()
    assert await suppress(house, "list", "*@example.net") == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in shown[1:]] == [
        ["bob@example.net", "everybody"],
        ["carl@example.net", "everybody"],
        ["amy@example.net", "app1"],
    ]


async def test_the_list_is_read_while_the_relay_is_down(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    """list and export read the spool of a relay that is down; add and remove say that there is none (69)."""
    await house.open(suppression=SuppressionRules(enabled=True))
    assert await suppress(house, "add", "bob@example.net", "amy@example.net", "--user", "app1") == 0
    await house.server.stop()
    capsys.readouterr()
    assert await suppress(house, "list", "--json", "--user", "app1", "--limit", "1") == 0
    (row,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (row["address"], row["user"], row["suppressed"]) == ("amy@example.net", "app1", True)
    assert await suppress(house, "export") == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert await suppress(house, "add", "carl@example.net") == os.EX_UNAVAILABLE
    assert await suppress(house, "remove", "amy@example.net") == os.EX_UNAVAILABLE
    await house.open()


async def test_mistakes_have_their_exit_status(
    house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No address, no file, no heading and no such address end with a sentence and a status of sysexits."""
    await house.open(suppression=SuppressionRules(enabled=True))
    assert await suppress(house, "remove") == os.EX_USAGE
    assert await suppress(house, "remove", "a@example.net", "--match", "*") == os.EX_USAGE
    assert await suppress(house, "remove", "a@example.net") == os.EX_NOINPUT
    assert await suppress(house, "add", "nobody") == os.EX_DATAERR
    assert await suppress(house, "import", str(tmp_path / "none")) == os.EX_USAGE
    for text in ("when,who\n1,2\n", "address,expires\na@example.net,tomorrow\n", "a@example.net\n\xff\n"):
        (tmp_path / "list").write_bytes(text.encode("latin-1"))
        assert await suppress(house, "import", str(tmp_path / "list")) == os.EX_DATAERR
    assert capsys.readouterr().err.count("smarthost: ") == 8
