"""A whole relay that logs in by access token: fetched, renewed, fetched anew after 535; and mail that waits for one."""

import asyncio
import json
import os
import ssl
import stat
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trustme
from relay_house import SLOW, House
from token_server import (
    CLIENT_ID,
    SECRET,
    TENANT,
    WRONG_SECRET,
    TokenServer,
    by_secret,
    client_certificate,
    service_account,
    token_server,
)

from smarthost.config import load
from smarthost.config_types import Login, Mechanism
from smarthost.mail.entry import Why
from smarthost.mail.event import Kind
from smarthost.mail.route import Deliver, NextHop, Route, TlsLevel
from smarthost.network.oauth_grant import Grant
from smarthost.report.timestamp import parse_time
from smarthost.sink.desk import SinkSettings
from smarthost.sink.server import Sink
from smarthost.spool.store import Filter

USER = "app@example.org"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TokenServer]:
    """Give a token endpoint."""
    with token_server(tmp_path) as running:
        yield running


@asynccontextmanager
async def guarded(server: TokenServer, **settings: object) -> AsyncIterator[Sink]:
    """Run a sink that takes the tokens that the server has issued and a test has not revoked."""
    wanted = SinkSettings(username=USER, tokens=server.tokens, mechanisms=("XOAUTH2",), require_auth=True)
    sink = Sink(msgspec.structs.replace(wanted, **settings))
    await sink.start()
    try:
        yield sink
    finally:
        await sink.stop()


async def open_house(house: House, sink: Sink, grant: Grant, **changes: object) -> None:
    """Start the relay with the sink as its next hop."""
    hop = NextHop("127.0.0.1", sink.address[1])
    route = Route("relayhost", Deliver.RELAYHOST, (hop,), TlsLevel.NONE, login="relayhost", allow_plaintext_auth=True)
    login = Login(USER, "", Mechanism.XOAUTH2, grant)
    await house.open(fallback=route, credentials={"relayhost": login}, **changes)


def relayed(house: House, number: int) -> Callable[[], bool]:
    """Give whether a message has left."""
    return lambda: Kind.RELAYED in house.kinds(number)


@pytest.mark.parametrize("mechanism", ["XOAUTH2", "OAUTHBEARER"])
async def test_relayed_with_a_fetched_token(house: House, server: TokenServer, mechanism: str) -> None:
    """A message leaves with a token that was fetched for it; the next one needs no other."""
    async with guarded(server, mechanisms=(mechanism,)) as sink:
        await open_house(house, sink, by_secret(server))
        for _ in range(2):
            number = await house.send("250@example.net")
            await house.until(relayed(house, number))
        assert [mail.identity for mail in sink.messages] == [USER] * 2
        assert len(server.requests) == 1


async def test_many_sessions_fetch_once(house: House, server: TokenServer) -> None:
    """Sessions that open at once wait for one fetch."""
    server.delay = 0.3
    async with guarded(server) as sink:
        await open_house(house, sink, by_secret(server))
        numbers = await asyncio.gather(*(house.send(f"slow-100-{n}@example.net") for n in range(20)))
        await house.until(lambda: all(Kind.RELAYED in house.kinds(number) for number in numbers))
        assert sink.counts.logins > 1
        assert len(server.requests) == 1


async def test_renewed_before_it_expires(house: House, server: TokenServer) -> None:
    """A token is renewed while it is good, behind the session that asks, and the next session has the new one."""
    server.lifetime = 2
    async with guarded(server) as sink:
        await open_house(house, sink, by_secret(server))
        await house.until(relayed(house, await house.send("250@example.net")))
        logins = house.server.relay.logins
        await asyncio.sleep(1.82)
        token = await logins._sources["relayhost"].token()
        assert token == server.issued[0]  # still good, and on its way out
        await house.until(lambda: len(server.issued) == 2)
        server.tokens.discard(server.issued[0])
        sink_sessions = sink.counts.connections
        for transfer in [each for one in house.server.relay.dispatchers.values() for each in one.transfers]:
            transfer.close()
        await house.until(relayed(house, await house.send("250@example.net")))
        assert sink.counts.connections == sink_sessions + 1  # logged in at once, no 535 was needed
        assert sink.counts.logins == 2


async def test_a_revoked_token_is_fetched_anew(house: House, server: TokenServer) -> None:
    """535 for a token that should be good: a fresh one is fetched, and the message leaves on its first attempt."""
    async with guarded(server) as sink:
        await open_house(house, sink, by_secret(server), retry=SLOW)
        stale = await house.server.relay.logins._sources["relayhost"].token()
        assert isinstance(stale, str)
        server.tokens.discard(stale)
        number = await house.send("250@example.net")
        await house.until(relayed(house, number))
        assert Kind.DELAYED not in house.kinds(number)
        assert len(server.requests) == 2


async def test_refused_again_mail_waits(house: House, server: TokenServer, caplog: pytest.LogCaptureFixture) -> None:
    """535 with a fresh token, too: the login is left alone for 5 min, `why` says so, one error is logged."""
    async with guarded(server, tokens=()) as sink:
        await open_house(house, sink, by_secret(server), retry=SLOW)
        numbers = [await house.send(f"250-{n}@example.net") for n in range(3)]
        await house.until(lambda: any(Kind.DELAYED in house.kinds(number) for number in numbers))
        await house.until(lambda: house.server.relay.scheduler.total == 0)
        assert not any(Kind.FAILED in house.kinds(number) for number in numbers)
        assert len(server.requests) == 2
        operations = house.server.operations
        rows = [row async for row in operations.queue_list(Filter(), 0)]
        assert [row["why"] for row in rows] == [Why.LOGIN_PAUSED] * 3
        attempts = [(await house.server.spool.entries_of(number))[0].attempts for number in numbers]
        assert sorted(attempts) == [0, 0, 1]
        row = [row async for row in operations.why(numbers[attempts.index(0)])].pop()
        assert "535" in row["text"]
        assert 250 < parse_time(row["until"]) - time.time() <= 300
        errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert len(errors) == 1
        assert errors[0].startswith("the login of route relayhost is left alone for 300 s: 535 ")


@pytest.mark.parametrize("trouble", ["refuses", "down"])
async def test_no_token_mail_waits(house: House, server: TokenServer, trouble: str) -> None:
    """An endpoint that refuses or is down delays mail at AUTH; `why` says what it said, and a retry goes on."""
    async with guarded(server) as sink:
        server.answers.append((401, WRONG_SECRET) if trouble == "refuses" else (503, "no"))
        await open_house(house, sink, by_secret(server), retry=SLOW)
        number = await house.send("250@example.net")
        await house.until(lambda: Kind.DELAYED in house.kinds(number))
        delayed = next(event for event in house.events if event.event is Kind.DELAYED)
        assert delayed.stage == "auth"
        assert sink.counts.connections == 0
        await house.until(lambda: house.server.relay.scheduler.total == 0)
        row = [row async for row in house.server.operations.why(number)].pop()
        expected = "AADSTS7000215" if trouble == "refuses" else "the token endpoint localhost answered 503"
        assert expected in row["text"] + str(row["last"])
        assert row["why"] in (Why.LOGIN_PAUSED, Why.RETRY)
        await house.server.operations.queue_retry(Filter(), False)
        await house.until(relayed(house, number))


async def test_nothing_secret_is_shown(house: House, server: TokenServer, tmp_path: Path) -> None:
    """Log, metrics, queue, why and trace have none of the secrets in them, whatever went wrong; the file is 0600."""
    server.rotates = True
    file = tmp_path / "refresh"
    file.write_text(server.refresh_token)
    file.chmod(0o600)
    first = server.refresh_token
    log = tmp_path / "log"
    house.log_to = os.open(log, os.O_WRONLY | os.O_CREAT, 0o600)
    grant = by_secret(server, refresh_token_file=file, scope="SMTP.Send offline_access")
    echo = {"error": "invalid_client", "error_description": f"AADSTS7000215: you sent {SECRET} and {first}"}
    log_settings = msgspec.structs.replace(house.config.log, level="debug")
    async with guarded(server, tokens=()) as sink:
        server.answers.append((401, echo))
        await open_house(house, sink, grant, retry=SLOW, http_address="127.0.0.1:0", log=log_settings)
        number = await house.send("250@example.net")
        await house.until(lambda: Kind.DELAYED in house.kinds(number))
        await house.server.operations.queue_retry(Filter(), False)
        await house.until(lambda: house.kinds(number).count(Kind.DELAYED) == 2)
        await house.until(lambda: house.server.relay.scheduler.total == 0)
        operations = house.server.operations
        shown = [row async for row in operations.queue_list(Filter(), 0)]
        shown += [await operations.queue_show(number), await operations.status()]
        shown += [row async for row in operations.why(number)] + [row async for row in operations.trace(number)]
        assert house.server._status is not None
        address = "http://{}:{}/metrics".format(*house.server._status.address)
        metrics = await asyncio.to_thread(lambda: urllib.request.urlopen(address, timeout=5).read().decode())
        shown += [metrics, repr(house.config), repr(house.server.relay.logins.of("relayhost"))]
        await house.server.stop()
    text = json.dumps(shown, default=str) + log.read_text()
    assert "535" in text and "AADSTS7000215" in text and "was fetched" in text
    assert len(server.issued) == 2 and len(set(server.secrets())) >= 6
    assert not [secret for secret in {*server.secrets(), first} if secret in text]
    assert file.read_text().strip() == server.refresh_token != first
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("way", ["certificate", "service account", "refresh token"])
async def test_from_the_file_to_the_upstream(house: House, server: TokenServer, tmp_path: Path, way: str) -> None:
    """What stands in the configuration is what the endpoint verifies, over TLS, and what the upstream takes."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "upstream-ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    certificate, key, server.certificate = client_certificate(tmp_path)
    account, server.service_key = service_account(tmp_path)
    (tmp_path / "refresh").write_text(server.refresh_token)
    keys = {
        "certificate": f"""provider = "microsoft"
tenant = "{TENANT}"
client_id = "{CLIENT_ID}"
certificate = "{certificate}"
key = "{key}"
token_url = "{server.url()}\"""",
        "service account": f"""provider = "google"
service_account_file = "{account}"
token_url = "{server.url("/token")}\"""",
        "refresh token": f"""client_id = "{CLIENT_ID}"
refresh_token_file = "{tmp_path / "refresh"}"
token_url = "{server.url()}\"""",
    }[way]
    sink = Sink(SinkSettings(username=USER, tokens=server.tokens, mechanisms=("XOAUTH2",), require_auth=True), context)
    await sink.start()
    file = tmp_path / "smarthost.toml"
    file.write_text(
        f"""relayhost = "[localhost]:{sink.address[1]}"
relayhost_tls = "verify"
relayhost_ca = "{tmp_path / "upstream-ca.pem"}"
[relayhost_auth]
mechanism = "xoauth2"
username = "{USER}"
token_ca = "{server.ca_file}"
{keys}
"""
    )
    config = load(file, {})
    await house.open(fallback=config.fallback, credentials=config.credentials)
    await house.until(relayed(house, await house.send("250@example.net")))
    assert [(mail.identity, mail.tls) for mail in sink.messages] == [(USER, "TLSv1.3")]
    assert len(server.requests) == 1
    await sink.stop()


async def test_a_reload_keeps_the_token(house: House, server: TokenServer) -> None:
    """A login that asks as before keeps its token; one that has changed fetches its own."""
    async with guarded(server) as sink:
        await open_house(house, sink, by_secret(server))
        relay = house.server.relay
        before = await relay.logins._sources["relayhost"].token()
        relay.apply(house.config, relay.keyring)
        assert await relay.logins._sources["relayhost"].token() == before
        login = Login(USER, "", Mechanism.XOAUTH2, by_secret(server, scope="https://other.example/.default"))
        relay.apply(msgspec.structs.replace(house.config, credentials={"relayhost": login}), relay.keyring)
        assert await relay.logins._sources["relayhost"].token() != before
