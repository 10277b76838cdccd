"""Opening a session against a scripted peer: greeting, EHLO, STARTTLS by level, AUTH, and each way to fail."""

import asyncio
import base64
import hashlib
import hmac
import socket
import ssl
import time

import aiosmtplib
import pytest
import trustme
from smtp_peer import smtp_peer, wait_for

from smarthost.mail.outcome import Stage
from smarthost.mail.route import Host, TlsLevel
from smarthost.network import session as session_module
from smarthost.network.session import Credentials, OpenFault, Session, SessionSettings, Timeouts, open_session
from smarthost.policy.classify import NetFault

GREETED = """
<- 220 peer ESMTP
-> EHLO relay.example
<- 250-peer
<- 250 PIPELINING
"""
OFFERED = """
<- 220 peer ESMTP
-> EHLO relay.example
<- 250-peer
<- 250 STARTTLS
-> STARTTLS
"""
SECURED = (
    OFFERED
    + """
<- 220 go
== tls
-> EHLO relay.example
<- 250-peer
<- 250-SIZE 1000
<- 250 AUTH PLAIN LOGIN CRAM-MD5
"""
)
END = "-> QUIT\n== end\n"


class Contexts:
    """Client contexts that trust a test's authority."""

    def __init__(self, authority: trustme.CA | None = None) -> None:
        """Take the authority; None trusts nobody."""
        self.authority = authority

    def for_level(self, level: TlsLevel, ca_file: str = "", client: tuple[str, str] = ("", "")) -> ssl.SSLContext:
        """Give a context."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if level is not TlsLevel.VERIFY:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        elif ca_file:
            raise ValueError(f"{ca_file}: no such file")
        elif self.authority is not None:
            self.authority.configure_trust(context)
        return context


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Give an authority."""
    return trustme.CA()


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    """Make what a peer shows."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


async def attempt(
    port: int,
    tls: TlsLevel = TlsLevel.NONE,
    *,
    name: str = "peer.example",
    authority: trustme.CA | None = None,
    timeouts: Timeouts | None = None,
    implicit_tls: bool = False,
    **settings: object,
) -> Session | OpenFault:
    """Try to open a session to 127.0.0.1."""
    host = Host(name, ("127.0.0.1",), port, implicit_tls)
    wanted = SessionSettings("relay.example", tls, **settings)  # type: ignore[arg-type]
    return await open_session(host, "127.0.0.1", wanted, Contexts(authority), timeouts or Timeouts(), time.time)


async def test_plain_session() -> None:
    """A session knows the peer's extensions, when it was opened and how long that took."""
    async with smtp_peer(GREETED + END) as peer:
        session = await attempt(peer.port)
        assert isinstance(session, Session)
        assert session.extensions.pipelining
        assert (session.tls, session.carried, session.address) == ("", 0, "127.0.0.1")
        assert 0 < session.opening < 5
        assert abs(session.opened_at - time.time()) < 5
        session.abandon()
        session.abandon()


async def test_helo_where_ehlo_is_not_known() -> None:
    """A peer that refuses EHLO for good gets HELO, and has no extensions."""
    dialog = "<- 220 old\n-> EHLO *\n<- 502 what?\n-> HELO relay.example\n<- 250 hi\n" + END
    async with smtp_peer(dialog) as peer:
        session = await attempt(peer.port)
        assert isinstance(session, Session)
        assert not session.extensions.pipelining
        session.abandon()


@pytest.mark.parametrize("level", [TlsLevel.MAY, TlsLevel.ENCRYPT, TlsLevel.VERIFY])
async def test_starttls(level: TlsLevel, authority: trustme.CA) -> None:
    """TLS is started where it is offered; what was said before it is forgotten."""
    async with smtp_peer(SECURED + END, context=server_context(authority, "peer.example")) as peer:
        session = await attempt(peer.port, level, authority=authority)
        assert isinstance(session, Session), session
        assert session.tls.startswith("TLSv1.3 TLS_")
        assert session.extensions.size == 1000
        assert not session.extensions.starttls
        session.abandon()


async def test_tls_on_connect(authority: trustme.CA) -> None:
    """With TLS on connect there is no STARTTLS."""
    context = server_context(authority, "peer.example")
    async with smtp_peer(GREETED + END, context=context, implicit_tls=True) as peer:
        session = await attempt(peer.port, TlsLevel.VERIFY, authority=authority, implicit_tls=True)
        assert isinstance(session, Session), session
        assert session.tls
        session.abandon()


async def test_verify_takes_the_address_of_a_host_without_a_name(authority: trustme.CA) -> None:
    """For a next hop that is an IP address the certificate must hold that address."""
    async with smtp_peer(SECURED + END, context=server_context(authority, "127.0.0.1")) as peer:
        session = await attempt(peer.port, TlsLevel.VERIFY, name="127.0.0.1", authority=authority)
        assert isinstance(session, Session), session
        session.abandon()


@pytest.mark.parametrize("implicit_tls", [False, True])
@pytest.mark.parametrize("wrong", ["name", "authority"])
async def test_verify_refuses_a_wrong_certificate(authority: trustme.CA, wrong: str, implicit_tls: bool) -> None:
    """With verify a certificate of another name, or of nobody we trust, is a fault and nothing goes in plain text."""
    context = server_context(authority if wrong == "name" else trustme.CA(), "other.example")
    name = "peer.example" if wrong == "name" else "other.example"
    dialog = "== end" if implicit_tls else OFFERED + "<- 220 go\n== tls\n"
    async with smtp_peer(dialog, context=context, implicit_tls=implicit_tls, complete=False) as peer:
        fault = await attempt(peer.port, TlsLevel.VERIFY, name=name, authority=authority, implicit_tls=implicit_tls)
    assert isinstance(fault, OpenFault)
    assert (fault.stage, fault.fault, fault.reply) == (Stage.STARTTLS, NetFault.CERTIFICATE, None)
    assert "certificate" in fault.reason


async def test_encrypt_takes_any_certificate(authority: trustme.CA) -> None:
    """With encrypt the certificate proves nothing and need not."""
    async with smtp_peer(SECURED + END, context=server_context(trustme.CA(), "other.example")) as peer:
        session = await attempt(peer.port, TlsLevel.ENCRYPT, authority=authority)
        assert isinstance(session, Session), session
        session.abandon()


async def test_a_broken_handshake_is_followed_by_plain_text_for_may() -> None:
    """With may a handshake that fails leads to one more connection, in plain text."""
    async with smtp_peer(
        OFFERED + "<- 220 go\n== stall 30\n<- no TLS here\n== stall 30\n", GREETED + END, complete=False
    ) as peer:
        session = await attempt(peer.port, TlsLevel.MAY)
        assert isinstance(session, Session), session
        assert session.tls == ""
        session.abandon()
        await wait_for(lambda: len(peer.reads) == 2)


@pytest.mark.parametrize("level", [TlsLevel.ENCRYPT, TlsLevel.VERIFY])
async def test_a_broken_handshake_is_a_fault_where_tls_is_required(level: TlsLevel) -> None:
    """With encrypt and verify there is no second connection."""
    async with smtp_peer(OFFERED + "<- 220 go\n== stall 30\n<- no TLS here\n== stall 30\n", complete=False) as peer:
        fault = await attempt(peer.port, level)
        assert len(peer.reads) == 1
    assert isinstance(fault, OpenFault)
    assert (fault.stage, fault.fault) == (Stage.STARTTLS, NetFault.TLS_FAILED)


async def test_refused_starttls() -> None:
    """454 to STARTTLS: may goes on in the same session, encrypt gives up with the reply."""
    refused = OFFERED + "<- 454 4.7.0 TLS not available\n"
    async with smtp_peer(refused + END, refused + END) as peer:
        session = await attempt(peer.port, TlsLevel.MAY)
        assert isinstance(session, Session), session
        assert session.tls == ""
        session.abandon()
        fault = await attempt(peer.port, TlsLevel.ENCRYPT)
        assert isinstance(fault, OpenFault)
        assert (fault.stage, fault.fault, str(fault.reply)) == (
            Stage.STARTTLS,
            None,
            "454 4.7.0 TLS not available",
        )


async def test_starttls_that_is_not_offered() -> None:
    """Without STARTTLS may is content with plain text; encrypt and verify are not."""
    async with smtp_peer(GREETED + END, GREETED + END, GREETED + END) as peer:
        session = await attempt(peer.port, TlsLevel.MAY)
        assert isinstance(session, Session)
        session.abandon()
        for level in (TlsLevel.ENCRYPT, TlsLevel.VERIFY):
            fault = await attempt(peer.port, level)
            assert isinstance(fault, OpenFault)
            assert (fault.stage, fault.fault) == (Stage.STARTTLS, NetFault.TLS_MISSING)


async def test_trust_anchor_that_cannot_be_read() -> None:
    """A ca_file that is gone is a fault of the handshake, not an exception."""
    async with smtp_peer(complete=False) as peer:
        fault = await attempt(peer.port, TlsLevel.VERIFY, ca_file="/nowhere")
    assert isinstance(fault, OpenFault)
    assert (fault.fault, "/nowhere" in fault.reason) == (NetFault.TLS_FAILED, True)


async def test_text_injected_before_tls_is_dropped(authority: trustme.CA) -> None:
    """What comes in plain text behind the 220 of STARTTLS is never read as said under TLS (RFC 3207 6)."""
    injected = SECURED.replace("<- 220 go", "<~ b'220 go\\r\\n250-evil\\r\\n250 DSN\\r\\n'")
    async with smtp_peer(injected + END, context=server_context(authority, "peer.example"), complete=False) as peer:
        opened = await attempt(peer.port, TlsLevel.ENCRYPT)
        assert isinstance(opened, OpenFault) or not opened.extensions.dsn
        if isinstance(opened, Session):
            opened.abandon()


def b64(text: bytes) -> str:
    """Encode for a dialog."""
    return base64.b64encode(text).decode()


LOGIN = Credentials("user", "pass wörd")
PLAIN = b64("\0user\0pass wörd".encode())


async def test_login_by_plain(authority: trustme.CA) -> None:
    """Under TLS PLAIN is used first."""
    dialog = SECURED + f"-> AUTH PLAIN {PLAIN}\n<- 235 2.7.0 welcome\n" + END
    async with smtp_peer(dialog, context=server_context(authority, "peer.example")) as peer:
        session = await attempt(peer.port, TlsLevel.VERIFY, authority=authority, credentials=LOGIN)
        assert isinstance(session, Session), session
        session.abandon()


async def test_login_by_login() -> None:
    """LOGIN is used where it is all that is offered."""
    greeted = GREETED.replace("250 PIPELINING", "250 AUTH=LOGIN")
    dialog = f"-> AUTH LOGIN {b64(b'user')}\n<- 334 UGFzc3dvcmQ6\n-> {b64('pass wörd'.encode())}\n<- 235 ok\n"
    async with smtp_peer(greeted + dialog + END) as peer:
        session = await attempt(peer.port, credentials=LOGIN, allow_plaintext_auth=True)
        assert isinstance(session, Session), session
        session.abandon()


async def test_login_by_cram_md5() -> None:
    """Without TLS CRAM-MD5, which hides the password, is preferred."""
    greeted = GREETED.replace("250 PIPELINING", "250 AUTH PLAIN CRAM-MD5")
    digest = hmac.new("pass wörd".encode(), b"<1@peer>", hashlib.md5).hexdigest()
    dialog = f"-> AUTH CRAM-MD5\n<- 334 {b64(b'<1@peer>')}\n-> {b64(f'user {digest}'.encode())}\n<- 235 ok\n"
    async with smtp_peer(greeted + dialog + END) as peer:
        session = await attempt(peer.port, credentials=LOGIN, allow_plaintext_auth=True)
        assert isinstance(session, Session), session
        session.abandon()


async def test_wrong_password_is_tried_once(authority: trustme.CA) -> None:
    """After 535 no other mechanism is tried: that would only lock the account."""
    dialog = SECURED + f"-> AUTH PLAIN {PLAIN}\n<- 535 5.7.8 wrong\n" + END
    async with smtp_peer(dialog, context=server_context(authority, "peer.example")) as peer:
        fault = await attempt(peer.port, TlsLevel.VERIFY, authority=authority, credentials=LOGIN)
    assert isinstance(fault, OpenFault)
    assert (fault.stage, fault.fault, str(fault.reply)) == (Stage.AUTH, None, "535 5.7.8 wrong")


async def test_next_mechanism_where_one_is_not_known() -> None:
    """504 speaks of the mechanism, not of the password: the next one is tried."""
    greeted = GREETED.replace("250 PIPELINING", "250 AUTH PLAIN LOGIN")
    dialog = f"""
    -> AUTH PLAIN {PLAIN}
    <- 504 5.5.4 not that one
    -> AUTH LOGIN {b64(b"user")}
    <- 334 UGFzc3dvcmQ6
    -> {b64("pass wörd".encode())}
    <- 235 ok
    """
    async with smtp_peer(greeted + dialog + END) as peer:
        session = await attempt(peer.port, credentials=LOGIN, allow_plaintext_auth=True)
        assert isinstance(session, Session), session
        session.abandon()


async def test_no_login_over_plain_text() -> None:
    """Without TLS no login is sent, unless it is allowed: not even to a peer that lost its STARTTLS."""
    greeted = GREETED.replace("250 PIPELINING", "250 AUTH PLAIN")
    async with smtp_peer(greeted + END) as peer:
        fault = await attempt(peer.port, TlsLevel.MAY, credentials=LOGIN)
    assert isinstance(fault, OpenFault)
    assert (fault.stage, fault.fault) == (Stage.AUTH, NetFault.AUTH_MISSING)
    assert "plain text" in fault.reason


@pytest.mark.parametrize("mechanism", ["", "XOAUTH2", "cram-md5"])
async def test_no_mechanism_in_common(mechanism: str) -> None:
    """A peer that offers nothing that we can, or may, use is a fault that says what it offers."""
    greeted = GREETED.replace("250 PIPELINING", "250 AUTH GSSAPI")
    async with smtp_peer(greeted + END) as peer:
        login = Credentials("user", "secret", mechanism)
        fault = await attempt(peer.port, credentials=login, allow_plaintext_auth=True)
    assert isinstance(fault, OpenFault)
    assert fault.fault is NetFault.AUTH_MISSING
    assert "GSSAPI" in fault.reason


def test_a_password_is_never_shown() -> None:
    """The text form of credentials and settings is without the password."""
    settings = SessionSettings("relay.example", credentials=Credentials("user", "secret"))
    assert "secret" not in repr(settings)
    assert "secret" not in str(settings.credentials)


REFUSALS = {
    "<- 554 5.7.1 go away": (Stage.GREETING, "554 5.7.1 go away"),
    "<- 421 4.7.0 busy\n== close": (Stage.GREETING, "421 4.7.0 busy"),
    "<- 450-4.7.0 slow\n<- 450 4.7.0 down": (Stage.GREETING, "450 4.7.0 slow down"),
    "<- 220 hi\n-> EHLO *\n<- 451 4.3.0 later": (Stage.EHLO, "451 4.3.0 later"),
    "<- 220 hi\n-> EHLO *\n<- 421 4.3.2 bye\n== close": (Stage.EHLO, "421 4.3.2 bye"),
    "<- 220 hi\n-> EHLO *\n<- 500 what\n-> HELO *\n<- 550 no": (Stage.EHLO, "550 5.0.0 no"),
}


@pytest.mark.parametrize("dialog", REFUSALS)
async def test_refusals(dialog: str) -> None:
    """What a peer says before the session stands comes back as its reply, with the stage."""
    stage, reply = REFUSALS[dialog]
    async with smtp_peer(dialog) as peer:
        fault = await attempt(peer.port)
    assert isinstance(fault, OpenFault)
    assert (fault.stage, fault.fault, str(fault.reply), fault.reason) == (stage, None, reply, reply)


FAULTS = {
    "== close": (Stage.GREETING, NetFault.CLOSED),
    "== reset": (Stage.GREETING, NetFault.RESET),
    "== hang": (Stage.GREETING, NetFault.TIMEOUT),
    "<- HTTP/1.1 400 Bad Request": (Stage.GREETING, NetFault.PROTOCOL_ERROR),
    f"<- 220 {'x' * 100_000}": (Stage.GREETING, NetFault.PROTOCOL_ERROR),
    "<- 220 hi\n-> EHLO *\n== close": (Stage.EHLO, NetFault.CLOSED),
    "<- 220 hi\n-> EHLO *\n== hang": (Stage.EHLO, NetFault.TIMEOUT),
    "<- 220 hi\n-> EHLO *\n<- garbage": (Stage.EHLO, NetFault.PROTOCOL_ERROR),
}


@pytest.mark.parametrize("dialog", FAULTS)
async def test_faults(dialog: str) -> None:
    """What goes wrong without a reply is a fault with the stage and a sentence."""
    stage, wanted = FAULTS[dialog]
    timeouts = Timeouts(connect=1.0, greeting=0.2, ehlo=0.2)
    async with smtp_peer(dialog, complete=False) as peer:
        fault = await attempt(peer.port, timeouts=timeouts)
    assert isinstance(fault, OpenFault)
    assert (fault.stage, fault.reply) == (stage, None)
    assert fault.fault is wanted or (wanted is NetFault.CLOSED and fault.fault is NetFault.RESET), fault
    assert fault.reason


async def test_a_peer_that_goes_behind_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that is lost between the reply to EHLO and the session is a fault, and no exception."""
    greet = session_module._Opening._greet

    async def greet_and_lose(self: session_module._Opening, client: aiosmtplib.SMTP) -> None:
        await greet(self, client)
        client.close()

    monkeypatch.setattr(session_module._Opening, "_greet", greet_and_lose)
    async with smtp_peer(GREETED, complete=False) as peer:
        fault = await attempt(peer.port)
    assert isinstance(fault, OpenFault)
    assert (fault.stage, fault.fault) == (Stage.EHLO, NetFault.CLOSED)


async def test_nobody_listens() -> None:
    """A closed port is a refused connection."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        fault = await attempt(held.getsockname()[1])
    assert isinstance(fault, OpenFault)
    assert (fault.stage, fault.fault) == (Stage.CONNECT, NetFault.REFUSED)
    assert fault.reason == "connection refused, while connecting"


async def test_nobody_answers() -> None:
    """An address that does not answer costs the connect time-out."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    held = [socket.socket() for _ in range(3)]
    for one in held:
        one.setblocking(False)
        one.connect_ex(listener.getsockname())
    try:
        fault = await attempt(listener.getsockname()[1], timeouts=Timeouts(connect=0.2))
    finally:
        for one in (*held, listener):
            one.close()
    assert isinstance(fault, OpenFault)
    assert (fault.stage, fault.fault) == (Stage.CONNECT, NetFault.TIMEOUT)


async def test_source_address() -> None:
    """The connection comes from the address that the route names; one that is not ours is a fault."""
    async with smtp_peer(GREETED + END) as peer:
        session = await attempt(peer.port, source_address="127.0.0.2")
        assert isinstance(session, Session), session
        assert session.transport.get_extra_info("sockname")[0] == "127.0.0.2"
        session.abandon()
        fault = await attempt(peer.port, source_address="192.0.2.1")
    assert isinstance(fault, OpenFault)
    assert (fault.stage, fault.fault) == (Stage.CONNECT, NetFault.SOURCE_UNUSABLE)
    assert fault.reason.startswith("source_address 192.0.2.1 cannot be used: ")


async def test_what_comes_between_is_handed_over() -> None:
    """What the peer says, and that it closes, between opening and hand-over is not lost."""

    class Notes(asyncio.Protocol):
        """Notes the end."""

        is_closed = False

        def connection_lost(self, exc: Exception | None) -> None:
            self.is_closed = True

    async with smtp_peer(GREETED + "<- 421 4.3.2 bye\n== close\n") as peer:
        session = await attempt(peer.port)
        assert isinstance(session, Session)
        await wait_for(session.transport.is_closing)
        notes = Notes()
        early, is_closed = session.hand_over(notes)
        await wait_for(lambda: is_closed or notes.is_closed)
    # What comes in the same segment as the reply to EHLO is the library's to drop.
    assert early in (b"421 4.3.2 bye\r\n", b"")
