"""[outreach]: where reports are posted, and what is said of mistakes."""

from pathlib import Path

import pytest

from smarthost.config import Config, ConfigError, load
from smarthost.policy.client_sync import OutreachTerms, SyncTarget


def read(folder: Path, text: str) -> Config:
    """Load a configuration of some lines."""
    file = folder / "smarthost.toml"
    file.write_text('hostname = "relay.example.org"\n' + text, encoding="utf-8")
    return load(file, {})


def test_targets_of_all_and_of_one_tenant(tmp_path: Path) -> None:
    """The common target and that of a tenant are read with their ways to log in; nothing is told by default."""
    assert read(tmp_path, "").outreach == OutreachTerms()
    (tmp_path / "token").write_text("t0ken\n")
    (tmp_path / "token").chmod(0o600)
    outreach = read(
        tmp_path,
        f"""[outreach]
allow_private_urls = true
client_sync_url = "http://127.0.0.1:8000/sync"
client_sync_token_file = "{tmp_path}/token"
client_sync_interval = "1m"
[[outreach.tenant]]
name = "shop"
client_sync_url = "https://shop.example.org/reports"
client_sync_user = "relay"
client_sync_password = "p"
client_sync_batch = 50
""",
    ).outreach
    assert outreach.allow_private_urls
    assert outreach.sync == SyncTarget("http://127.0.0.1:8000/sync", "t0ken", interval=60.0)
    assert outreach.tenants["shop"] == SyncTarget(
        "https://shop.example.org/reports", user="relay", password="p", batch=50
    )


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('client_sync_url = "ftp://h/"', "outreach.client_sync_url"),
        ('client_sync_url = "https://u:p@h/"', "outreach.client_sync_url"),
        ('client_sync_secret = "short"', "outreach.client_sync_secret"),
        ('client_sync_token = "t"\nclient_sync_user = "u"', "outreach.client_sync_user"),
        ('client_sync_password = "p"', "outreach.client_sync_password"),
        ("client_sync_batch = 100000", "outreach.client_sync_batch"),
        ('client_sync_urls = "x"', "outreach.client_sync_urls"),
        ('[[outreach.tenant]]\nclient_sync_url = "https://h/"', "name"),
        ('[[outreach.tenant]]\nname = "a"', "client_sync_url"),
    ],
)
def test_mistakes_name_their_key(tmp_path: Path, text: str, key: str) -> None:
    """What cannot be meant is refused by the name of its key, and no secret is said."""
    with pytest.raises(ConfigError) as told:
        read(tmp_path, f"[outreach]\n{text}\n")
    assert key in told.value.render()
