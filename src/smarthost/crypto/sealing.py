"""Sealing: secrets that the relay keeps for others, encrypted at rest under a key of its own."""

import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from smarthost.crypto.private_file import write_private

KEY_OCTETS = 32
_NONCE_OCTETS = 12  # NIST SP 800-38D 8.2.2: random, for at most 2^32 messages under one key
_SUITE = b"\x01"  # AES-256-GCM under a key from HKDF-SHA256


class SealBroken(Exception):
    """What was sealed cannot be opened: another key, another owner, or it was changed. Names no secret."""


class Sealer:
    """Seals octets for one purpose; who opens must name the same owner, so that no secret can be moved to another."""

    def __init__(self, master: bytes, purpose: str) -> None:
        """Derive the purpose's own key (RFC 5869) from a master key of 32 octets."""
        self._key = derive_key(master, purpose)

    def __repr__(self) -> str:
        """Show nothing of the key."""
        return "Sealer()"

    def seal(self, secret: str, owner: str) -> bytes:
        """Encrypt a text, bound to its owner."""
        nonce = secrets.token_bytes(_NONCE_OCTETS)
        return _SUITE + nonce + AESGCM(self._key).encrypt(nonce, secret.encode(), owner.encode())

    def open(self, sealed: bytes, owner: str) -> str:
        """Decrypt what was sealed for an owner; raises SealBroken."""
        nonce, rest = sealed[1 : 1 + _NONCE_OCTETS], sealed[1 + _NONCE_OCTETS :]
        try:
            if sealed[:1] != _SUITE:
                raise SealBroken
            return AESGCM(self._key).decrypt(nonce, rest, owner.encode()).decode()
        except (InvalidTag, ValueError):
            raise SealBroken from None


def derive_key(master: bytes, purpose: str) -> bytes:
    """Give 32 octets for one purpose, from which neither the master key nor another purpose's can be told."""
    return HKDF(SHA256(), KEY_OCTETS, salt=None, info=b"smarthost " + purpose.encode()).derive(master)


def load_master_key(path: Path) -> bytes:
    """Read the relay's own key, made on the first call and readable by its owner alone.

    Raises OSError, and ValueError with a sentence when the file holds no key: a new one would open nothing.
    """
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        return _make_key(path)
    if len(key) != KEY_OCTETS:
        raise ValueError(f"{path} is no key of {KEY_OCTETS} octets: restore it, or remove it to begin anew")
    return key


def _make_key(path: Path) -> bytes:
    key = secrets.token_bytes(KEY_OCTETS)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(path, key)
    return key
