"""smarthost oauth login: the whole command against a token endpoint, with its exit codes."""

import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from token_server import CLIENT_ID, MICROSOFT_DEVICE_PATH, TokenServer, token_server

from smarthost.__main__ import main

CODE = {
    "device_code": "device-secret-code",
    "user_code": "ABCD-EFGH",
    "verification_uri": "https://microsoft.example/devicelogin",
    "expires_in": 900,
    "interval": 0.02,
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TokenServer]:
    """Give a token endpoint."""
    with token_server(tmp_path) as running:
        yield running


@pytest.fixture
def config(server: TokenServer, tmp_path: Path) -> Path:
    """Write a configuration whose relayhost wants a refresh token that is not there yet."""
    file = tmp_path / "smarthost.toml"
    file.write_text(
        f"""
        hostname = "relay.example.org"
        data_directory = "{tmp_path / "data"}"
        relayhost = "smtp.example.net:587"
        relayhost_auth = {{ mechanism = "xoauth2", username = "app@example.org", client_id = "{CLIENT_ID}", \
token_url = "{server.url()}", device_url = "{server.url(MICROSOFT_DEVICE_PATH)}", \
authorize_url = "https://login.example/authorize", scope = "s offline_access", \
refresh_token_file = "{tmp_path / "refresh"}", token_ca = "{server.ca_file}" }}
        [[route]]
        name = "plain"
        relayhost = "other.example.net:587"
        auth = {{ username = "u", password = "p" }}
        """,
        encoding="utf-8",
    )
    file.chmod(0o600)
    return file


def log_in(config: Path, *words: str) -> int:
    """Run the command in this process."""
    return main(["oauth", "login", *words, "--config", str(config)])


def test_the_token_is_written(
    server: TokenServer, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The person is told where to go with which code; the file has the token alone, for its owner alone."""
    assert main(["check", "--config", str(config)]) == os.EX_CONFIG
    assert "make it by: smarthost oauth login relayhost" in capsys.readouterr().err
    server.answers.extend([(200, CODE), (400, {"error": "authorization_pending"})])
    before = os.umask(0)
    try:
        assert log_in(config, "relayhost") == os.EX_OK
    finally:
        os.umask(before)
    said = capsys.readouterr()
    assert "Open https://microsoft.example/devicelogin" in said.out and "ABCD-EFGH" in said.out
    assert "app@example.org" in said.out
    file = tmp_path / "refresh"
    assert file.read_text() == f"{server.refresh_token}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not [secret for secret in server.secrets() if secret in said.out + said.err]
    assert main(["check", "--config", str(config)]) == os.EX_OK
    requests = len(server.requests)
    assert requests == 3  # check has asked nobody


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [("access_denied", os.EX_NOPERM), ("expired_token", os.EX_TEMPFAIL), ("invalid_client", os.EX_CONFIG)],
)
def test_refusals(
    server: TokenServer, config: Path, tmp_path: Path, error: str, exit_code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each way to end without a token has its exit code and one sentence, and no file is made."""
    server.answers.extend([(200, CODE), (400, {"error": error})])
    assert log_in(config, "relayhost", "--json") == exit_code
    said = capsys.readouterr()
    assert said.err.startswith("smarthost: the token endpoint localhost refused: " + error)
    assert said.err.count("\n") == 1
    assert '"user_code": "ABCD-EFGH"' in said.out and "device-secret-code" not in said.out
    assert not (tmp_path / "refresh").exists()


def test_nobody_is_asked_in_vain(
    server: TokenServer, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unknown names, logins by password, and a folder that is not there are told before anybody is asked."""
    assert log_in(config, "nobody") == os.EX_USAGE
    assert "there are: plain, relayhost" in capsys.readouterr().err
    assert log_in(config, "plain") == os.EX_CONFIG
    assert "uses no refresh token" in capsys.readouterr().err
    text = config.read_text()
    config.write_text(text.replace(str(tmp_path / "refresh"), str(tmp_path / "none" / "refresh")))
    assert log_in(config, "relayhost") == os.EX_CANTCREAT
    config.write_text(text.replace("device_url", "# device_url").replace(", scope", '", scope'))
    assert log_in(config, "relayhost") == os.EX_CONFIG
    assert not server.requests


def test_an_endpoint_that_is_not_there(server: TokenServer, config: Path) -> None:
    """Without an answer the command says 69."""
    config.write_text(config.read_text().replace(f"{server.port}", "1"))
    assert log_in(config, "relayhost") == os.EX_UNAVAILABLE


class Browser(io.StringIO):
    """Standard input of a person who goes where the command says, and copies back where the browser ends."""

    def __init__(self, capsys: pytest.CaptureFixture[str], code: str, **changes: str) -> None:
        super().__init__()
        self.capsys, self.code, self.changes = capsys, code, changes
        self.asked: dict[str, str] = {}
        self.said = ""

    def readline(self, size: int | None = -1) -> str:
        """Say yes."""
        self.said = self.capsys.readouterr().out
        (address,) = [line for line in self.said.splitlines() if line.startswith("https://login.example/authorize?")]
        self.asked = dict(parse_qsl(urlsplit(address).query))
        found = {"state": self.asked["state"], "code": self.code + self.asked["code_challenge"]} | self.changes
        return self.asked["redirect_uri"] + "/?" + "&".join(f"{key}={value}" for key, value in found.items()) + "\n"


def test_by_browser(
    server: TokenServer,
    config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What no device is given, Gmail's scope, is had by an address that is copied back; PKCE binds the two."""
    server.answers.extend([(200, CODE | {"error": "invalid_scope"})])
    assert log_in(config, "relayhost") == os.EX_CONFIG
    assert "a device may not have it, --browser may" in capsys.readouterr().err
    browser = Browser(capsys, "code-secret-for-")
    monkeypatch.setattr("sys.stdin", browser)
    assert log_in(config, "relayhost", "--browser") == os.EX_OK
    assert browser.asked["login_hint"] == "app@example.org" and browser.asked["access_type"] == "offline"
    assert (tmp_path / "refresh").read_text() == f"{server.refresh_token}\n"
    said = capsys.readouterr()
    assert not [secret for secret in server.secrets() if secret in browser.said + said.out + said.err]


@pytest.mark.parametrize(
    ("code", "changes", "exit_code"),
    [
        ("code-secret-for-", {"state": "another"}, os.EX_DATAERR),
        ("code-secret-for-", {"error": "access_denied"}, os.EX_NOPERM),
        ("wrong-code-", {}, os.EX_CONFIG),
    ],
)
def test_a_browser_that_ends_elsewhere(
    server: TokenServer,
    config: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    changes: dict[str, str],
    exit_code: int,
) -> None:
    """An address of another run, a refusal, and a code that is not good end with a sentence without the code."""
    monkeypatch.setattr("sys.stdin", Browser(capsys, code, **changes))
    assert log_in(config, "relayhost", "--browser") == exit_code
    assert code not in capsys.readouterr().err
