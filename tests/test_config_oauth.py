"""Logins by OAuth 2.0 in the configuration: what each provider needs, and each wrong combination with its line."""

import json
from pathlib import Path

import pytest
from token_server import ACCOUNT, client_certificate, service_account

from smarthost.config import Config, Mechanism
from smarthost.network.oauth_grant import Grant
from test_config_mistakes import load_text, mistakes

TENANT = "https://login.microsoftonline.com/contoso.example/oauth2/v2.0"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give a folder with all files that a login may name."""
    for name, text in (("secret", "s3cret~\n"), ("refresh", "r3fresh~\n"), ("empty", "\n"), ("ca.pem", "x")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    client_certificate(tmp_path)
    service_account(tmp_path)
    return tmp_path


def route(folder: Path, keys: str) -> str:
    """Write a route with a login; $ stands for the folder."""
    auth = f'auth = {{ mechanism = "xoauth2", {keys} }}'.replace("$", str(folder))
    return f'[[route]]\nname = "office"\nrelayhost = "smtp.example.net:587"\n{auth}\n'


def grant_of(config: Config, name: str = "office") -> Grant:
    """Give how a login gets its tokens."""
    login = config.credentials[name]
    assert (login.username, login.password, login.mechanism) == ("u@x.example", "", Mechanism.XOAUTH2)
    assert login.grant is not None and login.grant.name == name
    return login.grant


def warnings_of(folder: Path, keys: str) -> list[str]:
    """Give what is said about the login of a configuration that works."""
    return [warning for warning in load_text(folder, route(folder, keys)).warnings if "auth" in warning]


M = "username = 'u@x.example', provider = 'microsoft', tenant = 'contoso.example', client_id = 'c'"
G = "username = 'u@x.example', provider = 'google'"
T = "username = 'u@x.example', token_url = 'https://id.example/token'"


def test_microsoft(folder: Path) -> None:
    """The addresses follow from the tenant, the scope from who logs in: the application, or a person by consent."""
    secret = grant_of(load_text(folder, route(folder, f"{M}, client_secret_file = '$/secret'")))
    assert (secret.token_url, secret.device_url) == (f"{TENANT}/token", f"{TENANT}/devicecode")
    assert (secret.client_secret, secret.scope) == ("s3cret~", "https://outlook.office365.com/.default")
    certificate = grant_of(load_text(folder, route(folder, f"{M}, certificate = '$/client.pem', key = '$/client.key'")))
    assert certificate.assertion is not None and certificate.assertion.account == ""
    person = grant_of(load_text(folder, route(folder, f"{M}, refresh_token_file = '$/refresh'")))
    assert person.scope == "https://outlook.office.com/SMTP.Send offline_access"
    assert person.refresh_token_file == folder / "refresh"
    cloud = f"{M}, client_secret_file = '$/secret', token_url = 'https://login.microsoftonline.us/t/token', scope = 's'"
    sovereign = grant_of(load_text(folder, route(folder, cloud)))
    assert (sovereign.token_url, sovereign.scope) == ("https://login.microsoftonline.us/t/token", "s")


def test_google(folder: Path) -> None:
    """A service account's file says it all; a refresh token wants client_id, and the secret that Google gives."""
    service = grant_of(load_text(folder, route(folder, f"{G}, service_account_file = '$/service-account.json'")))
    assert service.assertion is not None
    assert (service.assertion.account, service.assertion.key_id) == (ACCOUNT, "key-id-1")
    assert (service.token_url, service.scope) == ("https://oauth2.googleapis.com/token", "https://mail.google.com/")
    keys = f"{G}, client_id = 'c', client_secret_file = '$/secret', refresh_token_file = '$/refresh'"
    person = grant_of(load_text(folder, route(folder, keys)))
    assert person.device_url == "https://oauth2.googleapis.com/device/code"
    assert "s3cret" not in repr([service, person]) and "PRIVATE" not in repr(service.assertion)


def test_any_token_url(folder: Path) -> None:
    """Any endpoint will do, for the relayhost, too; the secret may come from the environment."""
    auth = f"{{ mechanism = 'xoauth2', {T}, client_id = 'c', scope = 'mail', token_ca = '$/ca.pem' }}"
    text = "relayhost = 'a.example'\nrelayhost_auth = " + auth.replace("$", str(folder))
    variables = {"SMARTHOST__RELAYHOST_AUTH__CLIENT_SECRET": "by-environment"}
    grant = grant_of(load_text(folder, text, **variables), "relayhost")
    assert (grant.client_secret, grant.ca_file) == ("by-environment", str(folder / "ca.pem"))
    assert (grant.token_url, grant.device_url, grant.scope) == ("https://id.example/token", "", "mail")


WRONG = [
    ("client_id = 'c', client_secret_file = '$/secret'", ["provider", "username"]),
    ("username = 'u', provider = 'yahoo'", ["client_id", "provider", "mechanism"]),
    (M, ["mechanism"]),
    ("username = 'u', provider = 'microsoft', client_id = 'c', client_secret_file = '$/secret'", ["tenant"]),
    (f"{M}, client_secret_file = '$/none'", ["client_secret_file"]),
    (f"{M}, client_secret_file = '$/empty'", ["client_secret_file"]),
    (f"{M}, client_secret = 'x', client_secret_file = '$/secret'", ["client_secret_file"]),
    (f"{M}, certificate = '$/client.pem'", ["key"]),
    (f"{M}, client_secret_file = '$/secret', key = '$/client.key'", ["certificate"]),
    (f"{M}, certificate = '$/client.pem', key = '$/secret'", ["key"]),
    (f"{M}, certificate = '$/ca.pem', key = '$/client.key'", ["key"]),
    (f"{M}, certificate = '$/none', key = '$/client.key'", ["certificate"]),
    (
        f"{M}, certificate = '$/client.pem', key = '$/client.key', client_secret_file = '$/secret'",
        ["certificate"],
    ),
    (f"{M}, service_account_file = '$/service-account.json'", ["client_id", "service_account_file"]),
    (f"{M}, refresh_token_file = '$/none'", ["refresh_token_file"]),
    (f"{M}, refresh_token_file = '$/empty'", ["refresh_token_file"]),
    (f"{M}, client_secret_file = '$/secret', password = 'p'", ["password"]),
    (f"{M}, client_secret_file = '$/secret', token_url = 'http://login.example/'", ["token_url"]),
    (f"{M}, client_secret_file = '$/secret', token_url = 'https://u:p@login.example/'", ["token_url"]),
    (f"{M}, client_secret_file = '$/secret', token_url = 'login.example'", ["token_url"]),
    (f"{M}, client_secret_file = '$/secret', token_ca = '$/none'", ["token_ca"]),
    (f"{M}, client_secret_file = '$/secret', refresh_token = 'x'", ["refresh_token"]),
    (G, ["client_id", "provider"]),
    (f"{G}, client_id = 'c', client_secret_file = '$/secret'", ["provider"]),
    (f"{G}, tenant = 't', service_account_file = '$/service-account.json'", ["tenant"]),
    (f"{G}, client_id = 'c', service_account_file = '$/service-account.json'", ["client_id"]),
    (f"{G}, service_account_file = '$/secret'", ["service_account_file"]),
    (
        f"{G}, client_id = 'c', certificate = '$/client.pem', key = '$/client.key', refresh_token_file = '$/refresh'",
        ["certificate"],
    ),
    (T, ["client_id", "mechanism"]),
    (f"{T}, tenant = 't', client_id = 'c', client_secret_file = '$/secret'", ["tenant"]),
]


@pytest.mark.parametrize(("keys", "wrong"), WRONG)
def test_wrong_combinations(folder: Path, keys: str, wrong: list[str]) -> None:
    """Each is told with file, line and key, and with what is allowed; no secret is in it."""
    lines = mistakes(folder, route(folder, keys))
    assert sorted(line.split(": ")[1] for line in lines) == sorted(f"route[0].auth.{key}" for key in wrong)
    assert all(line.startswith("smarthost.toml:4: ") for line in lines)
    assert not any("s3cret" in line or "PRIVATE" in line or "r3fresh" in line for line in lines)


def test_keys_without_the_mechanism(folder: Path) -> None:
    """Keys of OAuth with a password are refused."""
    text = "relayhost = 'a.example'\nrelayhost_auth = { username = 'u', password = 'p', client_id = 'c', tenant = 't' }"
    lines = mistakes(folder, text)
    assert [line.split(": ", 2)[1:] for line in lines] == [
        [f"relayhost_auth.{key}", 'has no meaning without mechanism = "xoauth2"'] for key in ("client_id", "tenant")
    ]


def test_the_missing_refresh_token_names_the_command(folder: Path) -> None:
    """Who lacks the first refresh token is told how to get it."""
    (line,) = mistakes(folder, route(folder, f"{M}, refresh_token_file = '$/none'"))
    assert line.endswith("which is missing; make it by: smarthost oauth login office")


def test_a_broken_service_account(folder: Path) -> None:
    """A service account's file whose key cannot sign is told without the key."""
    file = folder / "service-account.json"
    fields = json.loads(file.read_text())
    for change, sentence in (
        ({"private_key": "s3cret"}, "has a private_key that is no private key in PEM"),
        ({"private_key": 5}, "is no service account's JSON"),
    ):
        file.write_text(json.dumps(fields | change))
        (line,) = mistakes(folder, route(folder, f"{G}, service_account_file = '$/service-account.json'"))
        assert sentence in line and "s3cret" not in line


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("secret", f"{M}, client_secret_file = '$/secret'"),
        ("refresh", f"{M}, refresh_token_file = '$/refresh'"),
        ("client.key", f"{M}, certificate = '$/client.pem', key = '$/client.key'"),
        ("service-account.json", f"{G}, service_account_file = '$/service-account.json'"),
    ],
)
def test_files_that_others_can_read_are_warned_of(folder: Path, name: str, keys: str) -> None:
    """A secret's file with mode 0644 is warned of; with 0600 nothing is said."""
    assert warnings_of(folder, keys) == []
    (folder / name).chmod(0o644)
    (warning,) = warnings_of(folder, keys)
    assert f"{folder / name}'" in warning and "every user of this machine can read" in warning


def test_a_secret_in_an_open_configuration_is_warned_of(folder: Path) -> None:
    """client_secret in a configuration that all can read is warned of, as a password is."""
    (warning,) = warnings_of(folder, f"{M}, client_secret = 's3cret'")
    assert "use client_secret_file" in warning and "s3cret" not in warning


def test_a_token_that_cannot_be_replaced_is_warned_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the folder of a refresh token takes no new file, a rotated one would be lost at the next start."""
    monkeypatch.setattr("os.access", lambda path, mode: False)
    (warning,) = warnings_of(folder, f"{M}, refresh_token_file = '$/refresh'")
    assert "may not write to" in warning
