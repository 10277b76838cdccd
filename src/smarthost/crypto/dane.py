"""Checks the certificates of a TLS session against TLSA records (RFC 6698, RFC 7671, RFC 7672)."""

from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256, sha512

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from smarthost.mail.tlsa import Tlsa

DANE_TA, DANE_EE = 2, 3  # the usages that SMTP has, RFC 7672 3.1
_MOST_CERTIFICATES = 10  # of a chain that are looked at
# What reading a stranger's certificate may raise, beside ValueError.
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
# What else is critical restricts a certificate in a way that is not checked here, so it cannot be relied on.
_KNOWN_CRITICAL = frozenset(
    {
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.EXTENDED_KEY_USAGE,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
        ExtensionOID.CERTIFICATE_POLICIES,
    }
)


def check_tlsa(chain: Sequence[bytes], records: Sequence[Tlsa], names: Sequence[str], now: float) -> str:
    """Say why no record vouches for a chain; "" when one does.

    `chain` is what the server showed, DER, its own certificate first; `names` are those that it may have. Usage 3 is
    about the certificate or key alone: neither its names nor its dates count (RFC 7672 3.1.1). For usage 2 a
    certificate of the chain, or in a record, is the anchor to which signatures, dates (`now`, Unix time) and a name
    must lead (RFC 7672 3.1.2, 3.2.2).
    """
    if not chain:
        return "it shows no certificate"
    try:
        leaf = x509.load_der_x509_certificate(chain[0])
    except _UNREADABLE:
        return "its certificate cannot be read"
    # What else the server shows means nothing here, be it what it may.
    if any(record.usage == DANE_EE and _matches(record, leaf) for record in records):
        return ""
    anchors = [record for record in records if record.usage == DANE_TA]
    if not anchors:
        return "its certificate is none of those in the TLSA records"
    try:
        shown = [leaf, *(x509.load_der_x509_certificate(each) for each in chain[1:_MOST_CERTIFICATES])]
        return _check_anchors(shown, anchors, names, datetime.fromtimestamp(now, UTC))
    except _UNREADABLE:
        return "a certificate of its chain cannot be read"


def _matches(record: Tlsa, certificate: x509.Certificate) -> bool:
    """Whether a record is about a certificate (RFC 6698 2.1.2, 2.1.3)."""
    try:
        if record.selector == 0:
            selected = certificate.public_bytes(Encoding.DER)
        else:
            selected = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except _UNREADABLE:
        return False
    match record.matching:
        case 0:
            return record.data == selected
        case 1:
            return record.data == sha256(selected).digest()
        case _:
            return record.data == sha512(selected).digest()


def _check_anchors(
    shown: Sequence[x509.Certificate], records: Sequence[Tlsa], names: Sequence[str], now: datetime
) -> str:
    leaf = shown[0]
    # A server should show its anchor (RFC 7671 5.2.2), but a whole certificate in the record is as good.
    issuers = [*shown[1:], *_certificates_in(records)]
    path = [leaf]
    while len(path) <= _MOST_CERTIFICATES:
        issuer = next((each for each in issuers if each not in path and _issued(each, path[-1], len(path) - 1)), None)
        if issuer is None:
            return "no certificate of its chain is an anchor in the TLSA records"
        path.append(issuer)
        if any(_matches(record, issuer) for record in records):
            break
    for certificate in path:
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            return "its certificate has expired, or is not valid yet"
        if any(each.critical and each.oid not in _KNOWN_CRITICAL for each in certificate.extensions):
            return "its certificate has a critical extension that is not understood"
    if not _is_for_servers(leaf):
        return "its certificate is not for servers"
    if not any(_has_name(leaf, name) for name in names):
        return f"its certificate is not for {names[0]}"
    return ""


def _certificates_in(records: Sequence[Tlsa]) -> list[x509.Certificate]:
    found = []
    for record in records:
        if (record.selector, record.matching) == (0, 0):
            try:
                found.append(x509.load_der_x509_certificate(record.data))
            except _UNREADABLE:
                continue
    return found


def _issued(issuer: x509.Certificate, certificate: x509.Certificate, below: int) -> bool:
    """Whether an authority signed a certificate that has `below` other authorities under it."""
    try:
        certificate.verify_directly_issued_by(issuer)
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (*_UNREADABLE, InvalidSignature, x509.ExtensionNotFound):
        return False
    try:
        may_sign = issuer.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        may_sign = True
    return constraints.ca and may_sign and (constraints.path_length is None or below <= constraints.path_length)


def _is_for_servers(leaf: x509.Certificate) -> bool:
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.SERVER_AUTH in usage or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage


def _has_name(leaf: x509.Certificate, name: str) -> bool:
    """Whether a certificate is for a host: by its DNS names, by its common name only without any (RFC 7672 3.2.3)."""
    try:
        alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        patterns = alternatives.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        patterns = []
    if not patterns:
        patterns = [str(each.value) for each in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    name = name.rstrip(".").lower()
    for pattern in map(str.lower, patterns):
        if pattern == name or (pattern.startswith("*.") and pattern[2:] == name.partition(".")[2]):
            return True
    return False
