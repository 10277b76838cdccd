"""How a host was verified, as a person meets it: in the mail log, in `trace`, and in the report to the sender."""

import errno
import json
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from outside import need_command
from policy_server import policy_server
from relay_process import Relay, environment, free_port, wait_until
from sending import submit
from signed_zone import COMMANDS, SignedZone
from sink_process import Sink
from tls_names import tlsa_text

HERE = "127.0.0.78"  # a loopback address whose ports 25 and 443 are likely to be free
PROOFS = ("ca", "sts", "dane", "none")


@pytest.fixture
def zone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SignedZone]:
    """One host with TLS on port 25 whose authority the system knows; MTA-STS in one zone, DANE in another."""
    need_command(*COMMANDS)
    for port in (25, 443):
        try:
            socket.create_server((HERE, port)).close()
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EADDRINUSE, errno.EADDRNOTAVAIL):
                raise
            pytest.skip(f"port {port} of {HERE} cannot be had: {error}")
    authority = trustme.CA()
    made = authority.issue_cert("mx.plain.test", "mx.good.dane.test")
    authority.cert_pem.write_to_path(tmp_path / "system-ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system-ca.pem"))
    made.cert_chain_pems[0].write_to_path(tmp_path / "chain.pem")
    made.private_key_pem.write_to_path(tmp_path / "chain.key")
    leaf = x509.load_pem_x509_certificate(made.cert_chain_pems[0].bytes()).public_bytes(Encoding.DER)
    signed = ["good IN MX 0 mx.good", f"mx.good IN A {HERE}", f"_25._tcp.mx.good IN TLSA {tlsa_text(leaf, 3)}"]
    plain = ["@ IN MX 0 mx", f"mx IN A {HERE}", f"mta-sts IN A {HERE}", '_mta-sts IN TXT "v=STSv1; id=1"']
    served = SignedZone(tmp_path / "dns", signed, plain)
    files = ["--certificate", str(tmp_path / "chain.pem"), "--key", str(tmp_path / "chain.key")]
    command = [sys.executable, "-m", "smarthost", "sink", "--listen", f"{HERE}:25", *files]
    upstream = subprocess.Popen([*command, "--http", f"127.0.0.1:{free_port()}"], cwd=tmp_path, env=environment())
    try:
        served.start()
        with policy_server(authority, "mta-sts.plain.test", address=(HERE, 443)) as web:
            web.text = "version: STSv1\nmode: enforce\nmx: mx.plain.test\nmax_age: 86400\n"
            wait_until(is_up, "the upstream takes connections", 20)
            yield served
    finally:
        served.close()
        upstream.terminate()
        upstream.wait(10)


def is_up() -> bool:
    """Whether the upstream takes connections."""
    with socket.socket() as probe:
        return probe.connect_ex((HERE, 25)) == 0


def test_log_trace_and_report_say_how_the_host_was_verified(
    make_relay: Callable[..., Relay], zone: SignedZone, sink: Sink
) -> None:
    """For each of ca, sts, dane and none: protocol, cipher and proof, of what was relayed and of what failed."""
    domains = {"ca": "ca.to", "none": "none.to", "sts": "plain.test", "dane": "good.dane.test"}
    routes = [
        {"name": "ca", "relayhost": "[mx.plain.test]:25", "tls": "verify"},
        {"name": "none", "relayhost": "[mx.plain.test]:25", "tls": "encrypt"},
        {"name": "sts", "deliver": "mx", "tls": "may"},
        {"name": "dane", "deliver": "mx", "tls": "dane"},
    ]
    matched = [route | {"match": {"recipient": f"*@{domains[str(route['name'])]}"}} for route in routes]
    relay = make_relay(dns={"servers": [zone.resolver]}, route=matched, retry={"schedule": ["1h"]})
    relay.start()
    ids = {proof: submit(relay.port, proof, f"250@{domains[proof]}", f"550@{domains[proof]}") for proof in PROOFS}

    def ended() -> list[tuple[str, str, str]]:
        kinds = ("relayed", "failed", "delayed")
        events = [event for event in relay.events() if event.get("event") in kinds and event["route"] in PROOFS]
        return sorted((event["route"], event["event"], event.get("tls", "")) for event in events)

    try:
        wait_until(lambda: len(ended()) == 2 * len(PROOFS), "each recipient has its end", 40)
    except AssertionError:
        raise AssertionError(f"{ended()}\n{relay.events()[-4:]}\n{relay.errors()[-3000:]}") from None
    for proof, number in ids.items():
        found = [(event, tls) for route, event, tls in ended() if route == proof]
        assert [event for event, _ in found] == ["failed", "relayed"]
        [shown] = {tls for _, tls in found}
        assert shown.startswith("TLSv1.3 TLS_") and shown.endswith(f" verified={proof}")
        assert relay.run("trace", number).stdout.count(shown) >= 2
        rows = [json.loads(line) for line in relay.run("trace", "--json", number).stdout.splitlines()]
        assert shown in json.dumps(rows)
    wait_until(lambda: len(sink.reports()) == len(PROOFS), "each sender has a report", 20)
    told = sorted(line for mail in sink.octets() for line in mail.decode().splitlines() if "X-Smarthost-TLS" in line)
    assert [line.rpartition("=")[2] for line in told] == sorted(PROOFS)
    assert all(line.startswith("X-Smarthost-TLS: TLSv1.3 TLS_") for line in told)
