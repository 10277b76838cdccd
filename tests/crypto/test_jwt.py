"""Keys that sign assertions: what cannot sign is told, and nothing of a key with it."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from token_server import client_certificate, take_apart

from smarthost.crypto.jwt import JwtKeyFault, JwtSigner


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, password: bytes = b"") -> bytes:
    """Write a key."""
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def test_compact_form(tmp_path: Path) -> None:
    """A token has header and claims as they were given; its signature is verified by the peers of other tests."""
    _, key, _ = client_certificate(tmp_path)
    header, claims, _, signature = take_apart(JwtSigner(key.read_bytes(), key_id="k").sign({"iss": "ä", "exp": 5}))
    assert header == {"alg": "RS256", "typ": "JWT", "kid": "k"}
    assert claims == {"iss": "ä", "exp": 5}
    assert len(signature) == 256


def test_what_cannot_sign(tmp_path: Path) -> None:
    """Other algorithms, short, encrypted and foreign keys, and what is no key, are refused."""
    certificate, key, _ = client_certificate(tmp_path)
    long_key = rsa.generate_private_key(65537, 2048)
    wrong = [
        (b"secret text", b"", "is no private key in PEM"),
        (pem(long_key)[:-60], b"", "is no private key in PEM"),
        (pem(long_key, b"word"), b"", "is encrypted"),
        (pem(ec.generate_private_key(ec.SECP256R1())), b"", "is no RSA key"),
        (pem(rsa.generate_private_key(65537, 1024)), b"", "is no RSA key of 2048 bits"),
        (pem(long_key), certificate.read_bytes(), "is not the key of the certificate"),
        (key.read_bytes(), b"no certificate", "goes with a certificate that is none"),
    ]
    for octets, shown, sentence in wrong:
        with pytest.raises(JwtKeyFault, match=sentence) as caught:
            JwtSigner(octets, shown)
        assert "secret" not in str(caught.value)
