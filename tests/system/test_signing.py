"""The signer beside the relay, as an operator meets it: it may be killed, and it never outlives its relay."""

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import dkim
import pytest
from relay_process import Relay, wait_until
from sending import submit
from sink_process import Sink

from smarthost.crypto.dkim_keys import Algorithm, generate_key, load_key, public_record


def signer_of(relay: Relay) -> int:
    """Give the number of the relay's signer process, 0 while there is none."""
    assert relay.running is not None
    for task in Path(f"/proc/{relay.running.pid}/task").iterdir():
        with contextlib.suppress(OSError):  # what is ending may be gone when it is looked at
            for child in (task / "children").read_text().split():
                if b"smarthost/crypto/signer.py" in Path(f"/proc/{child}/cmdline").read_bytes() and ignores(child):
                    return int(child)
    return 0


def ignores(child: str, number: int = signal.SIGTERM) -> bool:
    """Whether a process ignores a signal: the signer does as soon as it runs our code."""
    status = Path(f"/proc/{child}/status").read_text()
    return bool(int(status.partition("SigIgn:")[2].split()[0], 16) >> (number - 1) & 1)


@pytest.fixture
def signing_relay(make_relay: Callable[..., Relay], tmp_path: Path) -> Relay:
    """A relay with an RSA key, and its signer at work."""
    generate_key(Algorithm.RSA_SHA256, tmp_path / "key.pem", 2048)
    relay = make_relay(dkim=[{"domain": "example.org", "selector": "s1", "key": str(tmp_path / "key.pem")}])
    relay.start()
    wait_until(lambda: signer_of(relay), "the signer runs")
    return relay


def test_a_signer_that_is_killed_costs_nothing(signing_relay: Relay, sink: Sink, tmp_path: Path) -> None:
    """Messages of before, during and after its absence all arrive with a signature that verifies; the log tells."""
    for number in range(12):
        if number == 4:
            signer = signer_of(signing_relay)
            assert signer
            os.kill(signer, signal.SIGKILL)
        submit(signing_relay.port, f"number {number}", "250@example.com", sender="app@example.org")
    wait_until(lambda: len(sink.subjects()) == 12, "all arrived")
    record = public_record(load_key("example.org", "s1", tmp_path / "key.pem")).encode()
    for path in (sink.maildir / "new").iterdir():
        assert dkim.verify(path.read_bytes(), dnsfunc=lambda name, timeout=5: record)
    texts = [event["text"] for event in signing_relay.events("log")]
    assert any(text.startswith("the signer has ended: threads of the relay sign") for text in texts)
    wait_until(lambda: signer_of(signing_relay), "another signer runs")


def test_the_signer_ends_with_the_relay(signing_relay: Relay) -> None:
    """Not even a relay that is killed leaves a process behind that holds its keys."""
    signer = signer_of(signing_relay)
    signing_relay.kill()
    assert signer
    wait_until(lambda: has_ended(signer), "the signer ended", 5)


def test_sigterm_to_all_is_the_relays_to_follow(signing_relay: Relay, sink: Sink) -> None:
    """A SIGTERM to every process of a service: the signer stays while its relay does, which ends by 0."""
    signer = signer_of(signing_relay)
    assert signer
    os.kill(signer, signal.SIGTERM)
    submit(signing_relay.port, "still signed", "250@example.com", sender="app@example.org")
    sink.wait_for("still signed")
    assert signer_of(signing_relay) == signer
    started = time.monotonic()
    assert signing_relay.stop() == 0
    assert time.monotonic() - started < 5
    assert not Path(f"/proc/{signer}").exists()


def has_ended(number: int) -> bool:
    """Whether a process is gone, or has ended and only waits to be looked at."""
    try:
        return ") Z " in Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return True
