"""DKIM private keys: read and watch their files, choose those of a domain, make new ones (RFC 6376 3.3, RFC 8463)."""

import os
import stat
from base64 import b64encode
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from smarthost.mail.address import to_a_label

SHORTEST_RSA = 1024  # bits; verifiers refuse less, RFC 8301 3.2
ADVISED_RSA = 2048  # bits, RFC 8301 3.2
_LARGEST_FILE = 64 * 1024  # octets; an RSA-4096 key takes 3.3 KB
_REMEMBERED_DOMAINS = 10_000
_TXT_STRING = 255  # octets of one character-string, RFC 1035 3.3


class KeyUnreadable(ValueError):
    """A key file cannot be used; the text is one sentence that begins with the file's name."""


class KeyUnwritable(ValueError):
    """A new key could not be put into its file; the text is one sentence that begins with the file's name."""


class Algorithm(StrEnum):
    """What `a=` says (RFC 6376 3.3, RFC 8463 3)."""

    RSA_SHA256 = "rsa-sha256"
    ED25519_SHA256 = "ed25519-sha256"


class SigningKey(msgspec.Struct, frozen=True, eq=False):
    """One private key with the domain and selector that it signs for. Its repr never shows the key.

    `domain` and `selector` are lower-case A-labels; `warnings` are sentences about a key that works but should be
    better (too few bits, a file that others may read).
    """

    domain: str
    selector: str
    algorithm: Algorithm
    path: Path
    private: RSAPrivateKey | Ed25519PrivateKey
    warnings: tuple[str, ...] = ()

    @property
    def record_name(self) -> str:
        """The name in DNS where the public key is looked up, without a final dot (RFC 6376 3.6.2.1)."""
        return f"{self.selector}._domainkey.{self.domain}"

    def __repr__(self) -> str:
        """Name the key without showing it."""
        return f"SigningKey({self.record_name}, {self.algorithm}, {str(self.path)!r})"


def load_key(domain: str, selector: str, path: Path) -> SigningKey:
    """Read a PEM file with an RSA (PKCS#1 or PKCS#8) or Ed25519 private key.

    Raises KeyUnreadable when the file is missing, forbidden, not a private key, encrypted, of another kind, or too
    short, and when the domain or selector is not a domain name.
    """
    labels = to_a_label(domain), to_a_label(selector)
    if labels[0] is None or labels[1] is None or "[" in domain + selector:
        raise KeyUnreadable(f"{path}: {domain!r} with selector {selector!r} cannot be written in DNS.")
    octets, mode = _read(path)
    private = _parse(octets, path)
    warnings = []
    if isinstance(private, RSAPrivateKey) and private.key_size < ADVISED_RSA:
        warnings.append(f"{path}: this RSA key has {private.key_size} bits; {ADVISED_RSA} are advised.")
    if mode & stat.S_IROTH:
        warnings.append(f"{path}: every user of this machine may read this private key.")
    algorithm = Algorithm.RSA_SHA256 if isinstance(private, RSAPrivateKey) else Algorithm.ED25519_SHA256
    return SigningKey(labels[0], labels[1], algorithm, path, private, tuple(warnings))


def private_octets(key: SigningKey) -> bytes:
    """Give a private key as PKCS#8 in DER, unencrypted: for the signer's pipe, and never for a file or a log."""
    return key.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def _read(path: Path) -> tuple[bytes, int]:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_FILE), os.fstat(file.fileno()).st_mode
    except FileNotFoundError:
        raise KeyUnreadable(f"{path}: there is no such file.") from None
    except PermissionError:
        raise KeyUnreadable(f"{path}: this process has no permission to read it.") from None
    except OSError as fault:
        raise KeyUnreadable(f"{path}: cannot be read: {fault.strerror or fault}.") from None


def _parse(octets: bytes, path: Path) -> RSAPrivateKey | Ed25519PrivateKey:
    try:
        private = load_pem_private_key(octets, password=None)
    except TypeError:
        raise KeyUnreadable(f"{path}: the key is encrypted; a relay needs it without a passphrase.") from None
    except (ValueError, UnsupportedAlgorithm) as fault:
        if b"PRIVATE KEY-----" not in octets:
            raise KeyUnreadable(f"{path}: holds no private key in PEM form.") from None
        raise KeyUnreadable(f"{path}: the private key cannot be read: {fault}.") from None
    if isinstance(private, Ed25519PrivateKey):
        return private
    if not isinstance(private, RSAPrivateKey):
        kind = type(private).__name__.strip("_").removesuffix("PrivateKey")
        raise KeyUnreadable(f"{path}: holds a key of the kind {kind}; DKIM knows RSA and Ed25519 only.")
    if private.key_size < SHORTEST_RSA:
        raise KeyUnreadable(f"{path}: this RSA key has {private.key_size} bits; fewer than {SHORTEST_RSA} are refused.")
    return private


class Keyring:
    """All configured keys; chooses those that sign for a From domain, and follows their files.

    `for_domain` may be called from any thread while `reload_if_changed` runs in another: a change replaces the whole
    tables, never parts of them.
    """

    def __init__(self, settings: Iterable[tuple[str, str, Path]] = ()) -> None:
        """Read every (domain, selector, path); raises KeyUnreadable for the first that cannot be read."""
        self._stamps: dict[Path, tuple[int, ...]] = {}
        keys = []
        for domain, selector, path in settings:
            self._stamps.setdefault(path, _stamp(path))
            keys.append(load_key(domain, selector, path))
        self._install(tuple(keys))

    @property
    def keys(self) -> tuple[SigningKey, ...]:
        """Every key, in the order of the settings."""
        return self._keys

    def for_domain(self, from_domain: str) -> tuple[SigningKey, ...]:
        """Give all keys of the most specific configured domain that is the From domain or above it; () if none."""
        chosen = self._chosen
        keys = chosen.get(from_domain)
        if keys is None:
            keys = self._find(from_domain)
            if len(chosen) >= _REMEMBERED_DOMAINS:
                chosen.clear()
            chosen[from_domain] = keys
        return keys

    def reload_if_changed(self) -> list[str]:
        """Read again the files that changed since the last look; give a sentence for each that cannot be read.

        Such a key goes on signing as it was, and is told of once until its file changes again.
        """
        changed = {path: stamp for path in self._stamps if (stamp := _stamp(path)) != self._stamps[path]}
        if not changed:
            return []
        self._stamps.update(changed)
        keys: list[SigningKey] = []
        problems: list[str] = []
        for key in self._keys:
            if key.path in changed:
                try:
                    key = load_key(key.domain, key.selector, key.path)
                except KeyUnreadable as fault:
                    problems.append(f"{fault} The key that was read before goes on signing for {key.domain}.")
            keys.append(key)
        self._install(tuple(keys))
        return problems

    def _install(self, keys: tuple[SigningKey, ...]) -> None:
        self._keys = keys
        domains = dict.fromkeys(key.domain for key in keys)
        self._by_domain = {domain: tuple(key for key in keys if key.domain == domain) for domain in domains}
        self._chosen: dict[str, tuple[SigningKey, ...]] = {}

    def _find(self, from_domain: str) -> tuple[SigningKey, ...]:
        domain = to_a_label(from_domain) or ""
        while domain:
            if domain in self._by_domain:
                return self._by_domain[domain]
            domain = domain.partition(".")[2]
        return ()


def _stamp(path: Path) -> tuple[int, ...]:
    """What changes when a file is edited or replaced; () while it cannot be looked at."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev, found.st_size


def public_record(key: SigningKey) -> str:
    """Write the key record that belongs into DNS at `record_name` (RFC 6376 3.6.1, RFC 8463 4)."""
    public = key.private.public_key()
    if key.algorithm is Algorithm.RSA_SHA256:
        octets, kind = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo), "rsa"
    else:
        octets, kind = public.public_bytes(Encoding.Raw, PublicFormat.Raw), "ed25519"
    return f"v=DKIM1; k={kind}; p={b64encode(octets).decode('ascii')}"


def zone_record(key: SigningKey) -> str:
    """Write the key record as a line of a zone file, cut into strings of at most 255 octets (RFC 1035 3.3.14)."""
    text = public_record(key)
    strings = " ".join(f'"{text[start : start + _TXT_STRING]}"' for start in range(0, len(text), _TXT_STRING))
    return f"{key.record_name}. IN TXT ({strings})"


def generate_key(algorithm: str, path: Path, bits: int = ADVISED_RSA) -> None:
    """Make a private key and write it as PKCS#8 PEM, readable by its owner only; `bits` counts for RSA.

    The file appears whole and synced or not at all. Raises KeyUnwritable when the file exists already (it is left as
    it is), the folder cannot be written, or the algorithm is not one of `Algorithm`.
    """
    if algorithm == Algorithm.ED25519_SHA256:
        private: RSAPrivateKey | Ed25519PrivateKey = Ed25519PrivateKey.generate()
    elif algorithm == Algorithm.RSA_SHA256 and bits >= SHORTEST_RSA:
        private = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    else:
        raise KeyUnwritable(f"{path}: {algorithm} with {bits} bits is not known; rsa-sha256 and ed25519-sha256 are.")
    octets = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        _write_new(path, octets)
    except FileExistsError:
        raise KeyUnwritable(f"{path}: exists already and is not overwritten.") from None
    except OSError as fault:
        raise KeyUnwritable(f"{path}: cannot be written: {fault.strerror or fault}.") from None


def _write_new(path: Path, octets: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(file, octets)
            os.fsync(file)
        finally:
            os.close(file)
        # A link, unlike a rename, fails when the name is taken: no other key is ever replaced.
        os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
