"""TLSA records against chains: each usage, selector and matching type, and what makes a chain unfit for usage 2."""

import datetime
import time

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID
from tls_names import server_side, tlsa_data

from smarthost.crypto.dane import check_tlsa
from smarthost.mail.tlsa import Tlsa

NAME = "mx.example"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Give an authority with one below it."""
    return trustme.CA()


def record(certificate: bytes, usage: int, selector: int = 1, matching: int = 1) -> Tlsa:
    """Make the record that fits a certificate."""
    return Tlsa(usage, selector, matching, tlsa_data(certificate, selector, matching))


@pytest.mark.parametrize("usage", [2, 3])
@pytest.mark.parametrize("selector", [0, 1])
@pytest.mark.parametrize("matching", [0, 1, 2])
def test_records_that_match(authority: trustme.CA, usage: int, selector: int, matching: int) -> None:
    """Every form of a record vouches for its certificate, and not for that of another server."""
    _, chain = server_side(authority, NAME, whole=True)
    _, other = server_side(trustme.CA(), NAME, whole=True)
    found = record(chain[-1] if usage == 2 else chain[0], usage, selector, matching)
    assert check_tlsa(chain, [found], [NAME], time.time()) == ""
    assert check_tlsa(other, [found], [NAME], time.time())
    rollover = record(other[-1] if usage == 2 else other[0], usage, selector, matching)
    assert check_tlsa(chain, [rollover, found], [NAME], time.time()) == ""


def test_the_anchor_may_be_in_the_record(authority: trustme.CA) -> None:
    """A whole certificate in a record of usage 2 is an anchor, though the server does not show it."""
    _, whole = server_side(authority, NAME, whole=True)
    assert check_tlsa(whole[:-1], [record(whole[-1], 2, 0, 0)], [NAME], time.time()) == ""
    assert "anchor" in check_tlsa(whole[:-1], [record(whole[-1], 2, 0, 1)], [NAME], time.time())


def test_an_intermediate_may_be_the_anchor() -> None:
    """What is above the anchor need not be there, and each step below it must be signed."""
    root = trustme.CA()
    middle = root.create_child_ca()
    _, chain = server_side(middle, NAME, whole=True)
    found = record(chain[1], 2)
    assert check_tlsa(chain[:2], [found], [NAME], time.time()) == ""
    assert "anchor" in check_tlsa(chain[:1], [found], [NAME], time.time())
    # A leaf of another authority, shown together with the anchor that is expected.
    _, stranger = server_side(trustme.CA(), NAME)
    assert "anchor" in check_tlsa([stranger[0], chain[1]], [found], [NAME], time.time())


@pytest.mark.parametrize(
    ("shown", "wanted", "is_good"),
    [
        ("mx.example", "mx.example", True),
        ("MX.Example", "mx.example.", True),
        ("other.example", "mx.example", False),
        ("*.example", "mx.example", True),
        ("*.example", "deep.mx.example", False),
        ("*.example", "example", False),
    ],
)
def test_names_count_for_usage_2_only(authority: trustme.CA, shown: str, wanted: str, is_good: bool) -> None:
    """An anchor vouches for many hosts, so the name is looked at; a record of usage 3 is about one certificate."""
    _, chain = server_side(authority, shown, whole=True)
    assert (check_tlsa(chain, [record(chain[-1], 2)], [wanted], time.time()) == "") is is_good
    assert check_tlsa(chain, [record(chain[0], 3)], [wanted], time.time()) == ""


def test_dates_count_for_usage_2_only() -> None:
    """An expired certificate is refused below an anchor, and taken where the record names it (RFC 7672 3.1.1)."""
    authority = trustme.CA()
    made = authority.issue_cert(NAME, not_after=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
    pems = [made.cert_chain_pems[0].bytes(), authority.cert_pem.bytes()]
    chain = [der(pem) for pem in pems]
    assert "expired" in check_tlsa(chain, [record(chain[1], 2)], [NAME], time.time())
    assert check_tlsa(chain, [record(chain[0], 3)], [NAME], time.time()) == ""


def der(pem: bytes) -> bytes:
    """Turn PEM into DER."""
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def test_a_leaf_signs_nothing(authority: trustme.CA) -> None:
    """A record about a server's own certificate is no anchor for others that its key signed."""
    _, chain = server_side(authority, NAME, whole=True)
    assert "anchor" in check_tlsa(chain[:1], [record(chain[0], 2)], [NAME], time.time())


def test_what_cannot_be_read() -> None:
    """Nothing shown, and octets that are no certificate, are refused with a sentence."""
    assert "no certificate" in check_tlsa([], [Tlsa(3, 1, 1, b"x" * 32)], [NAME], time.time())
    assert "cannot be read" in check_tlsa([b"nonsense"], [Tlsa(3, 1, 1, b"x" * 32)], [NAME], time.time())


def test_a_certificate_that_is_read_in_part_only() -> None:
    """A name of a kind that cannot be read is a refusal with a sentence, as any other certificate that will not do."""
    now = datetime.datetime.now(datetime.UTC)
    key = ec.generate_private_key(ec.SECP256R1())

    def made(subject: str, extension: x509.ExtensionType) -> bytes:
        name, issuer = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, each)]) for each in (subject, "CA"))
        builder = x509.CertificateBuilder(issuer, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
        return builder.add_extension(extension, critical=False).sign(key, hashes.SHA256()).public_bytes(Encoding.DER)

    x400 = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, b"\x30\x02\xa3\x00")
    chain = [made(NAME, x400), made("CA", x509.BasicConstraints(ca=True, path_length=None))]
    assert "cannot be read" in check_tlsa(chain, [record(chain[1], 2)], [NAME], time.time())
    assert check_tlsa(chain, [record(chain[0], 3)], [NAME], time.time()) == ""


def test_usage_3_does_not_mind_the_rest_of_the_chain(authority: trustme.CA) -> None:
    """What a server shows behind its own certificate cannot spoil a record of that; usage 2 needs to read it."""
    _, chain = server_side(authority, NAME, whole=True)
    spoilt = [chain[0], b"no certificate", chain[-1]]
    assert check_tlsa(spoilt, [record(chain[0], 3)], ["other.example"], time.time()) == ""
    assert "cannot be read" in check_tlsa(spoilt, [record(chain[-1], 2)], [NAME], time.time())
