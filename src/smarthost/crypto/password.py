"""Passwords of our users: hashed with Argon2id (RFC 9106), checked against such a hash."""

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

# OWASP's smallest Argon2id setting: 19 MiB, two passes, one lane. RFC 9106's 64 MiB would let two logins at once take
# 128 MiB, which is more than the whole relay otherwise needs.
MEMORY = 19 * 1024  # KiB
PASSES = 2
LANES = 1

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
    """Say whether a text is an Argon2id hash that `verify_password` can check."""
    if not text.startswith("$argon2id$"):
        return False
    try:
        _HASHER.check_needs_rehash(text)
    except InvalidHashError:
        return False
    return True


def needs_rehash(hashed: str) -> bool:
    """Say whether a hash was made with other parameters than ours; raises ValueError when it is no Argon2 hash."""
    try:
        return _HASHER.check_needs_rehash(hashed)
    except InvalidHashError as error:
        raise ValueError("not an Argon2 hash") from error
