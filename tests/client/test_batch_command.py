"""smarthost batch against a real relay, and what it says when something is wrong."""

import asyncio
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from http_house import HttpHouse
from odd_server import OddServer, hangs_up, says

from smarthost.__main__ import main
from smarthost.client import AsyncClient, NewTemplate, Variable
from smarthost.mail.key import Scope

TEMPLATE = {"id": "t", "name": "t", "subject": "x", "variables": {"age": {"type": "integer", "required": False}}}


class Shell:
    """Runs `smarthost batch` in a thread of this process, with no key but the one that is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    async def __call__(self, *words: str, key: str = "", said: bytes = b"") -> tuple[int, str, str]:
        """Run it; gives exit code, output and errors."""
        with self._monkeypatch.context() as patch:
            patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(said)))
            patch.setenv("SMARTHOST_API_KEY", key)
            self._capsys.readouterr()
            code = await asyncio.to_thread(main, ["batch", *words])
            output, errors = self._capsys.readouterr()
        return code, output, errors


@pytest.fixture
def batch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Give what runs the command."""
    return Shell(monkeypatch, capsys)


async def test_a_file_is_sent(house: HttpHouse, batch: Shell, tmp_path: Path) -> None:
    """A file is sent and waited for; the batch is listed, shown, summed up, and changed while it waits."""
    await house.open_http()
    _, key = await house.make_key("shop")
    url = f"http://{house.http[0]}:{house.http[1]}"
    form = NewTemplate(
        name="hello",
        subject="Hello {{name}}",
        text="{{age}} {{shop}}",
        variables={"name": Variable(required=True), "age": Variable("integer")},
    )
    async with AsyncClient(url, key) as client:
        template = (await client.templates.make(form)).id
    (tmp_path / "key").write_text(key + "\n")
    file = tmp_path / "recipients.csv"
    file.write_text("email,name,age\nada@example.net,Ada,36\nbob@example.net,Bob,\n")
    opened = ("--url", url, "--key-file", str(tmp_path / "key"))
    sending = ("send", "--template", template, "--from", "shop@example.org", "--var", "shop=Web", *opened)
    code, output, errors = await batch(*sending, "--wait", str(file))
    assert (code, errors) == (0, "")
    identity, status, count = output.split()[:3]
    assert (status, count) == ("COMPLETED", "2") and "sent 2" in output
    code, output, _ = await batch("list", "--json", *opened)
    assert code == 0 and [json.loads(line)["id"] for line in output.splitlines()] == [identity]
    code, output, _ = await batch("list", *opened)
    assert code == 0 and identity in output and "COMPLETED" in output
    code, output, _ = await batch("show", identity, *opened)
    assert code == 0 and "template  hello" in output
    code, output, _ = await batch("events", identity, "--type", "sent", *opened)
    assert code == 0 and output.count(" SENT ") == 2 and "ada@example.net" in output
    code, output, _ = await batch("summary", identity, *opened)
    assert code == 0 and "100.0%" in output
    code, output, errors = await batch("cancel", identity, *opened)
    assert code == 65 and "COMPLETED" in errors
    lines = b'{"email": "eve@example.net", "name": "Eve"}\n'
    at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    code, output, _ = await batch(*sending, "--send-at", at, "--format", "jsonl", "--json", "-", said=lines)
    made = json.loads(output)
    assert (code, made["status"], made["recipients"]) == (0, "SCHEDULED", 1)
    for change, said in (("suspend", "suspended"), ("resume", "resumed"), ("cancel", "cancelled")):
        code, output, _ = await batch(change, made["id"], *opened)
        assert (code, output) == (0, f"{said}: {made['id']}\n")


async def test_what_goes_wrong(house: HttpHouse, batch: Shell, tmp_path: Path) -> None:
    """Each mistake has its sentence and its exit code, and nothing is sent."""
    await house.open_http()
    _, key = await house.make_key("shop", Scope.READ)
    url = f"http://{house.http[0]}:{house.http[1]}"
    file = tmp_path / "recipients.csv"
    file.write_text("email\nada@example.net\n")
    send = ("send", "--template", "none", str(file))
    code, _, errors = await batch(*send, "--url", url)
    assert code == 64 and "API key" in errors
    code, _, errors = await batch(*send, "--url", "nowhere", key=key)
    assert code == 64 and "nowhere" in errors
    code, _, errors = await batch(*send, "--url", url, key=key)
    assert code == 66 and "template" in errors
    code, _, errors = await batch(*send, "--url", url, key="sh_wrong")
    assert code == 77 and "sh_wrong" not in errors
    code, _, errors = await batch("show", "none", "--url", url, key=key)
    assert code == 66 and "batch" in errors
    code, _, errors = await batch("list", "--limit", "-1", "--url", url, key=key)
    assert code == 64
    code, _, errors = await batch(*send, "--url", url, "--key-file", str(tmp_path / "none"))
    assert code == 77 and "none" in errors
    (tmp_path / "relay.toml").write_text('[http]\naddress = ""\n')
    code, _, errors = await batch("list", "--config", str(tmp_path / "relay.toml"), key=key)
    assert code == 69 and "--url" in errors


async def test_the_address_of_the_configuration(odd: OddServer, batch: Shell, tmp_path: Path) -> None:
    """Without --url the API is where the configuration opens it; cells have the types that the template names."""
    made = {"id": "A", "status": "SENDING", "createdAt": "2026-01-01T00:00:00Z", "recipients": 2, "invalid": 1}
    odd.plan = [says(200, TEMPLATE), says(201, made | {"rejected": [{"email": "x", "reason": "is none"}]})]
    port = odd.url.rpartition(":")[2]
    (tmp_path / "relay.toml").write_text(f'[http]\naddress = "127.0.0.1:{port}"\n')
    file = tmp_path / "r.csv"
    file.write_text("email;age\nada@example.net;36\nx;37\n")
    told = ("--metadata", "issue=7", "--idempotency-key", "k", "--tag", "news", "--priority", "low")
    code, output, errors = await batch(
        "send", "--template", "t", *told, "--config", str(tmp_path / "relay.toml"), str(file), key="sh_key"
    )
    assert (code, output, errors) == (0, "A SENDING 1 recipients\n", "x: is none\n")
    written = json.loads(odd.seen[1].body)
    assert written["recipients"][0] == {"email": "ada@example.net", "variables": {"age": 36}}
    assert (written["metadata"], written["tag"], written["priority"]) == ({"issue": "7"}, "news", "low")
    assert odd.seen[1].headers["idempotency-key"] == "k"
    file.write_text("email;age\nada@example.net;36\neve@example.net;old\n")
    odd.seen.clear()
    odd.plan = [says(200, TEMPLATE)]
    code, _, errors = await batch("send", "--template", "t", "--url", odd.url, str(file), key="sh_key")
    assert code == 65 and f"{file}:3: age: 'old' is no integer; nothing was sent" in errors
    assert [each.method for each in odd.seen] == ["GET"]


async def test_a_lost_answer_names_the_key(odd: OddServer, batch: Shell, tmp_path: Path) -> None:
    """When the relay stays away, the command says under which key it can be given again."""
    file = tmp_path / "r.csv"
    file.write_text("email\nada@example.net\n")
    odd.plan = [says(403, {}), hangs_up]
    code, _, errors = await batch("send", "--template", "t", "--url", odd.url, str(file), key="sh_key")
    assert code == 69
    assert f"--idempotency-key {odd.seen[-1].headers['idempotency-key']}" in errors
