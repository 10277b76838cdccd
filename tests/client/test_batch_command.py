"""smarthost batch against a real relay, and what it says when something is wrong."""

import asyncio
import json
import os
import sys
from pathlib import Path

from http_house import HttpHouse
from odd_server import OddServer, hangs_up, says

from smarthost.mail.key import Scope

TEMPLATE = {"id": "t", "name": "t", "subject": "x", "variables": {"age": {"type": "integer", "required": False}}}


async def batch(*words: str, key: str = "", said: bytes | None = None) -> tuple[int, str, str]:
    """Run `smarthost batch`; gives exit code, output and errors."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SMARTHOST")}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    if key:
        environment["SMARTHOST_API_KEY"] = key
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "smarthost", "batch", *words),
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        output, errors = await run.communicate(said)
    assert run.returncode is not None
    return run.returncode, output.decode(), errors.decode()


async def test_what_goes_wrong(house: HttpHouse, tmp_path: Path) -> None:
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
    code, _, errors = await batch("list", "--limit", "-1", "--url", url, key=key)
    assert code == 64
    code, _, errors = await batch(*send, "--url", url, "--key-file", str(tmp_path / "none"))
    assert code == 77 and "none" in errors
    (tmp_path / "relay.toml").write_text('[http]\naddress = ""\n')
    code, _, errors = await batch("list", "--config", str(tmp_path / "relay.toml"), key=key)
    assert code == 69 and "--url" in errors


async def test_the_address_of_the_configuration(odd: OddServer, tmp_path: Path) -> None:
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


async def test_a_lost_answer_names_the_key(odd: OddServer, tmp_path: Path) -> None:
    """When the relay stays away, the command says under which key it can be given again."""
    file = tmp_path / "r.csv"
    file.write_text("email\nada@example.net\n")
    odd.plan = [says(403, {}), hangs_up]
    code, _, errors = await batch("send", "--template", "t", "--url", odd.url, str(file), key="sh_key")
    assert code == 69
    assert f"--idempotency-key {odd.seen[-1].headers['idempotency-key']}" in errors
