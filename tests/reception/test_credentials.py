"""Login verification: two threads, a bounded queue, a memory of what was right, and failures per address."""

import asyncio
import threading
import time

import pytest
from doorstep import HASH, PASSWORD

from smarthost.crypto.password import hash_password
from smarthost.mail.reply import AUTH_BUSY, BAD_CREDENTIALS, TOO_MANY_FAILURES
from smarthost.policy.admission import User
from smarthost.policy.ledger import Ledger
from smarthost.reception import credentials as module
from smarthost.reception.credentials import MOST_WAITING, THREADS, Credentials
from smarthost.reception.failures import MOST_ADDRESSES, Failures
from smarthost.reception.peer import block_of, client_of

ADA = User("ada", HASH)


@pytest.fixture
def hashing(monkeypatch):
    """Count verifications, and the threads they run in."""
    seen = []

    def verify(hashed, password):
        seen.append((hashed, password, threading.current_thread().name))
        return verify.real(hashed, password)

    verify.real = module.verify_password
    monkeypatch.setattr(module, "verify_password", verify)
    return seen


async def test_a_right_password_is_hashed_once(hashing):
    """The second login with the same password is answered from memory; a wrong one always pays."""
    users = Credentials([ADA], time.time, Ledger())
    assert await users.verify("ada", PASSWORD, "192.0.2.1") == ADA
    assert await users.verify("ada", PASSWORD, "192.0.2.2") == ADA
    assert len(hashing) == 1
    assert await users.verify("ada", "wrong", "192.0.2.1") is BAD_CREDENTIALS
    assert await users.verify("ada", "wrong", "192.0.2.1") is BAD_CREDENTIALS
    assert len(hashing) == 3
    assert all(name.startswith("password") for _, _, name in hashing)
    users.close()


async def test_an_unknown_user_costs_what_a_known_one_does(hashing):
    """A hash is checked for a name that nobody has, with the same parameters; with no users at all too."""
    users = Credentials([ADA], time.time, Ledger())
    assert await users.verify("nobody", PASSWORD, "192.0.2.1") is BAD_CREDENTIALS
    assert hashing[0][0].split("$")[3] == HASH.split("$")[3]
    users.replace([])
    assert await users.verify("ada", PASSWORD, "192.0.2.1") is BAD_CREDENTIALS
    assert len(hashing) == 2
    users.close()


async def test_a_reload_forgets_what_changed(hashing):
    """A new hash or a removed user is asked again at once; others keep their memory and their rates."""
    bob = User("bob", HASH, (), ("1/h",))
    users = Credentials([ADA, bob], time.time, Ledger())
    for name in ("ada", "bob"):
        await users.verify(name, PASSWORD, "192.0.2.1")
    users.take("bob")
    assert users.wait("bob") > 0
    users.replace([User("ada", hash_password("other")), bob])
    assert await users.verify("ada", PASSWORD, "192.0.2.1") is BAD_CREDENTIALS
    assert len(hashing) == 3
    assert await users.verify("bob", PASSWORD, "192.0.2.1") == bob
    assert len(hashing) == 3
    assert users.wait("bob") > 0
    users.replace([User("bob", HASH, (), ("2/h",))])
    assert users.wait("bob") == 0
    assert users.wait("ada") == 0
    users.close()


async def test_a_reload_during_a_verification_counts(monkeypatch):
    """A user who is removed while the hash is made does not get in."""
    release = threading.Event()
    monkeypatch.setattr(module, "verify_password", lambda hashed, password: release.wait(5))
    users = Credentials([ADA], time.time, Ledger())
    login = asyncio.ensure_future(users.verify("ada", PASSWORD, "192.0.2.1"))
    await asyncio.sleep(0.01)
    users.replace([])
    release.set()
    assert await login is BAD_CREDENTIALS
    users.close()


async def test_the_queue_is_bounded_and_two_threads_hash(monkeypatch):
    """Beyond two running and 32 waiting logins are 454; the same password twice waits for one hash."""
    release, running = threading.Event(), []

    def verify(hashed, password):
        running.append(threading.current_thread().name)
        release.wait(5)
        return False

    monkeypatch.setattr(module, "verify_password", verify)
    users = Credentials([ADA], time.time, Ledger())
    addresses = (f"192.0.2.{number}" for number in range(200))
    logins = [
        asyncio.ensure_future(users.verify("ada", f"guess {number}", next(addresses)))
        for number in range(THREADS + MOST_WAITING)
    ]
    await asyncio.sleep(0.05)
    assert len(running) == THREADS
    assert await users.verify("ada", "one more", next(addresses)) is AUTH_BUSY
    same = asyncio.ensure_future(users.verify("ada", "guess 0", next(addresses)))
    cut_off = asyncio.ensure_future(users.verify("ada", "guess 1", next(addresses)))
    await asyncio.sleep(0)
    cut_off.cancel()
    release.set()
    assert set(await asyncio.gather(*logins, same)) == {BAD_CREDENTIALS}
    assert len(set(running)) == THREADS
    assert len(running) == THREADS + MOST_WAITING
    users.close()


async def test_the_memory_is_bounded(monkeypatch):
    """At most 1024 users are remembered; the first goes first."""
    monkeypatch.setattr(module, "verify_password", lambda hashed, password: True)
    users = Credentials([User(f"u{number}", "h") for number in range(1100)], time.time, Ledger())
    for number in range(1100):
        assert isinstance(await users.verify(f"u{number}", "x", "192.0.2.1"), User)
    assert len(users._remembered) == 1024
    assert "u0" not in users._remembered
    users.close()


async def test_names_and_passwords_are_not_confused():
    """A name and password cut at another place are another login."""
    users = Credentials([User("a", hash_password("b\0c"))], time.time, Ledger())
    assert isinstance(await users.verify("a", "b\0c", "x"), User)
    assert await users.verify("a\0b", "c", "x") is BAD_CREDENTIALS
    users.close()


async def test_failures_block_an_address_until_they_are_old():
    """Five in ten minutes; the fifth is told so; another address is not concerned."""
    now = [1000.0]
    users = Credentials([ADA], lambda: now[0], Ledger())
    for _ in range(4):
        assert await users.verify("ada", "wrong", "192.0.2.1") is BAD_CREDENTIALS
        now[0] += 100
    assert await users.verify("ada", "wrong", "192.0.2.1") is TOO_MANY_FAILURES
    assert await users.verify("ada", PASSWORD, "192.0.2.1") is TOO_MANY_FAILURES
    assert await users.verify("ada", PASSWORD, "192.0.2.2") == ADA
    now[0] += 201
    assert await users.verify("ada", PASSWORD, "192.0.2.1") == ADA
    users.close()


def test_one_ipv6_network_is_one_peer():
    """A /64 is one machine's; an IPv4-mapped address is the IPv4 address."""
    failures = Failures(lambda: 0.0)
    for number in range(5):
        failures.add(f"2001:db8::{number + 1:x}")
    assert failures.is_blocked("2001:db8::ffff")
    assert not failures.is_blocked("2001:db8:0:1::1")
    assert block_of("::ffff:192.0.2.1") == "192.0.2.1"
    assert block_of("fe80::zz") == "fe80::zz"
    assert block_of("") == ""
    assert client_of(("::ffff:192.0.2.1", 1, 0, 0)) == "192.0.2.1"
    assert client_of(("fe80::1%eth0", 1, 0, 2)) == "fe80::1"
    assert client_of("") == ""


def test_failures_are_bounded_in_memory():
    """The address that failed longest ago is forgotten first."""
    failures = Failures(lambda: 0.0)
    for _ in range(5):
        failures.add("first")
    for number in range(MOST_ADDRESSES - 1):
        failures.add(f"a{number}")
    assert failures.is_blocked("first")
    failures.add("first")
    failures.add("one more")
    assert failures.is_blocked("first")
    assert len(failures._times) == MOST_ADDRESSES
