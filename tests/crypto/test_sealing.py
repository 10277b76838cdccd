"""Sealing: what is encrypted at rest opens for its owner alone, and the key is made once."""

import stat
from pathlib import Path

import pytest

from smarthost.crypto.sealing import SealBroken, Sealer, derive_key, load_master_key

MASTER = bytes(range(32))


def test_what_was_sealed_opens_for_its_owner_alone() -> None:
    """Another owner, purpose or key opens nothing, nor does what was changed; two seals of one text differ."""
    sealer = Sealer(MASTER, "account")
    sealed = sealer.seal("pässword", "acme/a")
    assert sealer.open(sealed, "acme/a") == "pässword"
    assert b"ssword" not in sealed and sealed != sealer.seal("pässword", "acme/a")
    changed = sealed[:-1] + bytes([sealed[-1] ^ 1])
    for other, octets, owner in (
        (sealer, sealed, "acme/b"),
        (Sealer(MASTER, "webhook"), sealed, "acme/a"),
        (Sealer(bytes(32), "account"), sealed, "acme/a"),
        (sealer, changed, "acme/a"),
        (sealer, b"\x02" + sealed[1:], "acme/a"),
        (sealer, b"", "acme/a"),
        (sealer, sealed[:20], "acme/a"),
    ):
        with pytest.raises(SealBroken):
            other.open(octets, owner)


def test_a_key_for_each_purpose() -> None:
    """Keys of two purposes differ, each is the same every time, and none shows itself."""
    assert derive_key(MASTER, "a") == derive_key(MASTER, "a") != derive_key(MASTER, "b")
    assert MASTER.hex() not in repr(Sealer(MASTER, "a")) and len(derive_key(MASTER, "a")) == 32


def test_the_master_key_is_made_once(tmp_path: Path) -> None:
    """The file is made with its folder, for its owner alone, and read from then on; one that is cut off is refused."""
    path = tmp_path / "data" / "secrets.key"
    key = load_master_key(path)
    assert len(key) == 32 and load_master_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(key[:5])
    with pytest.raises(ValueError, match="no key of 32 octets"):
        load_master_key(path)
