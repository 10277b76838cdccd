"""The configuration of bounces: what is read, and what is said of what is wrong."""

from pathlib import Path

import pytest

from smarthost.config import Config, ConfigError, load
from smarthost.policy.admission import Auth, Role

LISTENER = "[[listener]]\naddress = '0.0.0.0:25'\nrole = 'bounces'\n"


def read(folder: Path, text: str) -> Config:
    """Read a configuration."""
    file = folder / "smarthost.toml"
    file.write_text(text)
    return load(file, {}, lambda: "relay.example.org")


def test_bounces_are_read(tmp_path: Path) -> None:
    """A listener for bounces has no AUTH; the secret stands in a file or in the section, and is shown nowhere."""
    secret = "0123456789abcdef"
    config = read(tmp_path, f"{LISTENER}[bounces]\ndomain = 'Bounces.example.org'\nsecret = '{secret}'\nusers = ['a']")
    assert (config.listeners[0].role, config.listeners[0].auth) == (Role.BOUNCES, Auth.NONE)
    assert (config.bounces.domain, config.bounces.secret) == ("bounces.example.org", secret)
    assert secret not in repr(config)
    assert config.bounces.mean("x@example.org", "a", "mx") and not config.bounces.mean("x@example.org", "b", "mx")
    assert any("no [[listener]]" in each for each in read(tmp_path, "[bounces]\ndomain = 'b.example'").warnings)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (LISTENER, "bounces.domain"),
        (f"{LISTENER}auth = 'optional'\n[bounces]\ndomain = 'b.example'", "listener[0].auth"),
        ("[[listener]]\nprotocol = 'http'\nrole = 'bounces'", "listener[0].role"),
        ("[[listener]]\nrole = 'returns'", "listener[0].role"),
        ("[bounces]\nsenders = ['*']", "bounces.senders"),
        ("[bounces]\ndomain = 'b.example'\nsecret = 'short'", "bounces.secret"),
        ("[bounces]\ndomain = 'b.example'\nroutes = ['none']", "bounces.routes"),
        ("[bounces]\ndomain = 'b.example'\nmessage_rate = 'often'", "bounces.message_rate"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, key: str) -> None:
    """Each mistake is told with its line and key, and no secret."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text)
    assert f": {key}" in caught.value.render() and "'short'" not in caught.value.render()
