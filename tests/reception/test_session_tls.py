"""TLS at the door: STARTTLS and its injection, implicit TLS, handshakes that hang, certificates that change."""

import asyncio
import socket
import ssl

import pytest
from doorstep import doorstep, issue, on_both_loops, write_certificate

from smarthost.crypto.tls import ServerTls
from smarthost.policy.admission import Tls

ENVELOPE = ("MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>", "DATA")


@on_both_loops
async def test_starttls_forgets_what_was_said_in_the_clear(tmp_path):
    """Greeting, login and transaction are gone; content of any size comes in under TLS."""
    async with doorstep(tmp_path) as step:
        client = await step.greeted()
        await client.say("AUTH PLAIN AGFkYQBjb3JyZWN0IGhvcnNl", ENVELOPE[0])
        await client.starttls(step.trust)
        assert (await client.say(ENVELOPE[0])).startswith("503 5.5.1 Send EHLO")
        assert "STARTTLS" not in await client.say("EHLO x")
        assert (await client.say("STARTTLS")).startswith("503")
        await client.say(*ENVELOPE)
        await client.send((b"x" * 70 + b"\r\n") * 20_000 + b".\r\n")
        assert (await client.reply()).startswith("250")
        (draft,) = step.intake.accepted
        assert len(draft.content) == 72 * 20_000
        assert draft.arrival.identity == ""
        assert draft.arrival.tls.split()[0] in ("TLSv1.2", "TLSv1.3")
        assert step.door.parts.counters.tls_sessions[("in", "TLSv1.3")] == 1
        assert (await client.say("QUIT")).startswith("221")


async def test_requiretls_is_offered_within_tls_only(tmp_path):
    """RFC 8689 3: outside TLS the parameter is not known, also to who has heard the same line within TLS."""
    async with doorstep(tmp_path) as step:
        client = await step.greeted()
        assert "REQUIRETLS" not in await client.say("EHLO x")
        await client.starttls(step.trust)
        assert "250-REQUIRETLS" in await client.say("EHLO x")
        line = f"{ENVELOPE[0]} REQUIRETLS"
        assert (await client.say(line)).startswith("250")
        await client.say(*ENVELOPE[1:])
        await client.send(b"Subject: x\r\n\r\nhi\r\n.\r\n")
        assert (await client.reply()).startswith("250")
        [draft] = step.intake.accepted
        assert draft.envelope.requiretls
        plain = await step.greeted()
        assert (await plain.say(line)).startswith("555 5.5.4")
        assert (await plain.say(ENVELOPE[0])).startswith("250")


@on_both_loops
async def test_commands_injected_behind_starttls_close_the_session(tmp_path):
    """What stands behind STARTTLS in the clear is never taken as said under TLS (CVE-2011-0411)."""
    async with doorstep(tmp_path) as step:
        client = await step.greeted()
        await client.send(b"STARTTLS\r\nRSET\r\n")
        assert (await client.rest()).startswith(b"554 5.5.1")


@on_both_loops
async def test_commands_that_follow_in_the_clear_break_the_handshake(tmp_path):
    """Sent a moment later they are no handshake: the session ends, nothing is done."""
    async with doorstep(tmp_path) as step:
        client = await step.greeted()
        assert (await client.say("STARTTLS")).startswith("220")
        await client.send(b"EHLO x\r\nMAIL FROM:<a@x.example>\r\n")
        answer = await client.rest()
        assert b"250" not in answer
        await step.until(lambda: not step.door.sessions)


@on_both_loops
async def test_commands_heard_with_starttls_in_one_round_are_not_kept(tmp_path):
    """Octets of a second reading that come to their turn together with STARTTLS cut the session off."""
    async with doorstep(tmp_path) as step:
        client = await step.greeted()
        (session,) = step.door.sessions
        session.data_received(b"STARTTLS\r\n")
        session.data_received(b"MAIL FROM:<a@x.example>\r\n")
        assert b"250" not in await client.rest()
        await step.until(lambda: not step.door.sessions)
        assert session.dialogue.mail is None


@on_both_loops
async def test_starttls_where_there_is_none(tmp_path):
    """A listener without TLS says so."""
    async with doorstep(tmp_path, tls=Tls.NONE) as step:
        assert (await (await step.greeted()).say("STARTTLS")).startswith("502")


@on_both_loops
async def test_implicit_tls_is_served_and_counted_from_the_start(tmp_path):
    """A whole session under TLS on connect; one that only connects counts as a connection too."""
    async with doorstep(tmp_path, tls=Tls.IMPLICIT, trusted=(), max_connections_per_ip=2) as step:
        client = await step.connect(ssl=step.trust, server_hostname="localhost")
        await client.say("EHLO x", "AUTH PLAIN AGFkYQBjb3JyZWN0IGhvcnNl", *ENVELOPE)
        assert (await client.say(".")).startswith("250")
        assert step.intake.accepted[0].arrival.protocol == "ESMTPSA"
        await step.connect(greeting=False)
        await step.until(lambda: len(step.door.sessions) == 2)
        third = await step.connect(greeting=False)
        assert await third.rest() == b""
        assert len(step.door.sessions) == 2


@pytest.mark.parametrize("tls", [Tls.IMPLICIT, Tls.STARTTLS])
@on_both_loops
async def test_a_handshake_that_hangs_is_given_up(tmp_path, tls):
    """After the handshake's timeout the connection is closed and forgotten."""
    async with doorstep(tmp_path, tls=tls, terms={"handshake_timeout": 0.1}) as step:
        client = await step.connect(greeting=tls is not Tls.IMPLICIT)
        if tls is Tls.STARTTLS:
            await client.say("EHLO x", "STARTTLS")
        await step.until(lambda: len(step.door.sessions) == 1)
        try:
            assert await client.rest() == b""
        except ConnectionResetError:
            pass
        await step.until(lambda: not step.door.sessions)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x00\x05nope!", b""])
@on_both_loops
async def test_a_handshake_that_fails_is_forgotten(tmp_path, said):
    """Whatever a client sends instead of a handshake, or nothing before it closes, no session stays."""
    async with doorstep(tmp_path, tls=Tls.IMPLICIT) as step:
        client = await step.connect(greeting=False)
        await step.until(lambda: len(step.door.sessions) == 1)
        if said:
            await client.send(said)
        client.writer.close()
        await step.until(lambda: not step.door.sessions)
        assert step.door._crowds == {}
        good = await step.connect(ssl=step.trust, server_hostname="localhost")
        assert (await good.say("NOOP")).startswith("250")


@on_both_loops
async def test_a_certificate_is_replaced_without_dropping_sessions(tmp_path):
    """After a reload new handshakes show the new certificate; an open session goes on with the old."""
    certificate, key = write_certificate(tmp_path, issue())
    served = ServerTls(certificate, key)
    async with doorstep(tmp_path, parts={"tls": served}) as step:
        old = await step.greeted()
        await old.starttls(step.trust)
        first = old.writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]
        write_certificate(tmp_path, issue())
        assert served.reload_if_changed() is True
        new = await step.greeted()
        await new.starttls(step.trust)
        second = new.writer.get_extra_info("ssl_object").getpeercert()["serialNumber"]
        assert first != second
        assert (await old.say("EHLO x")).startswith("250")
        assert (await new.say("EHLO x")).startswith("250")


@on_both_loops
async def test_a_client_that_closes_under_tls_during_the_commit_does_not_undo_it(tmp_path):
    """TLS knows no half-close: the reply is lost, the message is not."""
    async with doorstep(tmp_path) as step:
        step.intake.delay = None
        client = await step.greeted()
        await client.starttls(step.trust)
        await client.say("EHLO x", *ENVELOPE)
        await client.send(b"x\r\n.\r\n")
        client.writer.close()
        await step.until(lambda: not step.door.sessions)
        step.intake.drafts[0].finish()
        assert step.door.commits == 0


async def test_tls_1_1_is_refused(tmp_path):
    """A client that can do no better than TLS 1.1 gets no session (RFC 8996)."""
    async with doorstep(tmp_path, tls=Tls.IMPLICIT) as step:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning):
            context.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await step.connect(ssl=context)


async def test_a_handshake_in_small_pieces_works(tmp_path):
    """The client's octets may come one by one."""
    async with doorstep(tmp_path, tls=Tls.IMPLICIT) as step:

        def talk():
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tunnel = step.trust.wrap_bio(incoming, outgoing, server_hostname="localhost")
            with socket.create_connection(("127.0.0.1", step.port), timeout=5) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                while True:
                    try:
                        tunnel.do_handshake()
                        break
                    except ssl.SSLWantReadError:
                        for octet in outgoing.read():
                            connection.sendall(bytes([octet]))
                        incoming.write(connection.recv(65536))
                connection.sendall(outgoing.read())
                while True:
                    try:
                        return tunnel.read()
                    except ssl.SSLWantReadError:
                        incoming.write(connection.recv(65536))

        greeting = await asyncio.get_running_loop().run_in_executor(None, talk)
        assert greeting.startswith(b"220 relay.example")
