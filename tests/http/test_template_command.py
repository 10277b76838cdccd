"""smarthost template and smarthost seed: against a running relay, and what goes wrong said by exit status."""

import asyncio
import json
import os
from asyncio import to_thread
from pathlib import Path

import pytest
from http_house import HttpHouse

from smarthost.__main__ import main
from smarthost.mail.event import Kind

FORM = {"name": "order", "subject": "Order {{number}}", "text": "Hello {{name}}", "html": "<p>{{name}}</p>"}


async def command(house: HttpHouse, *words: str) -> int:
    """Run a command of the group in a thread."""
    return await to_thread(main, [*words, "--data-directory", str(house.folder)])


async def test_templates_by_command(house: HttpHouse, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Added from a file and from options, listed, shown, filled in, replaced and removed, of one tenant."""
    await house.open_http()
    whole, body = tmp_path / "order.json", tmp_path / "hello.txt"
    whole.write_text(json.dumps(FORM))
    body.write_text("Hello {{name}}, {{#each items}}{{this}};{{/each}}\n")
    assert await command(house, "template", "list") == 0
    assert "there are no templates" in capsys.readouterr().out
    assert await command(house, "template", "add", str(whole), "--tenant", "shop") == 0
    order = capsys.readouterr().out.strip()
    words = ["--name", "hello", "--subject", "Hi {{name}}", "--text", str(body)]
    variables = ["--variable", "name:string:required", "--variable", "items:array"]
    assert await command(house, "template", "add", *words, *variables, "--json") == 0
    made = json.loads(capsys.readouterr().out)
    assert made["variables"] == {
        "name": {"type": "string", "required": True},
        "items": {"type": "array", "required": False},
    }
    assert await command(house, "template", "list", "--tenant", "shop") == 0
    listed = capsys.readouterr().out
    assert order in listed and "Order {{number}}" in listed and "hello" not in listed
    assert await command(house, "template", "show", "hello") == 0
    assert "name* items" in (shown := capsys.readouterr().out) and "Hello {{name}}" in shown
    assert await command(house, "template", "preview", made["id"], "name=Ada", 'items=["a", 2]', "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"subject": "Hi Ada", "html": "", "text": "Hello Ada, a;2;\n"}
    assert await command(house, "template", "preview", "hello", "--variables", '{"name": "Bob"}') == 0
    assert "Hi Bob" in capsys.readouterr().out
    assert await command(house, "template", "add", *words) == os.EX_CANTCREAT
    assert await command(house, "template", "add", *words, "--replace", "--json") == 0
    assert json.loads(capsys.readouterr().out)["revision"] == 2
    assert await command(house, "template", "remove", "hello") == 0
    assert await command(house, "template", "remove", "hello") == os.EX_NOINPUT
    assert await command(house, "template", "show", order) == os.EX_NOINPUT
    assert await command(house, "template", "show", order, "--tenant", "shop") == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["add", "--name", "x", "--subject", "{{#if}"], os.EX_DATAERR, "subject: line 1"),
        (["add", "--name", "x", "--subject", "y"], os.EX_DATAERR, "a body is missing"),
        (["add"], os.EX_USAGE, "wants a file"),
        (["add", "/nowhere.json"], os.EX_USAGE, "/nowhere.json"),
        (["add", "--variable", "x:text"], os.EX_USAGE, "NAME:TYPE"),
        (["list", "--tenant", "No Tenant"], os.EX_USAGE, "are allowed"),
        (["show", "x"], os.EX_NOINPUT, "no template"),
        (["preview", "x", "name"], os.EX_USAGE, "NAME=VALUE"),
        (["preview", "x", "--variables", "[1]"], os.EX_USAGE, "no"),
    ],
)
async def test_what_is_wrong_is_said(
    house: HttpHouse, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    """One sentence, and the exit status of its kind."""
    await house.open_http()
    assert await command(house, "template", *words) == code
    assert said in capsys.readouterr().err


async def test_a_missing_variable_is_said(house: HttpHouse, capsys: pytest.CaptureFixture[str]) -> None:
    """The preview names it."""
    await house.open_http()
    assert await command(house, "seed") == 0
    assert await command(house, "template", "preview", "sample-welcome") == os.EX_DATAERR
    assert 'the variable "name" is missing' in capsys.readouterr().err


async def test_seed_gives_a_line_that_works(house: HttpHouse, capsys: pytest.CaptureFixture[str]) -> None:
    """The line is run as it stands, and its message is relayed; a second seed has another key and the same template."""
    await house.open_http()
    assert await command(house, "seed", "--to", "250@example.net", "--json") == 0
    made = json.loads(capsys.readouterr().out)
    shell = await asyncio.create_subprocess_shell(
        made["curl"], stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, _ = await shell.communicate()
    assert json.loads(said)["status"] == "accepted", said
    await house.until(lambda: any(event.event is Kind.RELAYED for event in house.events))
    assert await command(house, "seed") == 0
    told = capsys.readouterr().out
    assert made["template_id"] in told and made["key"] not in told and "postmaster@example.org" in told
    (template,) = (await house.ask("GET", "/api/v1/templates", made["key"])).json["templates"]
    assert (template["name"], template["revision"]) == ("sample-welcome", 2)


async def test_seed_needs_the_door(house: HttpHouse, capsys: pytest.CaptureFixture[str]) -> None:
    """Without an HTTP address it says so, and makes nothing."""
    await house.open()
    assert await command(house, "seed") == os.EX_UNAVAILABLE
    assert "[http] address" in capsys.readouterr().err
    assert house.server.api.keys.listed() == []
