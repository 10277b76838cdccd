"""Passwords of our users: hashed with Argon2id (RFC 9106), checked against such a hash."""

import re

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

# OWASP's smallest Argon2id setting: 19 MiB, two passes, one lane. RFC 9106's 64 MiB would let two logins at once take
# 128 MiB, which is more than the whole relay otherwise needs.
MEMORY = 19 * 1024  # KiB
PASSES = 2
LANES = 1

# What the library can decode: salts from 8 octets on, hashes from 4 on (RFC 9106 3.1), without padding.
_ENCODED = re.compile(r"\$argon2id\$v=\d+\$m=\d+,t=\d+,p=\d+\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{6,}", re.ASCII)

_HASHER = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY, parallelism=LANES, type=Type.ID)


def hash_password(password: str) -> str:
    """Hash a password with a fresh salt; the answer is the "$argon2id$..." text that the configuration holds.

    Takes some 20 ms of one core and 19 MiB meanwhile.
    """
    return _HASHER.hash(password)


def verify_password(hashed: str, password: str) -> bool:
    """Say whether a password fits a hash; False too where the hash cannot be read.

    The hash's own parameters are used. It takes some 20 ms and releases the interpreter lock: call it in a thread.
    """
    try:
        return _HASHER.verify(hashed, password)
    except (VerificationError, InvalidHashError):
        return False


def is_hash(text: str) -> bool:
    """Say whether a text is an Argon2id hash that `verify_password` can check; costs nothing."""
    return _ENCODED.fullmatch(text) is not None
