"""Trying the relay: is delivery going on, what becomes of a test message, and what a diagnosis finds."""

import asyncio
import json
import os
from pathlib import Path

import msgspec
import pytest
import trustme
from dns_server import dns_server
from relay_house import SLOW, House

from smarthost import diagnosis
from smarthost.__main__ import main
from smarthost.cli.check_loop import judge
from smarthost.cli.diagnose import diagnose
from smarthost.config_types import DkimKey, Dns, TlsFiles
from smarthost.control_verbs import Refusal, TrialMessage
from smarthost.crypto.dkim_keys import Algorithm, generate_key, load_key, public_record
from smarthost.diagnosis import Finding, Verdict, check_certificate, check_clock, check_listener, check_space
from smarthost.mail.event import Kind
from smarthost.mail.message import parse_id
from smarthost.mail.route import Deliver, NextHop, Route, TlsLevel
from smarthost.policy.admission import Listener, Submission, Tls

DEAD = Route("relayhost", Deliver.RELAYHOST, (NextHop("127.0.0.1", 1),), TlsLevel.NONE)


async def command(house: House, *words: str) -> int:
    """Run a command against the house's relay, in a thread."""
    return await asyncio.to_thread(main, [*words, "--data-directory", str(house.folder)])


async def test_a_test_message_is_followed(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    """It is sent, and the answer has the host, its reply and the time; the sink has it."""
    await house.open()
    assert await command(house, "test-dispatch", "--to", "250@example.net", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["result"], said["code"], said["host"]) == ("relayed", 250, "127.0.0.1")
    assert said["sender"] == "postmaster@example.org"
    number = parse_id(said["id"])
    assert number is not None and Kind.RELAYED in house.kinds(number)
    assert await command(house, "test-dispatch", "--to", "250@example.net", "--from", "me@example.org") == 0
    shown = capsys.readouterr().out
    assert "from <me@example.org>" in shown and "relayed" in shown and "smarthost trace" in shown


@pytest.mark.parametrize(("recipient", "code", "result"), [("550@x.test", 69, "failed"), ("451@x.test", 75, "delayed")])
async def test_a_test_message_that_is_not_taken(
    house: House, recipient: str, code: int, result: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What refuses it, and for how long, is the answer and the exit code; nobody gets a report."""
    await house.open(retry=SLOW)
    assert await command(house, "test-dispatch", "--to", recipient, "--json") == code
    said = json.loads(capsys.readouterr().out)
    assert (said["result"], said["code"]) == (result, int(recipient[:3]))
    assert Kind.REPORTED not in [event.event for event in house.events]


async def test_a_test_message_that_waits(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    """What it waits for is said when nothing has become of it in time."""
    await house.open()
    assert await command(house, "suspend", "route", "relayhost") == 0
    capsys.readouterr()
    assert await command(house, "test-dispatch", "--to", "250@example.net", "--wait", "1s") == 75
    assert "suspended" in capsys.readouterr().out


@pytest.mark.parametrize("recipient", ["nobody at all", "x@" + "a" * 70 + ".test"])
async def test_a_test_message_wants_an_address(house: House, recipient: str) -> None:
    """What is no address is refused before anything is sent."""
    await house.open()
    with pytest.raises(Refusal):
        await house.server.operations.trial.send_test(TrialMessage(recipient))
    assert not house.events


async def test_delivery_is_idle_and_moves(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    """With nothing due the loop is idle; what it has done since the start is counted."""
    await house.open()
    await house.send("250@example.net")
    await house.empty()
    assert await command(house, "check-loop", "--wait", "0s", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["verdict"], said["relayed"], said["attempts"], said["late"]) == ("idle", 1, 1, [])
    assert await command(house, "check-loop", "--wait", "0s") == 0
    assert "idle: nothing is due" in capsys.readouterr().out


async def test_what_is_due_and_waits_says_why(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mail that is due but held up has its reason, and is no sign that the loop stands still."""
    monkeypatch.setattr("smarthost.operations_trial.LATE", -3600.0)
    await house.open(fallback=DEAD, retry=SLOW)
    await house.send("250@example.net")
    await house.until(lambda: any(event.event is Kind.DELAYED for event in house.events))
    row = await house.server.operations.trial.progress()
    assert row["late_lanes"] == 1 and row["late"][0]["is_explained"], row
    assert judge(row, row) in ("waiting", "delivering")


def test_what_two_looks_tell() -> None:
    """Progress is a change; without one, what is due at both looks without a reason is stuck."""
    late = {"id": "A", "is_explained": False}
    still = {"stopped": "", "attempts": 3, "late": [late], "in_delivery": 0}
    assert judge(still, still) == "stuck"
    assert judge(still | {"late": []}, still) == "waiting"
    assert judge(still, still | {"attempts": 4}) == "moving"
    assert judge(still, still | {"in_delivery": 1}) == "delivering"
    assert judge(still, still | {"late": [late | {"is_explained": True}]}) == "waiting"
    assert judge(still, still | {"late": []}) == "idle"
    assert judge(still, still | {"stopped": "the disk"}) == "stopped"


async def test_a_loop_without_a_relay(tmp_path: Path) -> None:
    """Where no relay runs, there is no loop: 69."""
    assert await asyncio.to_thread(main, ["check-loop", "--data-directory", str(tmp_path)]) == os.EX_UNAVAILABLE


def found(findings: list[Finding], check: str) -> Finding:
    """Give the one finding of a check."""
    (finding,) = [each for each in findings if each.check == check]
    return finding


async def test_a_running_relay_is_diagnosed(house: House) -> None:
    """Of a relay that is well each check is ok, its upstream and its listeners included."""
    async with dns_server("relay.example.org. 300 IN A 192.0.2.1") as server:
        await house.open(dns=Dns(servers=(server.address,)))
        at = house.server.listening[0]
        config = msgspec.structs.replace(house.config, listeners=(Listener(at, tls=Tls.NONE),))
        findings = await asyncio.to_thread(diagnose, config, False)
    assert [each for each in findings if each.verdict is Verdict.FAIL] == []
    assert found(findings, f"listener {at}").text == "it answers"
    upstream = found(findings, "upstream relayhost")
    assert upstream.verdict is Verdict.OK and "takes us, without login, no TLS" in upstream.text
    assert "version" in found(findings, "relay").text


async def test_what_is_wrong_outside_is_found(house: House, tmp_path: Path) -> None:
    """An upstream that refuses connections, a name server's silence and a key that is not published are failures."""
    key = tmp_path / "key.pem"
    generate_key(Algorithm.ED25519_SHA256, key)
    made = DkimKey("example.org", "s1", key)
    async with dns_server("other.example. 300 IN A 192.0.2.1") as server:
        config = msgspec.structs.replace(
            house.config, fallback=DEAD, dkim=(made,), dns=Dns(servers=(server.address,)), listeners=()
        )
        findings = await asyncio.to_thread(diagnose, config, False)
    assert found(findings, "relay").verdict is Verdict.WARN
    upstream = found(findings, "upstream relayhost")
    assert (upstream.verdict, upstream.exit_code) == (Verdict.FAIL, os.EX_UNAVAILABLE)
    assert "firewall" in upstream.hint
    assert found(findings, "dkim s1._domainkey.example.org").verdict is Verdict.FAIL
    record = public_record(load_key("example.org", "s1", key))
    async with dns_server(f's1._domainkey.example.org. 300 IN TXT "{record}"') as server:
        config = msgspec.structs.replace(config, dns=Dns(servers=(server.address,)))
        findings = await asyncio.to_thread(diagnose, config, False)
    assert found(findings, "dkim s1._domainkey.example.org").verdict is Verdict.OK


def test_a_certificate_that_ends(house: House, tmp_path: Path) -> None:
    """A certificate that is over fails, one that will be within two weeks is worth a word."""
    file = tmp_path / "cert.pem"
    trustme.CA().issue_cert("relay.example.org").cert_chain_pems[0].write_to_path(file)
    tls = TlsFiles(certificate=file, key=file)
    config = msgspec.structs.replace(house.config, tls=tls, listeners=(Listener("127.0.0.1:0"),))
    ends = diagnosis.expiry_of(file)
    assert ends is not None
    assert check_certificate(config, ends - 40 * 86400).verdict is Verdict.OK
    assert check_certificate(config, ends - 5 * 86400).verdict is Verdict.WARN
    assert check_certificate(config, ends + 1).verdict is Verdict.FAIL
    file.write_text("nothing")
    assert check_certificate(config, ends).verdict is Verdict.FAIL


def test_disk_and_clock(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little space fails with 75; a clock behind the spool's files fails, and one that nobody keeps is told of."""
    needy = msgspec.structs.replace(house.config, submission=Submission(min_free_space=2**60))
    assert (check_space(house.config).verdict, check_space(needy).exit_code) == (Verdict.OK, os.EX_TEMPFAIL)
    monkeypatch.setattr(diagnosis, "is_clock_kept", lambda: False)
    assert check_clock(house.config, 0.0).verdict is Verdict.WARN
    (house.folder / "spool").mkdir(parents=True)
    (house.folder / "spool/spool.db").touch()
    assert check_clock(house.config, 1_000_000.0).verdict is Verdict.FAIL


async def test_an_address_that_another_program_has(house: House) -> None:
    """While the relay is down, its address must be free; while it runs, what answers must be a mail server."""
    served = await asyncio.start_server(lambda reader, writer: writer.write(b"hello\r\n"), "127.0.0.1", 0)
    async with served:
        listener = Listener(f"127.0.0.1:{served.sockets[0].getsockname()[1]}", tls=Tls.NONE)
        down = await asyncio.to_thread(check_listener, listener, False)
        up = await asyncio.to_thread(check_listener, listener, True)
    assert down is not None and up is not None
    assert (down.verdict, up.verdict, up.text) == (Verdict.FAIL, Verdict.FAIL, "it answers 'hello'")
    assert check_listener(Listener("systemd:smtp"), True) is None


async def test_the_command_says_it_in_lines_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each check is a line with its hint, or an object; a configuration that cannot be read is the failure: 78."""
    file = tmp_path / "smarthost.toml"
    file.write_text(
        f'data_directory = "{tmp_path}/data"\nhostname = "relay.test"\n[[listener]]\naddress = "127.0.0.1:0"\n'
    )
    await asyncio.to_thread(main, ["diagnose", "--config", str(file), "--offline"])
    lines = capsys.readouterr().out
    assert "warn  relay: the relay is not running" in lines and "      smarthost serve starts it" in lines
    await asyncio.to_thread(main, ["diagnose", "--config", str(file), "--offline", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert {each["check"] for each in said["findings"]} >= {"configuration", "disk", "clock", "certificate", "relay"}
    file.write_text("nonsense = 1\n")
    assert await asyncio.to_thread(main, ["diagnose", "--config", str(file)]) == os.EX_CONFIG
