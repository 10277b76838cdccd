"""The device flow against Microsoft's and Google's shapes: what is shown, how often is asked, and each way to end."""

import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from dns_server import Clock
from token_server import CLIENT_ID, MICROSOFT_DEVICE_PATH, TokenServer, token_server

from smarthost.network.https import Answer, HttpsFault, post_form
from smarthost.network.oauth_answer import TokenFault
from smarthost.network.oauth_device import DeviceCode, DeviceLogin
from smarthost.network.oauth_grant import Grant

PENDING = (400, {"error": "authorization_pending"})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TokenServer]:
    """Give a token endpoint."""
    with token_server(tmp_path) as running:
        yield running


class Person:
    """Whoever runs the flow; notes how long was slept each time."""

    def __init__(self, server: TokenServer, device_path: str = MICROSOFT_DEVICE_PATH, secret: str = "") -> None:
        self.clock = Clock()
        self.slept: list[float] = []
        self.server = server
        self.context = ssl.create_default_context(cafile=str(server.ca_file))
        grant = Grant(
            name="office",
            username="app@example.org",
            token_url=server.url(),
            device_url=server.url(device_path),
            client_id=CLIENT_ID,
            client_secret=secret,
            scope="SMTP.Send offline_access",
            refresh_token_file=Path("refresh"),
        )
        self.post: Callable[[str, Mapping[str, str]], Answer | HttpsFault] = self._post
        self.login = DeviceLogin(grant, None, self._ask, self._sleep, self.clock)

    def _ask(self, url: str, fields: Mapping[str, str]) -> Answer | HttpsFault:
        return self.post(url, fields)

    def _post(self, url: str, fields: Mapping[str, str]) -> Answer | HttpsFault:
        return post_form(url, fields, self.context, 5.0)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.clock.now += seconds

    def begin(self) -> DeviceCode:
        """Have a code."""
        code = self.login.begin()
        assert isinstance(code, DeviceCode), code
        return code


def test_microsoft(server: TokenServer) -> None:
    """The code is shown with its address; the endpoint is asked at its interval, slower when it says so."""
    person = Person(server)
    code = person.begin()
    assert (code.address, code.user_code) == ("https://microsoft.example/devicelogin", "ABCD-EFGH")
    assert "device-secret-code" not in repr(code)
    server.answers.extend([PENDING, (400, {"error": "slow_down"}), PENDING])
    assert person.login.wait(code) == server.refresh_token
    assert person.slept == [2, 2, 7, 7]
    assert server.requests[0] == (
        MICROSOFT_DEVICE_PATH,
        {"client_id": CLIENT_ID, "scope": "SMTP.Send offline_access"},
    )
    assert server.requests[-1][1] == {
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "client_id": CLIENT_ID,
        "device_code": "device-secret-code",
    }


def test_google(server: TokenServer) -> None:
    """Google says verification_url, and wants the client's secret with each question."""
    person = Person(server, "/device/code", secret="google-secret")
    code = person.begin()
    assert (code.address, code.user_code, code.interval) == ("https://www.google.example/device", "GQVQ-JKEC", 5)
    server.answers.append((428, {"error": "authorization_pending", "error_description": "Precondition Required"}))
    assert person.login.wait(code) == server.refresh_token
    assert server.requests[-1][1]["client_secret"] == "google-secret"


@pytest.mark.parametrize("error", ["access_denied", "expired_token", "authorization_declined", "invalid_client"])
def test_ways_to_end(server: TokenServer, error: str) -> None:
    """What is neither a token nor a reason to wait ends the flow, and is told by its code."""
    person = Person(server)
    code = person.begin()
    server.answers.extend([PENDING, (400, {"error": error, "error_description": "sent device-secret-code"})])
    fault = person.login.wait(code)
    assert isinstance(fault, TokenFault)
    assert fault.error == error
    assert "device-secret-code" not in fault.reason
    assert len(person.slept) == 2


def test_a_code_that_nobody_uses(server: TokenServer) -> None:
    """After the code's lifetime nobody is asked any more."""
    person = Person(server)
    code = person.begin()
    person.post = lambda url, fields: Answer(400, b'{"error": "authorization_pending"}')
    fault = person.login.wait(code)
    assert isinstance(fault, TokenFault)
    assert fault.error == "expired_token"
    assert 890 <= sum(person.slept) <= 910


def test_an_endpoint_that_is_away_for_a_moment(server: TokenServer) -> None:
    """Faults of the network and 5xx make the questions rarer, and end nothing (RFC 8628 3.5)."""
    person = Person(server)
    code = person.begin()
    faults = iter([HttpsFault("did not answer in time"), HttpsFault("refuses connections")])
    person.post = lambda url, fields: next(faults, None) or person._post(url, fields)
    server.answers.append((502, "<html>"))
    assert person.login.wait(code) == server.refresh_token
    assert person.slept == [2, 4, 8, 16]


def test_answers_that_are_of_no_use(server: TokenServer) -> None:
    """A code without an address, a refusal, and a token without a refresh token are faults."""
    person = Person(server)
    server.answers.append((200, {"device_code": "x", "user_code": "y"}))
    lacking = person.login.begin()
    server.answers.append((400, {"error": "invalid_scope", "error_description": "no"}))
    refused = person.login.begin()
    code = person.begin()
    server.answers.append((200, {"access_token": "only", "token_type": "Bearer"}))
    short = person.login.wait(code)
    assert isinstance(lacking, TokenFault) and "lacks device_code" in lacking.reason
    assert isinstance(refused, TokenFault) and refused.error == "invalid_scope"
    assert isinstance(short, TokenFault) and "offline_access" in short.reason
