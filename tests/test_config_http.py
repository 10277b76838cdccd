"""The configuration of the HTTP door: what is read, and what is said of what is wrong."""

import hashlib
from pathlib import Path

import pytest

from smarthost.config import Config, ConfigError, load
from smarthost.policy.admission import Tls

DIGEST = hashlib.sha256(b"secret").hexdigest()


def read(folder: Path, text: str) -> Config:
    """Read a configuration."""
    file = folder / "smarthost.toml"
    file.write_text(text)
    return load(file, {}, lambda: "relay.example.org")


def test_tokens_are_digests(tmp_path: Path) -> None:
    """Tokens stand as hashes, in the file itself or in one of their own, one a line."""
    assert read(tmp_path, f'[http]\ntokens = ["sha256:{DIGEST}"]').http.tokens == (DIGEST,)
    file = tmp_path / "tokens"
    file.write_text(f"sha256:{DIGEST}\n\nsha256:{'0' * 64}\n")
    file.chmod(0o600)
    config = read(tmp_path, f"[http]\ntokens_file = '{file}'")
    assert config.http.tokens == (DIGEST, "0" * 64)
    assert DIGEST not in repr(config.http)


@pytest.mark.parametrize("text", ["tokens = ['my-secret-token']", "tokens_file = '{}'", "tokens = [7]"])
def test_a_token_in_the_clear_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    """What is no hash may be the token itself: the message says what is allowed, and not what stands there."""
    file = tmp_path / "tokens"
    file.write_text("my-secret-token\n")
    file.chmod(0o600)
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, "[http]\n" + text.format(file))
    assert "sha256:" in caught.value.render()
    assert "my-secret-token" not in caught.value.render()


def test_listeners_of_http(tmp_path: Path) -> None:
    """A listener of protocol http has implicit TLS unless it says none; STARTTLS and SMTP's own keys are refused."""
    config = read(tmp_path, "[[listener]]\nprotocol = 'http'\naddress = '127.0.0.1:8443'")
    assert config.listeners[0].tls is Tls.IMPLICIT
    for wrong, key in (("tls = 'starttls'", "tls"), ("auth = 'none'", "auth")):
        with pytest.raises(ConfigError) as caught:
            read(tmp_path, f"[[listener]]\nprotocol = 'http'\n{wrong}")
        assert f": listener[0].{key}: " in caught.value.render()
    warned = read(tmp_path, "[[listener]]\nprotocol = 'http'\naddress = '0.0.0.0:80'\ntls = 'none'").warnings
    assert any("keys cross the network" in warning for warning in warned)


def test_a_trusted_network_is_warned_of(tmp_path: Path) -> None:
    """Nobody is trusted unless a network is named, which is said; all of the Internet cannot be named."""
    assert read(tmp_path, "[http]").http.trusted_networks == ()
    config = read(tmp_path, '[http]\ntrusted_networks = ["10.0.0.0/8"]')
    assert config.http.trusted_networks == ("10.0.0.0/8",)
    assert any("without a token" in warning for warning in config.warnings)
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, '[http]\ntrusted_networks = ["0.0.0.0/0"]')
    assert ": http.trusted_networks" in caught.value.render()
