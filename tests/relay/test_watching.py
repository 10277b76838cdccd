"""What a running relay shows of itself: each metric of the contract, each field of the mail log."""

import asyncio
import json
import time
import urllib.request
from pathlib import Path

import msgspec
from relay_house import SLOW, House

from smarthost.mail.event import Kind
from smarthost.server import Server
from smarthost.spool.store import Filter

METRICS = """smarthost_messages_accepted_total{listener,user} smarthost_messages_rejected_total{listener,reason}
smarthost_recipients_total{route,action} smarthost_attempts_total{route,stage,class}
smarthost_queue_messages{state} smarthost_queue_oldest_seconds{state} smarthost_site_queue{site}
smarthost_site_connections{site,state} smarthost_site_suspended{site} smarthost_accept_seconds
smarthost_relay_seconds{priority} smarthost_commit_seconds smarthost_commit_messages smarthost_dkim_seconds
smarthost_dns_seconds{type,result} smarthost_tls_sessions_total{direction,version} smarthost_disk_free_ratio
smarthost_event_loop_lag_seconds smarthost_upstream_certificate_expiry_timestamp_seconds{site,host}"""
EXPIRY = "smarthost_upstream_certificate_expiry_timestamp_seconds"
UNUSED = {"smarthost_dns_seconds", "smarthost_tls_sessions_total", EXPIRY}  # series that appear with the first use
FIELDS = """time event id sender recipient route site host address code status reply stage attempt size client
seconds listener"""


def read_metrics(address: tuple[str, int]) -> str:
    """Scrape /metrics."""
    with urllib.request.urlopen(f"http://{address[0]}:{address[1]}/metrics", timeout=10) as answer:
        return answer.read().decode()


def sample(text: str, name: str, label: str = "") -> float:
    """Give the first sample of a metric whose labels contain a text."""
    for line in text.splitlines():
        series, _, value = line.rpartition(" ")
        if series.partition("{")[0] == name and label in series:
            return float(value)
    raise AssertionError(f"{name} {label} is not shown")


async def test_every_metric_is_shown(house: House) -> None:
    """Each metric has its help, and with mail under way its series with the promised labels; parked mail has an age."""
    await house.open(http_address="127.0.0.1:0", retry=SLOW)
    assert house.server._status is not None
    await house.send("250@example.net", "451@example.net", "550@example.net")
    held = await house.send("452@example.net")
    await house.until(lambda: Kind.DELAYED in house.kinds(held))
    await house.until(lambda: house.server.relay.scheduler.total == 0)
    await house.server.operations.queue_hold(Filter(ids=(held,)), False)
    await asyncio.sleep(1.1)
    text = await asyncio.to_thread(read_metrics, house.server._status.address)
    for written in METRICS.split():
        name, _, labels = written.rstrip("}").partition("{")
        family = name.removesuffix("_total")
        assert f"# HELP {family}" in text, name
        series = [line for line in text.splitlines() if line.startswith((f"{name}{{", f"{name} ", f"{name}_bucket{{"))]
        if name == "smarthost_messages_rejected_total" or name in UNUSED:
            continue
        assert series, f"{name} has no series"
        for label in filter(None, labels.split(",")):
            assert f'{label}="' in series[0], (name, label)
    assert sample(text, "smarthost_queue_messages", 'state="parked"') == 1
    assert 1.0 <= sample(text, "smarthost_queue_oldest_seconds", 'state="parked"') < 60
    deleted = await house.server.operations.queue_delete(Filter(recipient="451*"), False)
    assert deleted == {"entries": 1, "messages": 1}
    await asyncio.sleep(1.1)
    text = await asyncio.to_thread(read_metrics, house.server._status.address)
    assert sample(text, "smarthost_queue_oldest_seconds", 'state="active"') == 0.0


async def test_the_mail_log_has_its_fields(house: House, tmp_path: Path) -> None:
    """Accepted, relayed, delayed, failed, reported and rejected are lines of JSON; together they have every field."""
    await house.open()
    with (tmp_path / "mail.log").open("wb") as log:
        server = Server(msgspec.structs.replace(house.config, data_directory=tmp_path / "second"), log_to=log.fileno())
        await server.start()
        house.address = ("127.0.0.1", int(server.listening[0].rpartition(":")[2]))
        await house.send("250@example.net", "451@example.net", "550@example.net", sender="250@example.org")
        reader, writer = await asyncio.open_connection(*house.address)
        writer.write(b"EHLO x\r\nMAIL FROM:<@>\r\nMAIL FROM:<a@b.example> SIZE=99999999999\r\nQUIT\r\n")
        await reader.read()
        writer.close()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and b'"reported"' not in (tmp_path / "mail.log").read_bytes():
            await asyncio.sleep(0.05)
        await server.stop()
    lines = [json.loads(line) for line in (tmp_path / "mail.log").read_text().splitlines()]
    mail = [line for line in lines if line["event"] != "log"]
    assert {line["event"] for line in mail} == {"accepted", "relayed", "delayed", "failed", "reported", "rejected"}
    assert {field for line in mail for field in line} >= set(FIELDS.split())
    [relayed] = [line for line in mail if line["event"] == "relayed" and line["recipient"] == "250@example.net"]
    assert set(relayed["seconds"]) == {"queued", "connecting", "transferring"}
    assert relayed["code"] == 250 and relayed["route"] == "relayhost" and relayed["attempt"] == 1
