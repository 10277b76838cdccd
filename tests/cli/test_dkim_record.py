"""dkim check: the key against its record, the record from a real name server."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import dns.message
import dns.rcode
import dns.rrset
import pytest

from smarthost.__main__ import main
from smarthost.crypto.dkim_keys import SigningKey, generate_key, load_key, public_record
from smarthost.crypto.dkim_published import judge_records

NAME = "s1._domainkey.example.org."


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    """An RSA key of example.org."""
    path = tmp_path_factory.mktemp("dkim") / "k.pem"
    generate_key("rsa-sha256", path)
    return load_key("example.org", "s1", path)


def test_judgement(key: SigningKey) -> None:
    """Each way in which a record can be wrong has its own sentence; white space and testing mode are no fault."""
    good = public_record(key)
    spaced = good.replace(";", " ; ").replace("p=", "p= ").replace("AAAA", "AA AA")
    assert judge_records(key, [good]).fits
    assert judge_records(key, ["v=spf1 -all", spaced]).fits
    assert "testing" in judge_records(key, [good + "; t=y:s"]).sentence
    for records, word in (
        ([], "no key record"),
        ([good, good], "2 key records"),
        (["v=DKIM1; p="], "revokes"),
        (["v=DKIM1; k=ed25519; p=AAAA"], "the key is rsa"),
        (["v=DKIM1; p=AAAA"], "another public key"),
        ([good.replace("DKIM1", "DKIM2")], "version"),
    ):
        found = judge_records(key, records)
        assert (found.fits, word in found.sentence) == (False, True), records


@pytest.fixture
def serve_dns() -> Iterator[Callable[[list[str] | None], str]]:
    """Start a name server that knows these TXT strings for every name, or no name at all; gives its address."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    threads = []

    def answer(strings: list[str] | None) -> None:
        octets, client = server.recvfrom(4096)
        query = dns.message.from_wire(octets)
        response = dns.message.make_response(query)
        if strings is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
        else:
            text = " ".join(f'"{string}"' for string in strings)
            response.answer.append(dns.rrset.from_text(query.question[0].name, 60, "IN", "TXT", text))
        server.sendto(response.to_wire(), client)

    def start(strings: list[str] | None) -> str:
        threads.append(threading.Thread(target=answer, args=(strings,)))
        threads[-1].start()
        return f"127.0.0.1:{server.getsockname()[1]}"

    yield start
    for thread in threads:
        thread.join(5)
    server.close()


def test_check_asks_dns(
    key: SigningKey, serve_dns: Callable[[list[str] | None], str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A record in several strings fits, an absent name does not."""
    command = ["dkim", "check", "--domain", "example.org", "--selector", "s1", "--key", str(key.path), "--server"]
    record = public_record(key)
    assert main([*command, serve_dns([record[:255], record[255:]])]) == 0
    assert capsys.readouterr().out == "s1._domainkey.example.org: the record fits the key\n"
    assert main([*command, serve_dns(None)]) == os.EX_CONFIG
    assert "no key record" in capsys.readouterr().err


def test_zone_record_has_short_strings(key: SigningKey, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A record for a zone file is cut into strings of at most 255 octets that together are the record."""
    assert main(["dkim", "show", "--key", str(key.path), "--domain", "example.org", "--selector", "s1"]) == 0
    line = capsys.readouterr().out
    strings = line[line.index('"') :].rstrip(")\n").strip('"').split('" "')
    assert line.startswith(f"{NAME} IN TXT (")
    assert "".join(strings) == public_record(key)
    assert all(len(string) <= 255 for string in strings)
