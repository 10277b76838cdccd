"""DKIM beside other implementations: what they sign we verify, what we sign they verify, and reasons are told."""

import hashlib
import re
import shutil
import subprocess
from base64 import b64encode
from pathlib import Path

import pytest

from smarthost.crypto.dkim import BodyHash, canonical_field, sign
from smarthost.crypto.dkim_keys import SigningKey, generate_key, load_key, public_record
from smarthost.crypto.dkim_verify import verify

FIELDS = [
    (b"received", b"Received: from a by b;\r\n Fri, 11 Jul 2003 21:00:37 -0700\r\n"),
    (b"from", b"From: =?utf-8?q?J=C3=B6?=\r\n\t<jo@mail.example.org>\r\n"),
    (b"to", b"To:  a@example.net ,\r\n  b@example.net\r\n"),
    (b"subject", b"Subject: \t  odd   white \r\n\tspace \r\n"),
    (b"comments", b"Comments: one\r\n"),
    (b"resent-to", b"Resent-To: one@example.net\r\n"),
    (b"resent-to", b"Resent-To: two@example.net\r\n"),
    (b"date", b"Date: Fri, 11 Jul 2003 21:00:37 -0700\r\n"),
    (b"message-id", b"Message-ID: <1@mail.example.org>\r\n"),
]
BODY = b"Hi.\t \r\n\r\n.dot  and\ttab\r\n-- \r\n\r\n \r\n"
# Verifies the message on standard input with the one key record in its argument; prints a line a signature.
PERL = r"""
use strict; use warnings; use Net::DNS; use Mail::DKIM::Verifier; use Mail::DKIM::DNS;
package Canned;
sub send {
    my ($self, $name, $type) = @_;
    my $packet = Net::DNS::Packet->new($name, $type, 'IN');
    my @strings = unpack('(A255)*', $ARGV[0]);
    $packet->push(answer => Net::DNS::RR->new(name => $name, type => 'TXT', ttl => 60, txtdata => [@strings]));
    $packet->header->qr(1);
    return $packet;
}
package main;
Mail::DKIM::DNS::resolver(bless {}, 'Canned');
my $verifier = Mail::DKIM::Verifier->new();
binmode STDIN;
local $/; my $content = <STDIN>;
$verifier->PRINT($content); $verifier->CLOSE;
print $_->domain, ' ', $_->selector, ' ', $_->result_detail, "\n" for $verifier->signatures;
"""


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    """Make an RSA key for example.org."""
    path = tmp_path_factory.mktemp("keys") / "rsa.pem"
    generate_key("rsa-sha256", path)
    return load_key("example.org", "s1", path)


def signed_by_us(key: SigningKey) -> bytes:
    """Sign the message of this module."""
    body_hash = BodyHash()
    body_hash.update(BODY)
    return sign([key], FIELDS, body_hash.digest(), 1_700_000_000) + unsigned()


def unsigned() -> bytes:
    """Give the message without a signature."""
    return b"".join(raw for _, raw in FIELDS) + b"\r\n" + BODY


def records_of(key: SigningKey) -> dict[str, bytes]:
    """Give the zone in which the key can be found."""
    return {key.record_name: public_record(key).encode()}


def _has_mail_dkim() -> bool:
    if shutil.which("perl") is None:
        return False
    return not subprocess.run(
        ["perl", "-MMail::DKIM::Verifier", "-e", "1"], capture_output=True, check=False
    ).returncode


@pytest.mark.skipif(not _has_mail_dkim(), reason="Mail::DKIM is not installed (package libmail-dkim-perl)")
def test_mail_dkim_verifies_what_we_sign(key: SigningKey) -> None:
    """Mail::DKIM's verifier passes our signature, and fails it for a changed body or an added From."""

    def ask(content: bytes) -> str:
        done = subprocess.run(
            ["perl", "-e", PERL, public_record(key)], input=content, capture_output=True, check=True, timeout=30
        )
        return done.stdout.decode()

    content = signed_by_us(key)
    assert ask(content) == "example.org s1 pass\n"
    assert "fail" in ask(content.replace(b"Hi.", b"Ho."))
    assert "fail" in ask(b"From: evil@example.com\r\n" + content)


@pytest.mark.skipif(shutil.which("opendkim-testmsg") is None, reason="no opendkim-testmsg (package opendkim-tools)")
def test_we_verify_what_opendkim_signs(key: SigningKey, tmp_path: Path) -> None:
    """A signature by OpenDKIM's library with the same key file is verified by us.

    Its tool cannot be told where to look a key up but in the machine's DNS, so it serves as signer here.
    """
    command = ["opendkim-testmsg", "-C", "-d", "example.org", "-s", "s1", "-k", str(key.path), "-t", str(tmp_path)]
    done = subprocess.run(command, input=unsigned(), capture_output=True, check=True, timeout=30)
    content = re.sub(rb"\r?\n", b"\r\n", done.stdout)
    (found,) = verify(content, records_of(key).get)
    assert (found.domain, found.selector, found.ok, found.reason) == ("example.org", "s1", True, "")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command")
def test_we_verify_what_openssl_signs(key: SigningKey, tmp_path: Path) -> None:
    """A signature made by the openssl command over the canonical octets is verified by us, and is equal to ours."""
    body = b64encode(hashlib.sha256(b"Hi.\r\n\r\n.dot and tab\r\n--\r\n").digest())
    head = (
        b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=s1;\r\n h=from:subject; bh=%b; b="
        % body
    )
    octets = (
        b"from:=?utf-8?q?J=C3=B6?= <jo@mail.example.org>\r\nsubject:odd white space\r\n"
        b"dkim-signature:v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=s1; h=from:subject; bh=%b; b=" % body
    )
    assert octets.endswith(canonical_field(b"dkim-signature", head)[:-2])
    command = ["openssl", "dgst", "-sha256", "-sign", str(key.path)]
    done = subprocess.run(command, input=octets, capture_output=True, check=True, timeout=30)
    (found,) = verify(head + b64encode(done.stdout) + b"\r\n" + unsigned(), records_of(key).get)
    assert (found.ok, found.reason) == (True, "")


def test_reasons_are_told(key: SigningKey) -> None:
    """A changed body, a changed field, a missing record and a broken record each give their reason."""
    content, records = signed_by_us(key), records_of(key)

    def reason(text: bytes, zone: dict[str, bytes]) -> str:
        (found,) = verify(text, zone.get)
        assert not found.ok
        assert (found.domain, found.selector) == ("example.org", "s1")
        return found.reason

    assert "body hash" in reason(content.replace(b"Hi.", b"Ho."), records)
    assert "does not match" in reason(content.replace(b"Resent-To: two", b"Resent-To: six"), records)
    assert "no key record at s1._domainkey.example.org" in reason(content, {})
    assert "future" in reason(content.replace(b"t=1700000000", b"t=4000000000"), records)
    assert reason(content, {key.record_name: b"v=DKIM1; k=rsa; p=AAAA"})
    assert reason(content, {key.record_name: b"v=DKIM1; k=rsa; p="})
    assert reason(content, {key.record_name: b"\xff\x00 nonsense"})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\r\n",
        b"no header at all",
        b"From: a@b\r\n\r\nx",
        b"DKIM-Signature: rubbish\r\n\r\n",
        b"\xff: \xfe\r\n\r\n",
    ],
)
def test_content_without_a_good_signature_is_survived(content: bytes) -> None:
    """Whatever octets come, the verifier answers; it never says ok for them."""
    assert not any(found.ok for found in verify(content, {}.get))
