import pytest
from argon2 import PasswordHasher

from smarthost.crypto.password import MEMORY, hash_password, is_hash, needs_rehash, verify_password


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


def test_only_argon2id_counts_as_a_hash():
    """The configuration can be checked before anyone logs in."""
    assert is_hash(hash_password("x"))
    assert not is_hash("secret")
    assert not is_hash("$argon2i$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$RdescudvJCsgt3ub+b9dWRWJTmaaJObG")


def test_a_hash_with_other_parameters_is_to_be_made_again():
    """Hashes from elsewhere verify, and are known to be of another kind."""
    other = PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash("x")
    assert verify_password(other, "x")
    assert needs_rehash(other)
    assert not needs_rehash(hash_password("x"))
    with pytest.raises(ValueError, match="Argon2"):
        needs_rehash("nothing")
