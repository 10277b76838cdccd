"""Certificates for peers, and the TLSA records that belong to them."""

import ssl
import tempfile
from hashlib import sha256, sha512
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

OFFERED = """
<- 220 peer ESMTP
-> EHLO relay.example
<- 250-peer
<- 250 STARTTLS
-> STARTTLS
"""
SECURED = OFFERED + "<- 220 go\n== tls\n-> EHLO relay.example\n<- 250 peer\n"
BROKEN = OFFERED + "<- 220 go\n== stall 30\n<- no TLS here\n== stall 30\n"
PLAIN = "<- 220 peer\n-> EHLO relay.example\n<- 250 peer\n"
END = "-> QUIT\n== end\n"


def server_side(authority: trustme.CA, *names: str, whole: bool = False) -> tuple[ssl.SSLContext, list[bytes]]:
    """Give what a peer shows, and its chain in DER: with `whole` the authority's own certificate, too."""
    made = authority.issue_cert(*names)
    pems = [pem.bytes() for pem in made.cert_chain_pems]
    if whole:
        pems.append(authority.cert_pem.bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "chain.pem"
        file.write_bytes(made.private_key_pem.bytes() + b"".join(pems))
        context.load_cert_chain(file)
    return context, [x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER) for pem in pems]


def selected(certificate: bytes, selector: int) -> bytes:
    """Give what a selector stands for (RFC 6698 2.1.2): the certificate, or its key."""
    if selector == 0:
        return certificate
    key = x509.load_der_x509_certificate(certificate).public_key()
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def tlsa_data(certificate: bytes, selector: int, matching: int) -> bytes:
    """Give the association data of a record about a certificate (RFC 6698 2.1.3)."""
    octets = selected(certificate, selector)
    return (octets, sha256(octets).digest(), sha512(octets).digest())[matching]


def tlsa_text(certificate: bytes, usage: int, selector: int = 1, matching: int = 1) -> str:
    """Write a record as in a zone."""
    return f"{usage} {selector} {matching} {tlsa_data(certificate, selector, matching).hex()}"
