"""Passwords: hashed with Argon2id, verified, and told from what is no hash."""

import pytest
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from smarthost.crypto.password import MEMORY, hash_password, is_hash, verify_password

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1, salt_len=8, hash_len=4).hash("x")
SALT, HASHED = CHEAP.split("$")[-2:]


def test_a_password_fits_its_own_hash_only():
    """The right password verifies, another does not, and two hashes of one password differ."""
    hashed = hash_password("pässword")
    assert hashed.startswith(f"$argon2id$v=19$m={MEMORY},t=2,p=1$")
    assert verify_password(hashed, "pässword")
    assert not verify_password(hashed, "password")
    assert hash_password("pässword") != hashed


@pytest.mark.parametrize("broken", ["", "plain text", "$argon2id$", "$argon2id$v=19$m=1,t=1,p=1$x$y", "$2b$12$abc"])
def test_what_is_no_hash_verifies_nothing(broken):
    """An unreadable hash is a wrong password, never an exception."""
    assert not verify_password(broken, "x")


def test_a_hash_from_elsewhere_verifies():
    """The hash's own parameters are used, whatever ours are."""
    assert verify_password(PasswordHasher(time_cost=1, memory_cost=1024, parallelism=2).hash("x"), "x")


@pytest.mark.parametrize(
    "text",
    [
        CHEAP,
        hash_password("x"),
        "secret",
        f"$argon2i$v=19$m=8,t=1,p=1${SALT}${HASHED}",
        f"$argon2id$v=19$m=8,t=1${SALT}${HASHED}",
        f"$argon2id$v=19$m=,t=1,p=1${SALT}${HASHED}",
        f"$argon2id$v=19$m=8,t=1,p=1${SALT[:-1]}${HASHED}",
        f"$argon2id$v=19$m=8,t=1,p=1${SALT}${HASHED[:-2]}",
        f"$argon2id$v=19$m=8,t=1,p=1${SALT}$",
        f"$argon2id$v=19$m=8,t=1,p=1${SALT}",
        f"$argon2id$v=19$m=8,t=1,p=1${SALT}${HASHED}=",
        f"$argon2id$v=19$m=8,t=1,p=1${SALT}${HASHED[:-1]}.",
        f"$argon2id$v=19$m=8,t=1,p=1${SALT}${HASHED}\n",
    ],
    ids=range(13),
)
def test_a_hash_is_what_can_be_verified(text):
    """The configuration can be checked before anyone logs in: only what the library can decode counts as a hash."""
    assert is_hash(text) == (text.startswith("$argon2id$") and can_decode(text))


def can_decode(text):
    """Whether the library reads a hash: a wrong password is then a mismatch."""
    try:
        return PasswordHasher().verify(text, "another password")
    except VerifyMismatchError:
        return True
    except (VerificationError, InvalidHashError):
        return False
