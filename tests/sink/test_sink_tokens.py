"""The sink's login by access token: what it takes, and how it refuses."""

import argparse
import smtplib
import subprocess
import sys
from base64 import b64decode, b64encode
from typing import Any

import pytest

from smarthost.cli import sink as command
from smarthost.cli.exits import CommandFailed
from smarthost.sink.login import Login


def respond(mechanism: str, text: str, *, name: str = "u@x.example") -> bytes | bool:
    """Give what the sink says to an initial response."""
    return Login(mechanism, name, "", {"good"}).respond(b64encode(text.encode()))


@pytest.mark.parametrize(
    ("mechanism", "text"),
    [
        ("XOAUTH2", "user=u@x.example\1auth=Bearer good\1\1"),
        ("OAUTHBEARER", "n,a=u@x.example,\1host=h\1port=25\1auth=Bearer good\1\1"),
        ("OAUTHBEARER", "n,a=u@x.example,\1auth=Bearer good\1\1"),
    ],
)
def test_what_is_taken(mechanism: str, text: str) -> None:
    """A whole response with the user's name and a token that is good is taken; anything less is not."""
    assert respond(mechanism, text) is True
    for wrong in (
        text[:-1],
        text.replace("good", "bad"),
        text.replace("u@", "v@"),
        text.replace("Bearer", "Basic"),
        "",
    ):
        assert respond(mechanism, wrong) is not True


def test_a_refusal_has_its_reason_first() -> None:
    """The reason is a challenge in JSON; whatever comes then, even a good token, is refused."""
    login = Login("XOAUTH2", "u", "", ("good",))
    assert login.respond(None) == b""
    challenge = login.respond(b64encode(b"user=u\1auth=Bearer bad\1\1"))
    assert isinstance(challenge, bytes) and b'"status":"401"' in b64decode(challenge)
    assert login.respond(b64encode(b"user=u\1auth=Bearer good\1\1")) is False


def test_names_with_commas_are_escaped() -> None:
    """RFC 5801 4: comma and equals sign of a name are written =2C and =3D."""
    assert respond("OAUTHBEARER", "n,a=a=2Cb=3Dc,\1auth=Bearer good\1\1", name="a,b=c") is True


def chosen(*words: str) -> Any:
    """Read the command's arguments."""
    parser = argparse.ArgumentParser()
    command.configure(parser)
    return parser.parse_args(words)


def test_the_command_demands_a_token() -> None:
    """smarthost sink --token offers both mechanisms, and takes no mail without a login."""
    settings = command._settings(chosen("--token", "u:a:b", "--listen", "127.0.0.1:0"))
    assert (settings.username, tuple(settings.tokens)) == ("u", ("a:b",))
    assert settings.mechanisms == ("XOAUTH2", "OAUTHBEARER") and settings.require_auth
    assert "a:b" not in repr(settings)
    for words in (("--token", "u"), ("--token", "u:t", "--login", "u:p"), ("--login", "u")):
        with pytest.raises(CommandFailed):
            command._settings(chosen(*words))


def test_the_process_demands_a_token() -> None:
    """A client that knows XOAUTH2 logs in at the process; mail before that is refused 530."""

    with subprocess.Popen(
        [sys.executable, "-m", "smarthost", "sink", "--listen", "127.0.0.1:0", "--token", "u:t"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            host, port = process.stdout.readline().split()[-1].rsplit(":", 1)
            with smtplib.SMTP(host, int(port), timeout=10) as client:
                client.ehlo()
                assert client.esmtp_features["auth"].split() == ["XOAUTH2", "OAUTHBEARER"]
                assert client.mail("a@b.example")[0] == 530
                with pytest.raises(smtplib.SMTPAuthenticationError):
                    client.auth("XOAUTH2", lambda challenge=None: "user=u\1auth=Bearer x\1\1" if not challenge else "")
                assert client.auth("XOAUTH2", lambda challenge=None: "user=u\1auth=Bearer t\1\1")[0] == 235
                assert client.mail("a@b.example")[0] == 250
        finally:
            process.terminate()
