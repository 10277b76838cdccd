"""DKIM keys: reading their files, choosing those of a domain, following changes, making new ones."""

import os
import stat
import subprocess
from base64 import b64decode
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
)

from smarthost.crypto.dkim_keys import (
    Algorithm,
    Keyring,
    KeyUnreadable,
    KeyUnwritable,
    SigningKey,
    generate_key,
    load_key,
    public_record,
    zone_record,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with one key of each kind that works."""
    folder = tmp_path_factory.mktemp("keys")
    generate_key("rsa-sha256", folder / "rsa.pem")
    generate_key("ed25519-sha256", folder / "ed25519.pem")
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    (folder / "small.pem").write_bytes(
        small.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    return folder


@pytest.mark.parametrize(("name", "algorithm"), [("rsa", Algorithm.RSA_SHA256), ("ed25519", Algorithm.ED25519_SHA256)])
def test_generated_key_is_private_and_loads(made: Path, name: str, algorithm: Algorithm) -> None:
    """A generated key is readable by its owner only, loads without a warning, and leaves no draft behind."""
    path = made / f"{name}.pem"
    key = load_key("Example.ORG", "s1", path)
    assert (key.domain, key.selector, key.algorithm, key.warnings) == ("example.org", "s1", algorithm, ())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not [left for left in os.listdir(made) if left.endswith(".new")]


def test_generate_never_overwrites(made: Path) -> None:
    """A second key with the name of the first is refused, and the first stays octet for octet."""
    before = (made / "rsa.pem").read_bytes()
    with pytest.raises(KeyUnwritable, match=r"rsa\.pem: exists already"):
        generate_key("rsa-sha256", made / "rsa.pem")
    assert (made / "rsa.pem").read_bytes() == before


@pytest.mark.parametrize(("algorithm", "name", "says"), [("dsa", "x", "dsa"), ("ed25519-sha256", "no/x", "written")])
def test_generate_says_why_not(tmp_path: Path, algorithm: str, name: str, says: str) -> None:
    """An unknown algorithm and a folder that is not there are refused with the file's name."""
    with pytest.raises(KeyUnwritable, match=says) as caught:
        generate_key(algorithm, tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_small_and_open_keys_are_warned_about(made: Path, tmp_path: Path) -> None:
    """A PKCS#1 key of 1024 bits loads with a warning; one that everybody may read gets another."""
    path = tmp_path / "open.pem"
    path.write_bytes((made / "small.pem").read_bytes())
    path.chmod(0o644)
    warnings = load_key("example.org", "s1", path).warnings
    assert len(warnings) == 2
    assert all(str(path) in warning for warning in warnings)


def _pem(private: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def _bad_files() -> dict[str, bytes]:
    curve = ec.generate_private_key(ec.SECP256R1())
    public = curve.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    whole = _pem(curve)
    return {
        "holds no private key": b"hello\n",
        "holds no private": public,
        "encrypted": _pem(curve, b"secret"),
        "of the kind": whole,
        "cannot be read": whole[:80] + b"\n-----END PRIVATE KEY-----\n",
    }


@pytest.mark.parametrize(("says", "octets"), _bad_files().items())
def test_unusable_file_is_named_with_its_fault(tmp_path: Path, says: str, octets: bytes) -> None:
    """Each kind of unusable file raises one sentence with the file's name and what is wrong."""
    path = tmp_path / "key.pem"
    path.write_bytes(octets)
    with pytest.raises(KeyUnreadable, match=says) as caught:
        load_key("example.org", "s1", path)
    assert str(path) in str(caught.value)
    assert "secret" not in str(caught.value)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    """A file that is not there, and a folder in its place, raise a sentence with the name."""
    with pytest.raises(KeyUnreadable, match="no such file"):
        load_key("example.org", "s1", tmp_path / "none.pem")
    with pytest.raises(KeyUnreadable, match=str(tmp_path)):
        load_key("example.org", "s1", tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_forbidden_file_is_named(made: Path, tmp_path: Path) -> None:
    """A file without read permission raises a sentence about permission."""
    path = tmp_path / "key.pem"
    path.write_bytes((made / "ed25519.pem").read_bytes())
    path.chmod(0)
    with pytest.raises(KeyUnreadable, match="permission"):
        load_key("example.org", "s1", path)


def test_rsa_of_512_bits_is_refused(tmp_path: Path) -> None:
    """A key that verifiers refuse is refused here already."""
    path = tmp_path / "tiny.pem"
    made = subprocess.run(["openssl", "genrsa", "-out", str(path), "512"], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("this openssl makes no key of 512 bits")
    with pytest.raises(KeyUnreadable, match=str(path)):
        load_key("example.org", "s1", path)


@pytest.mark.parametrize(
    ("domain", "selector"), [("", "s1"), ("a b", "s1"), ("example.org", "s 1"), ("[1.2.3.4]", "s")]
)
def test_names_that_dns_cannot_hold_are_refused(made: Path, domain: str, selector: str) -> None:
    """A domain or selector that is no domain name is refused."""
    with pytest.raises(KeyUnreadable, match="DNS"):
        load_key(domain, selector, made / "ed25519.pem")


def test_repr_hides_the_key(made: Path) -> None:
    """Neither repr nor str show the private key object."""
    key = load_key("example.org", "s1", made / "rsa.pem")
    assert "s1._domainkey.example.org" in repr(key)
    assert "rivate" not in f"{key!r}{key}{[key]}"


def test_public_record_holds_the_public_key(made: Path) -> None:
    """The RSA record holds SubjectPublicKeyInfo, the Ed25519 record 32 octets; the zone line is cut into strings."""
    key = load_key("example.org", "s1", made / "rsa.pem")
    head, _, octets = public_record(key).rpartition("p=")
    assert head == "v=DKIM1; k=rsa; "
    assert load_der_public_key(b64decode(octets)) == key.private.public_key()
    strings = zone_record(key).split('"')[1::2]
    assert "".join(strings) == public_record(key)
    assert max(map(len, strings)) <= 255
    short = public_record(load_key("example.org", "s1", made / "ed25519.pem"))
    assert short.startswith("v=DKIM1; k=ed25519; p=")
    assert len(b64decode(short.rpartition("p=")[2])) == 32


def _names(keys: tuple[SigningKey, ...]) -> list[str]:
    return [key.record_name for key in keys]


def test_most_specific_domain_signs(made: Path) -> None:
    """All selectors of the most specific domain at or above the From domain are chosen, and of no other."""
    rsa_path, ed_path = made / "rsa.pem", made / "ed25519.pem"
    ring = Keyring([("example.org", "r", rsa_path), ("example.org", "e", ed_path), ("news.example.org", "n", ed_path)])
    both = ["r._domainkey.example.org", "e._domainkey.example.org"]
    assert _names(ring.for_domain("example.org")) == both
    assert _names(ring.for_domain("deep.down.EXAMPLE.org.")) == both
    assert _names(ring.for_domain("a.news.example.org")) == ["n._domainkey.news.example.org"]
    for other in ("badexample.org", "org", "example.com", "", "[127.0.0.1]", "not a domain"):
        assert ring.for_domain(other) == ()
    assert ring.for_domain("example.org") is ring.for_domain("example.org")
    assert Keyring().for_domain("example.org") == ()


def test_unicode_domain_finds_its_a_label(made: Path) -> None:
    """A U-label in the settings and in From mean the same domain."""
    ring = Keyring([("bücher.example", "s", made / "ed25519.pem")])
    assert _names(ring.for_domain("Bücher.example")) == ["s._domainkey.xn--bcher-kva.example"]
    assert _names(ring.for_domain("xn--bcher-kva.example")) == ["s._domainkey.xn--bcher-kva.example"]


def test_lookup_of_many_domains_is_bounded(made: Path) -> None:
    """A flood of different From domains does not make the ring grow without end."""
    ring = Keyring([("example.org", "s", made / "ed25519.pem")])
    for number in range(25_000):
        ring.for_domain(f"x{number}.example.org")
    assert len(ring._chosen) <= 10_000


def test_changed_file_is_read_again(made: Path, tmp_path: Path) -> None:
    """A replaced key takes effect; a broken one is reported once and the old one stays; its repair is seen."""
    path = tmp_path / "key.pem"
    path.write_bytes((made / "rsa.pem").read_bytes())
    ring = Keyring([("example.org", "s", path)])
    first = ring.for_domain("example.org")[0]
    assert ring.reload_if_changed() == []

    fresh = tmp_path / "fresh.pem"
    fresh.write_bytes((made / "ed25519.pem").read_bytes())
    fresh.replace(path)
    assert ring.reload_if_changed() == []
    second = ring.for_domain("example.org")[0]
    assert (first.algorithm, second.algorithm) == (Algorithm.RSA_SHA256, Algorithm.ED25519_SHA256)
    assert ring.reload_if_changed() == []

    path.write_text("half a key")
    (sentence,) = ring.reload_if_changed()
    assert "holds no private key" in sentence
    assert ring.for_domain("example.org")[0] is second
    assert ring.reload_if_changed() == []
    path.unlink()
    (sentence,) = ring.reload_if_changed()
    assert "no such file" in sentence
    path.write_bytes((made / "rsa.pem").read_bytes())
    assert ring.reload_if_changed() == []
    assert ring.for_domain("example.org")[0].algorithm is Algorithm.RSA_SHA256
