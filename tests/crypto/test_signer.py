"""The signer beside the relay: its signatures, its pipes when they are full, its end, and what it is started with."""

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256

from smarthost.crypto.dkim_keys import Algorithm, SigningKey, generate_key, load_key
from smarthost.crypto.signer_link import SignerLink, quicker_rsa

MakeLink = Callable[..., SignerLink]
PATIENCE = 20.0


@pytest.fixture
def keys(tmp_path: Path) -> list[SigningKey]:
    """Two RSA keys of different lengths."""
    for name, bits in (("short", 1024), ("long", 2048)):
        generate_key(Algorithm.RSA_SHA256, tmp_path / f"{name}.pem", bits)
    return [load_key("example.org", name, tmp_path / f"{name}.pem") for name in ("short", "long")]


@pytest.fixture
def make_link(keys: list[SigningKey]) -> Iterator[MakeLink]:
    """Starts signers that are ended with the test."""
    made: list[SignerLink] = []

    def make() -> SignerLink:
        made.append(SignerLink(keys))
        return made[-1]

    yield make
    for link in made:
        link.end()


def collect(link: SignerLink, wanted: int) -> dict[int, bytes]:
    """Read until so many signatures have come."""
    found: dict[int, bytes] = {}
    until = time.monotonic() + PATIENCE
    while len(found) < wanted:
        assert time.monotonic() < until, f"{len(found)} of {wanted} signatures came"
        select.select([link.results], [], [], 1)
        assert link.read(found.__setitem__), "the signer ended"
    return found


def wait_until_ready(link: SignerLink) -> None:
    """Read until the signer has its keys."""
    until = time.monotonic() + PATIENCE
    while not link.is_ready:
        assert time.monotonic() < until
        select.select([link.results], [], [], 1)
        assert link.read(lambda number, signature: None)


def is_by(key: SigningKey, signature: bytes, digest: bytes) -> bool:
    """Whether a signature verifies; raises InvalidSignature otherwise."""
    assert isinstance(key.private, RSAPrivateKey)
    key.private.public_key().verify(signature, digest, PKCS1v15(), Prehashed(SHA256()))
    return True


def test_each_request_gets_its_signature(
    make_link: MakeLink, keys: list[SigningKey], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Far more requests than a pipe holds, by two keys, read piecemeal: each number comes with its own signature."""
    monkeypatch.setattr("smarthost.crypto.signer_link._PIPE", 1000)
    link = make_link()
    digests = {number: sha256(b"%d" % number).digest() for number in range(1, 3001)}
    for number, digest in digests.items():
        link.ask(number, keys[number % 40 == 0], digest)
    link.send()
    found = collect(link, len(digests))
    assert link.is_ready
    assert all(is_by(keys[number % 40 == 0], found[number], digest) for number, digest in digests.items())


def test_its_end_is_seen(make_link: MakeLink, keys: list[SigningKey]) -> None:
    """A signer that was killed shows by the end of its results; asking and sending do no harm any more."""
    link = make_link()
    link._child.send_signal(signal.SIGKILL)
    until = time.monotonic() + PATIENCE
    while link.read(lambda number, signature: None):
        assert time.monotonic() < until
        select.select([link.results], [], [], 1)
    link.ask(1, keys[0], bytes(32))
    link.send()


def test_it_ends_with_its_relay(make_link: MakeLink) -> None:
    """When nobody is at the other end of its pipes, the process ends by itself; a signal to all does not end it."""
    link = make_link()
    child = link._child
    wait_until_ready(link)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        child.send_signal(number)
    time.sleep(0.2)
    assert child.poll() is None
    link._pipes.close()
    assert child.wait(PATIENCE) == 0


def test_secrets_and_sockets_stay_ours(make_link: MakeLink, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its environment has nothing of ours but what an interpreter needs; its standard output is not our mail log."""
    monkeypatch.setenv("SMARTHOST_PASSWORD", "secret")
    monkeypatch.setenv("LISTEN_FDS", "3")
    link = make_link()
    there = Path(f"/proc/{link._child.pid}")
    wait_until_ready(link)
    names = {entry.partition("=")[0] for entry in (there / "environ").read_text().split("\0") if entry}
    assert names <= {"PATH", "LANG", "LC_ALL", "LC_CTYPE", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "TZ"} | {
        "OPENSSL_ia32cap"
    }
    assert os.readlink(there / "fd/1") == os.devnull


def test_no_program_is_no_signer(keys: list[SigningKey], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no process can be started, that is an OSError, and no file descriptor is left open."""
    monkeypatch.setattr("sys.executable", "/nonexistent/python")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="No such file"):
        SignerLink(keys)
    monkeypatch.setattr(os, "sched_getaffinity", None)
    with pytest.raises(TypeError):
        SignerLink(keys)
    assert len(os.listdir("/proc/self/fd")) == before


def test_many_keys_and_nobody_reads(keys: list[SigningKey], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """More keys than a pipe holds, for a process that never reads them: starting and ending do not wait for it."""
    sleeper = tmp_path / "python"
    sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(sleeper))
    many = [load_key("example.org", f"s{number}", keys[1].path) for number in range(100)]
    started = time.monotonic()
    SignerLink(many).end()
    assert time.monotonic() - started < PATIENCE


def test_it_is_this_version_that_runs(keys: list[SigningKey], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """However the relay was found: a relative search path, or another smarthost on it, makes no difference."""
    (tmp_path / "smarthost").mkdir()
    (tmp_path / "smarthost/__init__.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("sys.path", [str(tmp_path), os.path.relpath("src"), *sys.path])
    link = SignerLink(keys)
    wait_until_ready(link)
    link.end()


MILAN = (
    "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\nflags\t\t: fpu avx avx2 adx sha_ni\n"
)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (MILAN, {"OPENSSL_ia32cap": ":~0x80000"}),
        (MILAN * 2, {"OPENSSL_ia32cap": ":~0x80000"}),
        (MILAN.replace("sha_ni", "avx512ifma"), {}),
        (MILAN.replace("AuthenticAMD", "GenuineIntel"), {}),
        (MILAN.replace("25", "23"), {}),
        ("", {}),
        ("nonsense", {}),
    ],
)
def test_quicker_rsa(text: str, wanted: dict[str, str]) -> None:
    """Only for the processor on which it was measured."""
    assert quicker_rsa(text) == wanted
