"""Signatures of Amazon SNS: both versions, and everything that makes one not good."""

from base64 import b64encode
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.x509.oid import NameOID

from smarthost.crypto.sns import signature_fault

NOW = datetime(2027, 1, 15, tzinfo=UTC)


def certificate(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    """Make a certificate for some days around now."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
    made = x509.CertificateBuilder(name, name, key.public_key(), 7, NOW - timedelta(2), NOW + timedelta(2))
    return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    """Give a key."""
    return rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize(("version", "algorithm"), [("1", hashes.SHA1()), ("2", hashes.SHA256())])
def test_signatures_of_both_versions(key: rsa.RSAPrivateKey, version: str, algorithm: hashes.HashAlgorithm) -> None:
    """A signature is good for its content, version, key and time alone."""
    shown = certificate(key)
    signature = b64encode(key.sign(b"content", PKCS1v15(), algorithm)).decode()
    assert signature_fault(b"content", signature, version, shown, NOW.timestamp()) == ""
    assert "not good" in signature_fault(b"contents", signature, version, shown, NOW.timestamp())
    assert "not good" in signature_fault(b"content", "!", version, shown, NOW.timestamp())
    assert "not good" in signature_fault(b"content", signature, "12"[version == "1"], shown, NOW.timestamp())
    assert "version" in signature_fault(b"content", signature, "3", shown, NOW.timestamp())
    assert "not valid" in signature_fault(b"content", signature, version, shown, NOW.timestamp() + 3 * 86400)
    assert "cannot be read" in signature_fault(b"content", signature, version, b"nonsense", NOW.timestamp())


def test_other_keys_are_not_taken() -> None:
    """Neither a short RSA key nor one of another kind vouches for anything."""
    for weak in (rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP256R1())):
        assert "2048" in signature_fault(b"", "", "2", certificate(weak), NOW.timestamp())
