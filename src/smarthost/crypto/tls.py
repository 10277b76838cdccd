"""TLS contexts: what our listeners show, made by us or re-read when its files change, and what deliveries demand."""

import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from smarthost.crypto.dane import check_tlsa
from smarthost.crypto.private_file import write_private
from smarthost.mail.route import TlsLevel
from smarthost.mail.tlsa import Tlsa

SELF_SIGNED_DAYS = 3650
_UNAUTHENTICATED = frozenset({TlsLevel.MAY, TlsLevel.ENCRYPT, TlsLevel.DANE})

# What of a file tells that it is another one: inode, size, time of change in nanoseconds.
_Stamp = tuple[int, int, int]
# Whether a context verifies, and its files: trust anchors, certificate and key, each "" for none.
_Wanted = tuple[bool, str, str, str]


class TlsFault(ValueError):
    """A certificate or key that cannot be used; its text is a sentence for people, with the file's name."""


class ServerTls:
    """What our listeners show. `context` is one object for life; the certificate behind it changes.

    Sessions that are open keep the certificate they began with; handshakes that start after a reload show the new one.
    """

    def __init__(self, certificate: Path, key: Path) -> None:
        """Read a PEM chain and its private key; raises TlsFault when they cannot be used."""
        self._certificate = certificate
        self._key = key
        self._stamps = self._read_stamps()
        self._current = _load_server_context(certificate, key)
        # OpenSSL picks a context before it sees the client's name; this one only hands on to the current one, so that
        # loading a new pair never changes a context that a handshake is using.
        self.context = _load_server_context(certificate, key)
        self.context.sni_callback = self._show_current

    def _show_current(
        self, handshake: ssl.SSLObject | ssl.SSLSocket, _name: str | None, _first: ssl.SSLContext
    ) -> None:
        handshake.context = self._current

    def reload_if_changed(self) -> bool | str:
        """Take up files that changed: True when new ones are in use, False when nothing changed.

        A pair that cannot be used (half written, key of another certificate) gives a sentence; the old pair stays, and
        the next call tries again.
        """
        stamps = self._read_stamps()
        if stamps == self._stamps:
            return False
        try:
            fresh = _load_server_context(self._certificate, self._key)
        except TlsFault as fault:
            return str(fault)
        self._current = fresh
        self._stamps = stamps
        return True

    def _read_stamps(self) -> tuple[_Stamp | None, ...]:
        return tuple(_stamp(path) for path in (self._certificate, self._key))


def _stamp(path: Path) -> _Stamp | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns


def _load_server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    _load_pair(context, certificate, key)
    return context


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        context.load_cert_chain(certificate, key, password=_refuse_passphrase)
    except ssl.SSLError as error:
        reason = error.reason or "not readable as PEM"
        raise TlsFault(f"{certificate} and {key}: {reason.replace('_', ' ').lower()}") from error
    except OSError as error:
        raise TlsFault(f"{certificate} or {key}: {error.strerror or error}") from error


def _refuse_passphrase() -> str:
    # Without this OpenSSL would ask on the terminal for an encrypted key's passphrase, and a service would hang.
    raise OSError("the key is encrypted; keys with a passphrase are not supported")


def ensure_self_signed(folder: Path, hostname: str, now: float) -> tuple[Path, Path]:
    """Give the certificate and key of our own in a folder, made on the first call (ECDSA P-256, ten years).

    `now` is a Unix time in seconds. The key is readable by its owner alone. Raises OSError when the folder cannot be
    written.
    """
    certificate_path, key_path = folder / "self-signed.pem", folder / "self-signed.key"
    if certificate_path.exists() and key_path.exists():
        return certificate_path, key_path
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _sign_own(key, hostname, datetime.fromtimestamp(now, UTC))
    key_text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    # The certificate comes last: only both together count as made.
    certificate_path.unlink(missing_ok=True)
    write_private(key_path, key_text)
    write_private(certificate_path, certificate.public_bytes(serialization.Encoding.PEM))
    return certificate_path, key_path


def _sign_own(key: ec.EllipticCurvePrivateKey, hostname: str, start: datetime) -> x509.Certificate:
    # A common name holds 64 characters at most (RFC 5280 A.1); the alternative name is what counts.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hostname[:64] or "smarthost")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - timedelta(days=1))
        .not_valid_after(start + timedelta(days=SELF_SIGNED_DAYS))
        .add_extension(x509.SubjectAlternativeName([_alternative_name(hostname)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )


def _alternative_name(hostname: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(hostname.strip("[]").removeprefix("IPv6:")))
    except ValueError:
        return x509.DNSName(hostname or "localhost")


class TlsContexts:
    """Client contexts for deliveries, each made once: reading the system's authorities takes some 55 ms."""

    def __init__(self) -> None:
        """Start with none made."""
        self._made: dict[_Wanted, tuple[ssl.SSLContext, tuple[_Stamp | None, ...]]] = {}

    def for_level(self, level: TlsLevel, ca_file: str = "", client: tuple[str, str] = ("", "")) -> ssl.SSLContext:
        """Give the context that demands what a level demands of the peer.

        `verify` demands a certificate for the host's name by the system's authorities or one in `ca_file`; `may` and
        `encrypt` take any certificate (RFC 7435), and so does `dane`, whose proof is not the context's. `client` are
        the files of a certificate and its key that we show when asked. Raises ValueError for `none`, which wants no
        TLS, and TlsFault when a file cannot be used.
        """
        if level is TlsLevel.NONE:
            raise ValueError("TLS level none has no context")
        verifies = level not in _UNAUTHENTICATED
        place = (verifies, ca_file if verifies else "", *client)
        made = self._made.get(place)
        if made is None:
            made = self._made[place] = _make_client_context(*place), _stamps_of(place)
        return made[0]

    def forget_changed(self) -> None:
        """Let contexts whose files have changed be made anew when they are wanted, as after a reload."""
        self._made = {place: made for place, made in self._made.items() if made[1] == _stamps_of(place)}

    def check_tlsa(self, chain: Sequence[bytes], records: Sequence[Tlsa], names: Sequence[str], now: float) -> str:
        """Say why no TLSA record vouches for a chain of certificates; "" when one does (see `crypto.dane`)."""
        return check_tlsa(chain, records, names, now)


def certificate_expiry(certificate: bytes) -> float | None:
    """Give the Unix time at which a certificate (DER) expires; None when it cannot be read."""
    try:
        return x509.load_der_x509_certificate(certificate).not_valid_after_utc.timestamp()
    except (ValueError, x509.InvalidVersion):
        return None


def _stamps_of(place: _Wanted) -> tuple[_Stamp | None, ...]:
    return tuple(_stamp(Path(file)) if file else None for file in place[1:])


def _make_client_context(verifies: bool, ca_file: str, certificate: str, key: str) -> ssl.SSLContext:
    if verifies:
        context = ssl.create_default_context()
        context.hostname_checks_common_name = False  # RFC 9525 2: names are in subjectAltName
    else:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # some distributions' Python leaves it to a file of OpenSSL's
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError) as error:
            raise TlsFault(f"{ca_file}: {error.strerror or error}") from error
    if certificate:
        _load_pair(context, Path(certificate), Path(key))
    return context
