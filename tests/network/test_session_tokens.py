"""Logging in by access token against a scripted peer: XOAUTH2, OAUTHBEARER, refusals, and a token that is stale."""

import ssl
import time
from base64 import b64encode

import pytest
from smtp_peer import smtp_peer

from smarthost.mail.outcome import Action, Scope, Stage
from smarthost.mail.route import Host, TlsLevel
from smarthost.network.oauth_answer import TokenFault
from smarthost.network.session import Credentials, OpenFault, Session, SessionSettings, Timeouts, open_session
from smarthost.policy.classify import NetFault, classify_fault

END = "-> QUIT\n== end\n"
JSON = b64encode(b'{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}').decode()


class Tokens:
    """Gives the tokens of a test, one after the other; a TokenFault is given as it is."""

    def __init__(self, *tokens: str | TokenFault) -> None:
        self.tokens = list(tokens)
        self.refused: list[str] = []

    async def token(self, refused: str = "") -> str | TokenFault:
        """Give the next one once the one before was refused."""
        if refused:
            self.refused.append(refused)
            self.tokens.pop(0)
        return self.tokens[0]


class NoContexts:
    """Where there is no TLS there are no contexts."""

    def for_level(self, level: TlsLevel, ca_file: str = "", client: tuple[str, str] = ("", "")) -> ssl.SSLContext:
        """Fail."""
        raise AssertionError


def greeting(mechanisms: str) -> str:
    """Begin a dialog with a peer that offers mechanisms."""
    return f"<- 220 peer\n-> EHLO relay.example\n<- 250-peer\n<- 250 AUTH {mechanisms}\n"


def xoauth2(token: str, username: str = "app@example.org") -> str:
    """Write the login as a client must send it."""
    return "-> AUTH XOAUTH2 " + b64encode(f"user={username}\1auth=Bearer {token}\1\1".encode()).decode() + "\n"


async def attempt(port: int, tokens: Tokens, username: str = "app@example.org", plain: bool = True) -> object:
    """Try to open a session."""
    credentials = Credentials(username, "", "xoauth2", tokens)
    settings = SessionSettings("relay.example", TlsLevel.NONE, credentials=credentials, allow_plaintext_auth=plain)
    host = Host("peer.example", ("127.0.0.1",), port)
    return await open_session(host, "127.0.0.1", settings, NoContexts(), Timeouts(), time.time)


@pytest.mark.parametrize("offer", ["XOAUTH2", "LOGIN XOAUTH2 OAUTHBEARER"])
async def test_xoauth2(offer: str) -> None:
    """The token goes with the AUTH command, however long it is; XOAUTH2 comes before OAUTHBEARER."""
    token = "t" * 2500
    async with smtp_peer(greeting(offer) + xoauth2(token) + "<- 235 2.7.0 ok\n" + END) as peer:
        session = await attempt(peer.port, Tokens(token))
        assert isinstance(session, Session), session
        session.abandon()


async def test_oauthbearer() -> None:
    """Where only OAUTHBEARER is offered it is used, with the name escaped, and the host and port that were meant."""
    async with smtp_peer("", complete=False) as peer:
        text = f"n,a=a=2Cb=3Dc@x.example,\1host=peer.example\1port={peer.port}\1auth=Bearer tok\1\1"
        line = "-> AUTH OAUTHBEARER " + b64encode(text.encode()).decode() + "\n"
        steps = greeting("PLAIN OAUTHBEARER") + line + "<- 235 ok\n" + END
        peer.dialogs[0] = steps.strip().splitlines()
        session = await attempt(peer.port, Tokens("tok"), "a,b=c@x.example")
        assert isinstance(session, Session), (session, peer.faults)
        session.abandon()


@pytest.mark.parametrize(("offer", "verb", "answer"), [("XOAUTH2", "XOAUTH2", ""), ("OAUTHBEARER",) * 2 + ("AQ==",)])
async def test_the_reason_of_a_refusal_is_answered(offer: str, verb: str, answer: str) -> None:
    """334 with JSON gets the line that the mechanism wants; the 535 behind it is what counts."""
    refused = f"-> AUTH {verb} *\n<- 334 {JSON}\n-> {answer}\n<- 535-5.7.8 not\n<- 535 5.7.8 accepted\n-> QUIT\n"
    tokens = Tokens("old", "new", "newer")
    async with smtp_peer(greeting(offer) + refused, greeting(offer) + refused) as peer:
        fault = await attempt(peer.port, tokens)
    assert isinstance(fault, OpenFault)
    assert (fault.stage, fault.fault) == (Stage.AUTH, None)
    assert fault.reply is not None and (fault.reply.code, str(fault.reply.status)) == (535, "5.7.8")
    assert tokens.refused == ["old"]


async def test_a_stale_token_is_fetched_anew_once() -> None:
    """After 535 a fresh token opens the session, over a new connection."""
    first = greeting("XOAUTH2") + xoauth2("old") + "<- 535 5.7.3 Authentication unsuccessful\n-> QUIT\n"
    second = greeting("XOAUTH2") + xoauth2("new") + "<- 235 ok\n" + END
    tokens = Tokens("old", "new")
    async with smtp_peer(first, second) as peer:
        session = await attempt(peer.port, tokens)
        assert isinstance(session, Session), session
        session.abandon()
    assert tokens.refused == ["old"]


@pytest.mark.parametrize("reply", ["454 4.7.0 Temporary authentication failure", "421 4.3.2 busy", "504 5.5.4 what"])
async def test_other_refusals_ask_for_no_token(reply: str) -> None:
    """Only 535 is about the token."""
    tokens = Tokens("old", "new")
    async with smtp_peer(greeting("XOAUTH2") + f"-> AUTH XOAUTH2 *\n<- {reply}\n", complete=False) as peer:
        fault = await attempt(peer.port, tokens)
    assert isinstance(fault, OpenFault) and str(fault.reply) == reply
    assert tokens.refused == []


async def test_no_token_no_connection() -> None:
    """Without a token the peer is not troubled; mail waits at AUTH as for a refused login."""
    async with smtp_peer() as peer:
        fault = await attempt(peer.port, Tokens(TokenFault("the token endpoint x is away")))
        assert isinstance(fault, OpenFault)
        assert (fault.stage, fault.fault, fault.reply) == (Stage.AUTH, NetFault.TOKEN_MISSING, None)
        assert fault.reason == "the token endpoint x is away, at AUTH"
        assert peer.reads == []
    verdict = classify_fault(fault.stage, NetFault.TOKEN_MISSING)
    assert (verdict.action, verdict.scope, verdict.pause) == (Action.DELAYED, Scope.SITE, 300.0)


async def test_no_fresh_token_after_a_refusal() -> None:
    """When the refused token cannot be replaced, both reasons are told."""
    dialog = greeting("XOAUTH2") + "-> AUTH XOAUTH2 *\n<- 535 5.7.8 no\n-> QUIT\n"
    async with smtp_peer(dialog) as peer:
        fault = await attempt(peer.port, Tokens("old", TokenFault("the endpoint is away")))
    assert isinstance(fault, OpenFault)
    assert fault.reason == "535 5.7.8 no, and the endpoint is away, at AUTH"


async def test_a_peer_that_repeats_the_command_shows_no_token() -> None:
    """What a peer repeats of our command is taken out of its reply."""
    encoded = b64encode(b"user=app@example.org\1auth=Bearer sesame\1\1").decode()
    dialog = greeting("XOAUTH2") + f"-> AUTH XOAUTH2 *\n<- 501 5.5.2 cannot read {encoded} with sesame in it\n"
    async with smtp_peer(dialog, complete=False) as peer:
        fault = await attempt(peer.port, Tokens("sesame"))
    assert isinstance(fault, OpenFault)
    assert fault.reason == "501 5.5.2 cannot read *** with *** in it"


async def test_neither_plain_text_nor_other_mechanisms_get_a_token() -> None:
    """No token goes over plain text, nor to a peer that offers passwords only."""
    dialog = greeting("XOAUTH2") + "-> QUIT\n"
    async with smtp_peer(dialog, dialog.replace("XOAUTH2", "PLAIN LOGIN")) as peer:
        plain = await attempt(peer.port, Tokens("t"), plain=False)
        other = await attempt(peer.port, Tokens("t"))
    assert isinstance(plain, OpenFault) and isinstance(other, OpenFault)
    assert plain.reason == "no login is sent over plain text, at AUTH"
    assert other.reason == "the host offers PLAIN LOGIN, we can use XOAUTH2 OAUTHBEARER, at AUTH"
