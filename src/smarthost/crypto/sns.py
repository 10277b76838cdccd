"""Checks the signature of an Amazon SNS message against the certificate that it names."""

from base64 import b64decode
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm

LEAST_BITS = 2048


def signature_fault(content: bytes, signature: str, version: str, certificate: bytes, now: float) -> str:
    """Say why a signature is not good, "" when it is: version 1 is RSA with SHA-1, 2 with SHA-256.

    `certificate` is PEM, and has to come from SNS itself by TLS: nothing else vouches for it. `now` is a Unix time.
    """
    algorithm: HashAlgorithm
    if version == "1":
        algorithm = SHA1()
    elif version == "2":
        algorithm = SHA256()
    else:
        return "the version of the signature is not known"
    try:
        found = x509.load_pem_x509_certificate(certificate)
        key = found.public_key()
    except ValueError:
        return "the certificate cannot be read"
    moment = datetime.fromtimestamp(now, UTC)
    if not found.not_valid_before_utc <= moment <= found.not_valid_after_utc:
        return "the certificate is not valid now"
    if not isinstance(key, RSAPublicKey) or key.key_size < LEAST_BITS:
        return "the certificate has no RSA key of 2048 bits or more"
    try:
        key.verify(b64decode(signature, validate=True), content, PKCS1v15(), algorithm)
    except (InvalidSignature, ValueError):
        return "the signature is not good"
    return ""
