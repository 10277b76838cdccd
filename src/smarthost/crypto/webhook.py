"""Signs webhooks after the Standard Webhooks specification, by a shared secret (v1) or an Ed25519 key (v1a)."""

import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Sequence
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SHARED, PRIVATE, PUBLIC = "whsec_", "whsk_", "whpk_"
LEAST, MOST = 24, 64  # octets of a shared secret
_SEED = 32  # octets of an Ed25519 private key; some write the public key behind it


def new_secret() -> str:
    """Make a shared secret of 256 bits."""
    return SHARED + b64encode(secrets.token_bytes(32)).decode()


def secret_fault(secret: str) -> str:
    """Say what is wrong with a secret, "" for nothing; the text never has anything of it."""
    prefix = next((each for each in (SHARED, PRIVATE) if secret.startswith(each)), "")
    if not prefix:
        return 'must begin with "whsec_" (HMAC-SHA256) or "whsk_" (Ed25519)'
    try:
        octets = b64decode(secret[len(prefix) :], validate=True)
    except ValueError:
        return f"must be base64 behind {prefix}"
    if prefix == SHARED and not LEAST <= len(octets) <= MOST:
        return f"must have {LEAST} to {MOST} octets in base64 behind whsec_"
    if prefix == PRIVATE and len(octets) not in (_SEED, 2 * _SEED):
        return "must have the 32 octets of an Ed25519 private key in base64 behind whsk_"
    return ""


def public_key(secret: str) -> str:
    """Give the key ("whpk_...") by which a receiver checks what an Ed25519 key signs; "" for a shared secret."""
    if not secret.startswith(PRIVATE):
        return ""
    return PUBLIC + b64encode(_private(secret).public_key().public_bytes_raw()).decode()


def sign(keys: Sequence[str], webhook_id: str, timestamp: int, body: bytes) -> str:
    """Give the `webhook-signature` of a body: one signature for each secret, as while one takes another's place."""
    content = b"%s.%d.%s" % (webhook_id.encode(), timestamp, body)
    return " ".join(_sign(key, content) for key in keys)


def _sign(secret: str, content: bytes) -> str:
    if secret.startswith(PRIVATE):
        return "v1a," + b64encode(_private(secret).sign(content)).decode()
    return "v1," + b64encode(hmac.digest(b64decode(secret[len(SHARED) :]), content, sha256)).decode()


def _private(secret: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(b64decode(secret[len(PRIVATE) :])[:_SEED])
