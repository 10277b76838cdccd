"""DKIM signing: relaxed canonical forms, the choice of fields, and signatures that other verifiers accept."""

import hashlib
from base64 import b64decode, b64encode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from dkim.canonicalization import Relaxed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smarthost.crypto.dkim import BodyHash, canonical_field, sign
from smarthost.crypto.dkim_keys import Keyring, generate_key, public_record
from smarthost.crypto.dkim_verify import verify

NOW = 1_700_000_000
HEADER = [
    (b"received", b"Received: from a\r\n\tby b; Fri, 11 Jul 2003 21:00:37 -0700\r\n"),
    (b"from", b"From: Joe SixPack\r\n <joe@example.org>\r\n"),
    (b"to", b"TO :\t Suzie  Q <suzie@shopping.example.net>\t \r\n"),
    (b"subject", b"Subject: Is dinner ready?\r\n"),
    (b"list-unsubscribe", b"List-Unsubscribe: <https://example.org/u>\r\n"),
    (b"list-unsubscribe-post", b"List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"),
    (b"x-mailer", b"X-Mailer: one\r\n"),
]
BODY = b"Hi. \r\n\r\nWe lost  the game.\t\r\n\r\n\r\n"


class Signer(NamedTuple):
    """A ring with an RSA and an Ed25519 key for example.org, and their records."""

    ring: Keyring
    records: dict[str, bytes]


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    """Make both keys."""
    folder = tmp_path_factory.mktemp("keys")
    settings = []
    for selector, algorithm in (("r", "rsa-sha256"), ("e", "ed25519-sha256")):
        path: Path = folder / selector
        generate_key(algorithm, path)
        settings.append(("example.org", selector, path))
    ring = Keyring(settings)
    return Signer(ring, {key.record_name: public_record(key).encode() for key in ring.keys})


def hash_of(body: bytes, cuts: list[int] | None = None) -> bytes:
    """Feed a body in blocks cut at the given offsets."""
    body_hash = BodyHash()
    start = 0
    for end in sorted(cut % (len(body) + 1) for cut in cuts or []):
        body_hash.update(body[start:end])
        start = max(start, end)
    body_hash.update(body[start:])
    return body_hash.digest()


def signed_names(signature: bytes) -> list[bytes]:
    """Give the names that h= of a DKIM-Signature field lists."""
    text = b"".join(signature.split())
    return text.split(b";h=")[1].split(b";")[0].split(b":")


LINE = st.lists(st.sampled_from([b"a", b"word", b" ", b"  ", b"\t", b".", b"=", "ü".encode(), b" \t "]), max_size=6)
BODIES = st.builds(
    lambda lines, last: b"".join(b"".join(line) + b"\r\n" for line in lines) + b"".join(last),
    st.lists(LINE, max_size=8),
    LINE | st.just([]),
)


def reference_hash(body: bytes) -> bytes:
    """Hash dkimpy's canonical form. A missing last CRLF is added first, where dkimpy is known to be wrong."""
    if body and not body.endswith(b"\r\n"):
        body += b"\r\n"
    return hashlib.sha256(Relaxed.canonicalize_body(body)).digest()


@settings(max_examples=400, deadline=None)
@given(body=BODIES, cuts=st.lists(st.integers(0, 200), max_size=8))
def test_body_hash_agrees_with_dkimpy_however_it_is_cut(body: bytes, cuts: list[int]) -> None:
    """Any body in any blocks has the hash of dkimpy's canonical form of the whole."""
    assert hash_of(body, cuts) == reference_hash(body)


@pytest.mark.parametrize(
    ("body", "canonical"),
    [
        (b"", b""),
        (b"\r\n", b""),
        (b" ", b""),
        (b" \t\r\n\r\n \r\n", b""),
        (b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n"),
        (b"no end", b"no end\r\n"),
        (b"no end \t", b"no end\r\n"),
        (b"\r\n\r\n x", b"\r\n\r\n x\r\n"),
        (b"a\x0b \x0cb\r\n", b"a\x0b \x0cb\r\n"),
    ],
)
def test_relaxed_body_examples(body: bytes, canonical: bytes) -> None:
    """The examples of RFC 6376 3.4.4 and 3.4.5, and the corners, octet by octet."""
    assert hash_of(body, list(range(len(body)))) == hashlib.sha256(canonical).digest()


@pytest.mark.parametrize("start", [b"", b"x"])
def test_endless_white_space_is_held_as_a_number(start: bytes) -> None:
    """A body of megabytes of empty lines takes no memory, and counts as soon as text follows."""
    block = b"\n" + b" \t\r\n\r\n" * 1000 + b"\r"
    body_hash = BodyHash()
    body_hash.update(start + b"\r")
    for _ in range(400):
        body_hash.update(block)
        assert len(body_hash._held) < 10_000
    assert body_hash.digest() == hashlib.sha256(b"x\r\n" if start else b"").digest()
    body_hash.update(b"\nend")
    assert body_hash.digest() == hashlib.sha256(start + b"\r\n" * (400 * 2001 + 1) + b"end\r\n").digest()


def test_many_empty_lines_before_text_are_hashed() -> None:
    """Empty lines that were only counted come back when text follows them."""
    body_hash = BodyHash()
    for _ in range(40):
        body_hash.update(b" \r\n" * 5000)
    body_hash.update(b"x\r\n")
    assert body_hash.digest() == hashlib.sha256(b"\r\n" * 200_000 + b"x\r\n").digest()


NAMES = st.sampled_from([b"From", b"Subject", b"To", b"Received", b"X-Other", b"Date", b"List-Id", b"resent-FROM"])
VALUES = st.lists(
    st.sampled_from([b"a", b"word", b" ", b"\t", b"\r\n ", b" \r\n\t", b":", "ü".encode()]), max_size=8
).map(b"".join)


@settings(max_examples=200, deadline=None)
@given(name=NAMES, gap=st.sampled_from([b"", b" ", b"\t "]), value=VALUES)
def test_canonical_field_agrees_with_dkimpy(name: bytes, gap: bytes, value: bytes) -> None:
    """A field with odd white space and folds has dkimpy's canonical form."""
    ((lower, relaxed),) = Relaxed.canonicalize_headers([(name + gap, value + b"\r\n")])
    ours = canonical_field(name.lower(), name + gap + b":" + value + b"\r\n")
    assert ours == lower + b":" + relaxed


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=st.lists(st.tuples(NAMES, VALUES.map(lambda v: v.rstrip() or b"x")), max_size=12), body=BODIES)
def test_signatures_of_any_message_verify(signer: Signer, fields: list[tuple[bytes, bytes]], body: bytes) -> None:
    """Both signatures of a message with repeated, folded and oddly spaced fields are verified by dkimpy."""
    # What a header cannot have after reception: a fold that leaves a line of white space only.
    fields = [(name, value) for name, value in fields if all(part.strip() for part in value.split(b"\r\n"))]
    raw = [(name.lower(), name + b": " + value + b"\r\n") for name, value in [*fields, (b"From", b"a@example.org")]]
    if body and not body.endswith(b"\r\n"):
        body += b"\r\n"
    signature = sign(signer.ring.keys, raw, hash_of(body, [7, 20]), NOW)
    content = signature + b"".join(octets for _, octets in raw) + b"\r\n" + body
    found = verify(content, signer.records.get)
    assert [(one.selector, one.ok, one.reason) for one in found] == [("r", True, ""), ("e", True, "")]


def test_chosen_fields_and_oversigning(signer: Signer) -> None:
    """Only listed fields are signed, each single one once more than it occurs, From always; Received never."""
    names = signed_names(sign(signer.ring.keys[:1], HEADER, hash_of(BODY), NOW))
    counts = {name: names.count(name) for name in names}
    assert counts == {b"from": 2, b"subject": 2, b"to": 2, b"list-unsubscribe": 1, b"list-unsubscribe-post": 1}
    lonely = signed_names(sign(signer.ring.keys[:1], [], hash_of(b""), NOW))
    assert lonely == [b"from"]


def test_added_field_breaks_the_signature(signer: Signer) -> None:
    """A second From, Subject or To on top, or a changed List-Unsubscribe, is noticed; a new Received is not."""
    content = b"".join(raw for _, raw in HEADER) + b"\r\n" + BODY
    signature = sign(signer.ring.keys, HEADER, hash_of(BODY), NOW)
    assert all(one.ok for one in verify(b"Received: x\r\n" + signature + content, signer.records.get))
    for added in (b"From: evil@example.com\r\n", b"Subject: other\r\n", b"To: you\r\n"):
        assert not any(one.ok for one in verify(added + signature + content, signer.records.get))
    changed = content.replace(b"example.org/u", b"example.org/x")
    assert not any(one.ok for one in verify(signature + changed, signer.records.get))


def test_signature_field_is_well_formed(signer: Signer) -> None:
    """Lines are folded below 79 columns and end in CRLF; i= is not set; d=, s=, t= and c= say what they must."""
    wide = [*HEADER, *[(b"resent-message-id", b"Resent-Message-ID: <%d@example.org>\r\n" % n) for n in range(30)]]
    signature = sign(signer.ring.keys[:1], wide, hash_of(BODY), NOW)
    lines = signature.split(b"\r\n")
    assert lines.pop() == b""
    assert max(map(len, lines)) <= 78
    assert all(line[:1] == b"\t" for line in lines[1:])
    tags = dict(tag.split(b"=", 1) for tag in b"".join(signature.partition(b":")[2].split()).split(b";"))
    assert tags[b"d"] == b"example.org" and tags[b"s"] == b"r" and tags[b"t"] == b"%d" % NOW
    assert tags[b"c"] == b"relaxed/relaxed" and tags[b"a"] == b"rsa-sha256" and tags[b"v"] == b"1"
    assert b"i" not in tags and b"l" not in tags
    assert len(b64decode(tags[b"b"])) == 256
    assert sign((), wide, hash_of(BODY), NOW) == b""


def test_threads_sign_alike(signer: Signer) -> None:
    """Eight threads that sign at once make the same signatures as one does (both algorithms are deterministic)."""
    alone = sign(signer.ring.keys, HEADER, hash_of(BODY), NOW)
    with ThreadPoolExecutor(8) as pool:
        many = list(pool.map(lambda _: sign(signer.ring.keys, HEADER, hash_of(BODY), NOW), range(40)))
    assert set(many) == {alone}


RFC_8463_SIGNATURES = (
    b"DKIM-Signature: v=1; a=ed25519-sha256; c=relaxed/relaxed;\r\n"
    b" d=football.example.com; i=@football.example.com;\r\n"
    b" q=dns/txt; s=brisbane; t=1528637909; h=from : to :\r\n"
    b" subject : date : message-id : from : subject : date;\r\n"
    b" bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;\r\n"
    b" b=/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11Bus\r\n"
    b" Fa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw==\r\n"
)
RFC_8463_FIELDS = [
    (b"from", b"From: Joe SixPack <joe@football.example.com>\r\n"),
    (b"to", b"To: Suzie Q <suzie@shopping.example.net>\r\n"),
    (b"subject", b"Subject: Is dinner ready?\r\n"),
    (b"date", b"Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)\r\n"),
    (b"message-id", b"Message-ID: <20030712040037.46341.5F8J@football.example.com>\r\n"),
]
RFC_8463_BODY = b"Hi.\r\n\r\nWe lost the game.  Are you hungry yet?\r\n\r\nJoe.\r\n"


def test_rfc_8463_vector() -> None:
    """RFC 8463 A.3: the body hash, our canonical form signed with its key, and the verifier agree with the RFC."""
    assert b64encode(hash_of(RFC_8463_BODY)) == b"2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="
    head, _, printed = RFC_8463_SIGNATURES.rpartition(b" b=")
    signed = b"".join(canonical_field(name, raw) for name, raw in RFC_8463_FIELDS)
    signed += canonical_field(b"dkim-signature", head + b" b=")[:-2]
    key = Ed25519PrivateKey.from_private_bytes(b64decode("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="))
    assert key.sign(hashlib.sha256(signed).digest()) == b64decode(b"".join(printed.split()))
    record = b"v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
    content = RFC_8463_SIGNATURES + b"".join(raw for _, raw in RFC_8463_FIELDS) + b"\r\n" + RFC_8463_BODY
    (found,) = verify(content, {"brisbane._domainkey.football.example.com": record}.get)
    assert (found.domain, found.selector, found.ok) == ("football.example.com", "brisbane", True)
