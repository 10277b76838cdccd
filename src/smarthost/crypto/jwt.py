"""Signs JSON Web Tokens (RFC 7519, 7523) by which a client proves to a token endpoint who it is."""

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

LEAST_BITS = 2048  # of an RSA key (RFC 7518 3.3, 3.5)


class JwtKeyFault(ValueError):
    """A key or certificate that cannot sign; its text is a sentence's end, without anything of the key."""


class JwtSigner:
    """Signs claims with one RSA key."""

    def __init__(self, key: bytes, certificate: bytes = b"", key_id: str = "") -> None:
        """Read a key in PEM, with its certificate in PEM or its identifier; raises JwtKeyFault.

        With a certificate the signature is PS256 and the header names it by its SHA-256, as Microsoft wants it;
        without, it is RS256 and the header has `kid`, as Google wants it.
        """
        self._key = _load_key(key)
        if certificate:
            self._header = {"alg": "PS256", "typ": "JWT", "x5t#S256": _thumbprint(certificate, self._key)}
            self._padding: padding.AsymmetricPadding = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
        else:
            self._header = {"alg": "RS256", "typ": "JWT"} | ({"kid": key_id} if key_id else {})
            self._padding = padding.PKCS1v15()

    def sign(self, claims: Mapping[str, object]) -> str:
        """Give the claims as a compact JWS (RFC 7515 7.1)."""
        signed = b".".join(_encode(json.dumps(part, separators=(",", ":")).encode()) for part in (self._header, claims))
        return (signed + b"." + _encode(self._key.sign(signed, self._padding, hashes.SHA256()))).decode()


def _encode(octets: bytes) -> bytes:
    return urlsafe_b64encode(octets).rstrip(b"=")


def _load_key(pem: bytes) -> RSAPrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, None)
    except TypeError:
        raise JwtKeyFault("is encrypted; keys with a passphrase are not supported") from None
    except Exception:  # whatever the library says might show what is in the file
        raise JwtKeyFault("is no private key in PEM") from None
    if not isinstance(key, RSAPrivateKey) or key.key_size < LEAST_BITS:
        raise JwtKeyFault(f"is no RSA key of {LEAST_BITS} bits or more")
    return key


def _thumbprint(pem: bytes, key: RSAPrivateKey) -> str:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise JwtKeyFault("goes with a certificate that is none in PEM") from None
    der, spki = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if certificate.public_key().public_bytes(der, spki) != key.public_key().public_bytes(der, spki):
        raise JwtKeyFault("is not the key of the certificate")
    return _encode(certificate.fingerprint(hashes.SHA256())).decode()
