"""Signatures of webhooks, against the specification's own vector and a verifier written apart."""

import hmac
from base64 import b64decode, b64encode
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from smarthost.crypto.webhook import new_secret, public_key, secret_fault, sign


def test_the_known_vector() -> None:
    """The vector that the reference libraries test with gives the same signature."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    found = sign((secret,), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_two_secrets_give_two_signatures() -> None:
    """While a secret takes another's place, the body is signed by both, and each is right."""
    keys = (new_secret(), new_secret())
    assert keys[0] != keys[1]
    for key, signature in zip(keys, sign(keys, "evt_1", 7, b"{}").split(" "), strict=True):
        expected = hmac.new(b64decode(key.removeprefix("whsec_")), b"evt_1.7.{}", sha256).digest()
        assert signature == "v1," + b64encode(expected).decode()


def test_ed25519_signatures_verify() -> None:
    """An Ed25519 key signs as v1a, and the public key that is shown verifies it."""
    private = "whsk_" + b64encode(Ed25519PrivateKey.generate().private_bytes_raw()).decode()
    version, _, signature = sign((private,), "evt_2", 8, b"[]").partition(",")
    assert version == "v1a"
    public = Ed25519PublicKey.from_public_bytes(b64decode(public_key(private).removeprefix("whpk_")))
    public.verify(b64decode(signature), b"evt_2.8.[]")
    assert public_key(new_secret()) == ""


@pytest.mark.parametrize(
    "secret",
    ["", "secret", "whsec_", "whsec_short", "whsec_!!!!", "whsec_" + "QUFB" * 30, "whsk_QUFB", "whpk_" + "QUFB" * 11],
)
def test_bad_secrets_are_refused(secret: str) -> None:
    """A secret of another form, too short or too long is refused by a sentence without anything of it."""
    wrong = secret_fault(secret)
    assert wrong and (len(secret) < 12 or secret[7:] not in wrong)


def test_new_secrets_are_good() -> None:
    """What is made here is accepted here."""
    assert secret_fault(new_secret()) == ""
