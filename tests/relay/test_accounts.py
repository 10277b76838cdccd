"""Accounts through a whole relay: upstreams that come, change and go while it runs, and stay over a restart."""

import asyncio
import smtplib

import msgspec
import pytest
from asking import submit
from relay_house import SLOW, House

from smarthost.accounts import KEY_FILE
from smarthost.crypto.dkim_keys import Keyring
from smarthost.crypto.password import hash_password
from smarthost.mail.event import Kind
from smarthost.policy.account import Behavior, UpstreamAccount
from smarthost.policy.admission import Auth, Listener, Tls, User
from smarthost.sink.desk import SinkSettings
from smarthost.sink.server import Sink
from smarthost.spool.store import Filter

pytestmark = pytest.mark.asyncio

MAIN = "account:acme:main"


@pytest.fixture
async def acme(house: House) -> House:
    """Give a relay whose users acme and other may log in."""
    hashed = hash_password("secret")
    house.config = msgspec.structs.replace(
        house.config,
        listeners=(Listener(address="127.0.0.1:0", tls=Tls.NONE, auth=Auth.REQUIRED, allow_plaintext_auth=True),),
        users=(User("acme", hashed), User("other", hashed)),
    )
    await house.open(retry=SLOW)
    return house


async def test_mail_goes_by_the_account_that_it_names(acme: House) -> None:
    """An account works at once, with its login; it stays over restart and reload; a change of its host is followed."""
    upstream = Sink(SinkSettings(username="u", password="p4ss", require_auth=True))
    await upstream.start()
    account = UpstreamAccount("main", "127.0.0.1", upstream.address[1], "u", use_tls=False)
    assert await acme.server.accounts.upsert("acme", account, "p4ss")
    number = await submit(acme, "acme", MAIN)
    await acme.until(lambda: Kind.RELAYED in acme.kinds(number))
    assert upstream.counts.messages == 1 and acme.sink.counts.messages == 0
    with pytest.raises(smtplib.SMTPDataError, match="has no route of that name"):
        await submit(acme, "other", MAIN)
    await acme.server.stop()
    await acme.open()
    acme.server.relay.apply(acme.server.accounts.lay_over(acme.config), Keyring())
    number = await submit(acme, "acme", MAIN)
    await acme.until(lambda: Kind.RELAYED in acme.kinds(number))
    assert upstream.counts.messages == 2
    assert not await acme.server.accounts.upsert(
        "acme", msgspec.structs.replace(account, port=acme.sink.address[1], user="")
    )
    number = await submit(acme, "acme", MAIN)
    await acme.until(lambda: Kind.RELAYED in acme.kinds(number))
    assert (upstream.counts.messages, acme.sink.counts.messages) == (2, 1)
    await upstream.stop()


async def test_mail_of_an_account_that_is_gone_is_held(acme: House) -> None:
    """It is not sent by anybody else's upstream, and no more comes in for it."""
    account = UpstreamAccount("main", "127.0.0.1", 1, use_tls=False)
    await acme.server.accounts.upsert("acme", account)
    number = await submit(acme, "acme", MAIN)
    await acme.until(lambda: Kind.ATTEMPTED in acme.kinds(number) or Kind.DELAYED in acme.kinds(number))
    assert await acme.server.accounts.remove("acme", "main")
    assert not await acme.server.accounts.remove("acme", "main")
    await acme.server.stop()
    await acme.open()
    acme.server.relay.scheduler.unblock("account:acme:main")
    await acme.server.operations.queue_retry(_one(number), False)

    async def why() -> str:
        (entry,) = await acme.server.spool.entries_of(number)
        return str(entry.why)

    for _ in range(500):
        if await why() == "held":
            break
        await asyncio.sleep(0.02)
    assert await why() == "held"
    assert acme.sink.counts.messages == 0
    with pytest.raises(smtplib.SMTPDataError, match="has no route of that name"):
        await submit(acme, "acme", MAIN)


async def test_accounts_are_their_tenants(acme: House) -> None:
    """Two tenants may have accounts of one id, and neither sees the other's."""
    accounts = acme.server.accounts
    mine, theirs = UpstreamAccount("a", "mine.example"), UpstreamAccount("a", "theirs.example")
    await accounts.upsert("acme", mine)
    await accounts.upsert("other", theirs)
    assert (accounts.of("acme"), accounts.of("other"), accounts.of("third")) == ([mine], [theirs], [])
    await accounts.remove("other", "a")
    assert accounts.get("acme", "a") == mine and accounts.get("other", "a") is None


async def test_a_limit_is_kept_at_the_door_or_in_the_queue(acme: House) -> None:
    """What lets mail wait never refuses; what does not says how long to wait, also after a change of another number."""
    accounts = acme.server.accounts
    account = UpstreamAccount("a", "up.example", limit_per_hour=2)
    await accounts.upsert("acme", account)
    for _ in range(5):
        accounts.take("acme", "a")
    assert accounts.wait("acme", "a") == 0.0
    refusing = msgspec.structs.replace(account, limit_behavior=Behavior.ERROR)
    await accounts.upsert("acme", refusing)
    assert accounts.wait("acme", "a") > 0.0  # what was taken before counts
    await accounts.upsert("other", refusing)
    for _ in range(2):
        assert accounts.wait("other", "a") == 0.0
        accounts.take("other", "a")
    assert accounts.wait("other", "a") > 0.0


async def test_passwords_are_sealed_and_a_lost_key_is_told(acme: House, caplog: pytest.LogCaptureFixture) -> None:
    """No password is in the database or in a listing; with another key the account is left out, with an error."""
    account = UpstreamAccount("main", "127.0.0.1", 25, "u")
    await acme.server.accounts.upsert("acme", account, "hunter2hunter2")
    assert "hunter2" not in repr(acme.server.accounts.of("acme"))
    await acme.server.stop()
    folder = acme.config.data_directory
    files = [path.read_bytes() for path in (folder / "spool").iterdir() if path.is_file()]
    assert not any(b"hunter2" in octets for octets in files)
    (folder / KEY_FILE).write_bytes(bytes(32))
    await acme.open()
    assert acme.server.accounts.of("acme") == []
    assert "password of account main of acme cannot be opened" in caplog.text
    assert not await _upsert_again(acme, account)


async def _upsert_again(house: House, account: UpstreamAccount) -> bool:
    await house.server.accounts.upsert("acme", account, "again")
    return house.server.accounts.get("acme", "main") != account


def _one(number: int) -> Filter:
    return Filter(ids=(number,))
