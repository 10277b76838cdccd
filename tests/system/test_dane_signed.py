"""DANE with real DNSSEC: bind9 signs the zone, unbound validates, and the relay believes it, or does not."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from outside import need_command
from relay_process import Relay, environment, free_port, is_listening, wait_until
from sending import submit
from signed_zone import COMMANDS, SignedZone
from tls_names import tlsa_text


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[tuple[int, list[bytes]]]:
    """A sink with TLS whose authority nobody knows; gives its port, and its chain with that authority in DER."""
    need_command(*COMMANDS)
    authority = trustme.CA()
    made = authority.issue_cert("mx.ta.dane.test")
    pems = [made.cert_chain_pems[0].bytes(), authority.cert_pem.bytes()]
    (tmp_path / "chain.pem").write_bytes(b"".join(pems))
    made.private_key_pem.write_to_path(tmp_path / "chain.key")
    port = free_port()
    command = [sys.executable, "-m", "smarthost", "sink", "--listen", f"127.0.0.1:{port}"]
    command += ["--certificate", str(tmp_path / "chain.pem"), "--key", str(tmp_path / "chain.key")]
    running = subprocess.Popen(command, cwd=tmp_path, env=environment())
    try:
        wait_until(lambda: is_listening(port), "the upstream takes connections", 20)
        yield port, [x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER) for pem in pems]
    finally:
        running.terminate()
        running.wait(10)


@pytest.fixture
def zone(tmp_path: Path, upstream: tuple[int, list[bytes]]) -> Iterator[SignedZone]:
    """Serve hosts whose records are right by key, right by authority, of another, unusable, bogus, and unsigned."""
    port, (leaf, root) = upstream
    right, stranger = tlsa_text(leaf, 3), f"3 1 1 {'ab' * 32}"
    records = {
        "good": f"TLSA {right}",
        "ta": f"TLSA {tlsa_text(root, 2, 0, 2)}",
        "other": f"TLSA {stranger}",
        "pkix": f"TLSA {tlsa_text(leaf, 1)}",
        "none": "TXT nothing",
        "digests": f"TLSA {right}",
    }
    lines = []
    for name, record in records.items():
        lines += [f"{name} IN MX 0 mx.{name}", f"mx.{name} IN A 127.0.0.1", f"_{port}._tcp.mx.{name} IN {record}"]
    lines += ["bogus IN MX 0 mx.bogus", "mx.bogus IN A 127.0.0.1", f"!_{port}._tcp.mx.bogus IN TLSA 3 1 1 {'cd' * 32}"]
    lines += ["alias IN MX 0 mx.alias", "mx.alias IN CNAME mx.good"]
    # An alias that leads to an unsigned zone, with records beside it; a next hop whose own name the certificate has.
    lines += ["out IN MX 0 mx.out", "mx.out IN CNAME mx.plain.test.", f"_{port}._tcp.mx.out IN TLSA {right}"]
    lines += ["lost IN MX 0 mx.lost", "mx.lost IN CNAME mx.plain.test.", f"_{port}._tcp.mx.lost IN TLSA {stranger}"]
    lines += [
        "mx.ta IN MX 0 mx.hop",
        "mx.hop IN A 127.0.0.1",
        f"_{port}._tcp.mx.hop IN TLSA {tlsa_text(root, 2, 0, 2)}",
    ]
    lines += [f"_{port}._tcp.mx.digests IN TLSA 3 1 2 {'ab' * 64}"]
    plain = ["@ IN MX 0 mx", "mx IN A 127.0.0.1", f"_{port}._tcp.mx IN TLSA {right}"]
    served = SignedZone(tmp_path / "dns", lines, plain)
    try:
        served.start()
        yield served
    finally:
        served.close()


def test_dane_by_a_signed_zone(
    make_relay: Callable[..., Relay], upstream: tuple[int, list[bytes]], zone: SignedZone
) -> None:
    """What DNSSEC proves decides, in either direction; mail that is not safe to send waits, and the log says why."""
    hosts = {name: f"{name}.dane.test" for name in ("good", "ta", "other", "pkix", "none", "bogus", "alias")}
    hosts |= {"plain": "plain.test", "hop": "mx.ta.dane.test"}
    hosts |= {name: f"{name}.dane.test" for name in ("out", "lost", "digests")}
    relay = make_relay(
        dns={"servers": [zone.resolver]},
        route=[
            {"name": name, "relayhost": f"{host}:{upstream[0]}", "tls": "dane", "match": {"recipient": f"*@{name}.to"}}
            for name, host in hosts.items()
        ],
        retry={"schedule": ["1h"]},
    )
    relay.start()
    for name in hosts:
        submit(relay.port, name, f"250@{name}.to")

    def results() -> dict[str, dict[str, str]]:
        kinds = ("relayed", "delayed")
        return {event["route"]: event for event in relay.events() if event.get("event") in kinds}

    try:
        wait_until(lambda: len(results()) == len(hosts), "each message has had its attempt", 40)
    except AssertionError:
        raise AssertionError(f"{results()}\n{relay.errors()[-3000:]}") from None
    found = results()
    said = {name: (event["event"], event.get("tls", "").rpartition(" ")[2]) for name, event in found.items()}
    assert {name: said[name] for name in ("good", "ta", "alias", "pkix", "out", "hop")} == {
        "out": ("relayed", "verified=dane"),
        "hop": ("relayed", "verified=dane"),
        "good": ("relayed", "verified=dane"),
        "ta": ("relayed", "verified=dane"),
        "alias": ("relayed", "verified=dane"),
        "pkix": ("relayed", "verified=none"),
    }
    # A named next hop without proved records is verified by the authorities, and this one's is not known.
    expected = {
        "lost": "TLSA",
        "digests": "TLSA",
        "other": "TLSA",
        "bogus": "DNSSEC is bogus",
        "none": "not valid",
        "plain": "not valid",
    }
    for name, words in expected.items():
        assert said[name][0] == "delayed" and words in found[name]["reply"], (name, found[name])
