"""Signers: by the signer, by threads while there is none, and through its death, silence and change of keys."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from smarthost.crypto.dkim import BodyHash, Unsigned, prepare
from smarthost.crypto.dkim_keys import Algorithm, SigningKey, generate_key, load_key, public_record
from smarthost.crypto.dkim_verify import verify
from smarthost.queue import signers as module
from smarthost.queue.signers import Signers
from smarthost.queue.signing import Workers

FIELDS = [(b"from", b"From: a@example.org\r\n"), (b"subject", b"Subject: x\r\n")]
TEXT = b"".join(raw for _, raw in FIELDS) + b"\r\n"


@pytest.fixture
def keys(tmp_path: Path) -> tuple[SigningKey, ...]:
    """One RSA key and one Ed25519 key of a domain."""
    generate_key(Algorithm.RSA_SHA256, tmp_path / "r.pem", 2048)
    generate_key(Algorithm.ED25519_SHA256, tmp_path / "e.pem", 2048)
    return tuple(load_key("example.org", name, tmp_path / f"{name}.pem") for name in ("r", "e"))


@pytest_asyncio.fixture
async def signers() -> AsyncIterator[Signers]:
    """Signers with two threads and no signer yet."""
    threads = Workers(2)
    made = Signers(asyncio.get_running_loop(), threads)
    yield made
    made.close()
    threads.close()


def unsigned(keys: tuple[SigningKey, ...]) -> Unsigned:
    """Prepare a message."""
    return prepare(keys, FIELDS, BodyHash().digest(), 1_790_000_000)


def submit(signers: Signers, keys: tuple[SigningKey, ...]) -> "asyncio.Future[bytes | None]":
    """Have one message signed."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes | None] = loop.create_future()
    signers.submit(lambda: unsigned(keys), lambda signed: loop.call_soon_threadsafe(answer.set_result, signed) and None)
    return answer


async def check(keys: tuple[SigningKey, ...], *answers: "asyncio.Future[bytes | None]") -> None:
    """Every message was signed by every key, in the keys' order."""
    records = {key.record_name: public_record(key).encode() for key in keys}
    for signed in await asyncio.wait_for(asyncio.gather(*answers), 20):
        assert signed is not None
        found = verify(signed + TEXT, records.get)
        assert [(one.ok, one.selector) for one in found] == [(True, key.selector) for key in keys]


async def until(question: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(20):
        while not question():
            await asyncio.sleep(0.01)


async def start(signers: Signers, keys: tuple[SigningKey, ...]) -> None:
    """Have a signer, and wait until it is used."""
    signers.tend(keys)
    await until(lambda: signers._link is not None and signers._link.is_ready)


def send(signers: Signers, number: int) -> None:
    """Send the signer a signal."""
    assert signers._link is not None
    signers._link._child.send_signal(number)


async def test_threads_sign_without_a_signer(signers: Signers, keys: tuple[SigningKey, ...]) -> None:
    """Before a signer is ready, messages are signed all the same."""
    await check(keys, *[submit(signers, keys) for _ in range(5)])


async def test_the_signer_signs(
    signers: Signers, keys: tuple[SigningKey, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is ready, RSA is the signer's: no thread signs."""
    await start(signers, keys)
    monkeypatch.setattr(module, "_sign_here", None)
    await check(keys, *[submit(signers, keys) for _ in range(200)])
    await check(keys[1:], submit(signers, keys[1:]))


async def test_no_signer_without_rsa(signers: Signers, keys: tuple[SigningKey, ...]) -> None:
    """Ed25519 alone needs no second process."""
    signers.tend(keys[1:])
    assert not signers._is_starting
    await check(keys[1:], submit(signers, keys[1:]))


async def test_a_signer_that_dies_costs_no_message(
    signers: Signers, keys: tuple[SigningKey, ...], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it owed is signed by threads; it is started again after a pause, which is told of."""
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.05)
    await start(signers, keys)
    await check(keys, submit(signers, keys))
    send(signers, signal.SIGSTOP)
    answers = [submit(signers, keys) for _ in range(100)]
    await asyncio.sleep(0.05)
    send(signers, signal.SIGKILL)
    await check(keys, *answers)
    assert "the signer has ended" in caplog.text
    await check(keys, submit(signers, keys))
    await asyncio.sleep(0.06)
    await start(signers, keys)
    await check(keys, submit(signers, keys))


async def test_a_signer_that_is_silent_is_given_up(
    signers: Signers, keys: tuple[SigningKey, ...], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signer that does not answer is ended, and threads sign what it owed; one that owes nothing may be silent."""
    monkeypatch.setattr(module, "SILENCE", 0.2)
    await start(signers, keys)
    await asyncio.sleep(0.3)
    signers.tend(keys)
    assert signers._link is not None
    send(signers, signal.SIGSTOP)
    answers = [submit(signers, keys) for _ in range(3)]
    await asyncio.sleep(0.3)
    assert not any(answer.done() for answer in answers)
    signers.tend(keys)
    await check(keys, *answers)
    assert "has not answered" in caplog.text


async def test_new_keys(
    signers: Signers, keys: tuple[SigningKey, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that the signer does not know is signed by threads until a signer has it; what the old one owes comes."""
    await start(signers, keys)
    generate_key(Algorithm.RSA_SHA256, tmp_path / "n.pem", 2048)
    new = (load_key("example.org", "n", tmp_path / "n.pem"),)
    old = [submit(signers, keys) for _ in range(30)]
    await asyncio.sleep(0)
    await check(new, submit(signers, new))
    first = signers._link
    signers.tend(new)
    await until(lambda: signers._link is not first and signers._link is not None and signers._link.is_ready)
    await check(keys, *old)
    monkeypatch.setattr(module, "_sign_here", None)
    await check(new, submit(signers, new))


async def test_no_keys_any_more(signers: Signers, keys: tuple[SigningKey, ...]) -> None:
    """When the last RSA key leaves the configuration, the signer ends."""
    await start(signers, keys)
    signers.tend(())
    assert signers._link is None and not signers._is_starting


async def test_close_signs_what_is_owed(keys: tuple[SigningKey, ...]) -> None:
    """At the end nothing waits: what was submitted, asked for, or owed by a signer that hangs, is signed by threads."""
    threads = Workers(2)
    signers = Signers(asyncio.get_running_loop(), threads)
    await start(signers, keys)
    send(signers, signal.SIGSTOP)
    answers = [submit(signers, keys) for _ in range(3)]
    await asyncio.sleep(0.05)
    answers += [submit(signers, keys)]
    signers.close()
    threads.close()
    await check(keys, *answers)


async def test_it_cannot_be_started(
    signers: Signers, keys: tuple[SigningKey, ...], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no process may be started, that is told, and threads sign; the pauses between two tries grow."""
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    for wanted in (5, 10):
        signers._may_start = 0.0
        caplog.clear()
        signers.tend(keys)
        await until(lambda: not signers._is_starting)
        assert (
            f"cannot be started (No such file or directory): threads of the relay sign; the next try is in {wanted} s"
            in (caplog.text)
        )
    signers.tend(keys)
    assert not signers._is_starting
    await check(keys, submit(signers, keys))


async def test_a_fault_of_ours_is_told(
    signers: Signers, keys: tuple[SigningKey, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """A message that cannot be prepared gets None, and the others of its row their signatures."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes | None] = loop.create_future()

    def fail() -> Unsigned:
        raise RuntimeError("a bug")

    signers.submit(fail, answer.set_result)
    other = submit(signers, keys)
    assert await answer is None
    await check(keys, other)
    with caplog.at_level(logging.ERROR):
        signers.submit(lambda: unsigned(keys[1:]), lambda signed: 1 // 0)  # type: ignore[arg-type, return-value]
        await check(keys, submit(signers, keys))
    assert "could not be handed on" in caplog.text
