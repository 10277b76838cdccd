"""What is said at the door, command by command, over real sockets on both event loops."""

import asyncio
from datetime import datetime

import pytest
from doorstep import ADA, HASH, doorstep, on_both_loops

from smarthost.mail.envelope import Body, Notify, Priority, Ret
from smarthost.mail.event import Kind
from smarthost.mail.outcome import Stage
from smarthost.mail.reply import make_reply
from smarthost.policy.admission import Auth, Tls, User

PLAIN = "AUTH PLAIN AGFkYQBjb3JyZWN0IGhvcnNl"


@on_both_loops
async def test_a_message_comes_in_with_everything_that_was_said(tmp_path):
    """Envelope, arrival and content reach the intake as the client gave them."""
    async with doorstep(tmp_path) as step:
        client = await step.greeted()
        mail = "MAIL FROM:<Ada@Example.ORG> SIZE=100 BODY=8BITMIME RET=HDRS ENVID=QQ+2B314 AUTH=<>"
        assert (await client.say(mail)).startswith("250 2.1.0 ")
        rcpt = "RCPT TO:<Bob@Example.NET> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob+40there@example.net"
        assert (await client.say(rcpt)).startswith("250 2.1.5 ")
        assert (await client.say("RCPT TO:<carol@example.com>")).startswith("250 ")
        assert (await client.say("DATA")).startswith("354 ")
        assert await client.say("Subject: x\r\n\r\n..dot\r\n.") == "250 2.0.0 queued as TEST\r\n"
        (draft,) = step.intake.accepted
        assert draft.content == b"Subject: x\r\n\r\n.dot\r\n"
        envelope, arrival = draft.envelope, draft.arrival
        assert (envelope.reverse_path, envelope.ret, envelope.envid) == ("Ada@Example.ORG", Ret.HDRS, "QQ+314")
        assert envelope.body is Body.EIGHT_BIT_MIME
        bob, carol = envelope.recipients
        assert (bob.address, bob.domain) == ("Bob@Example.NET", "example.net")
        assert (bob.notify, bob.orcpt) == (Notify.SUCCESS | Notify.DELAY, "rfc822;Bob@there@example.net")
        assert (carol.notify, carol.orcpt) == (0, "")
        assert (arrival.client, arrival.ehlo, arrival.protocol) == ("127.0.0.1", "client.example", "ESMTP")
        assert arrival.at == step.now[0]
        assert sum(step.door.parts.counters.accept_seconds.counts) == 1
        assert await client.say("QUIT") == "221 2.0.0 Bye\r\n"
        assert await client.rest() == b""


@on_both_loops
async def test_the_greeting_offers_what_we_can_do(tmp_path):
    """A trusted peer in the clear is offered STARTTLS and AUTH; every keyword of the contract is there."""
    async with doorstep(tmp_path, max_message_size=12345) as step:
        client = await step.connect()
        lines = (await client.say("EHLO client.example")).splitlines()
        assert lines[0] == "250-relay.example"
        offered = {line[4:] for line in lines[1:]}
        (hold,) = [line for line in offered if line.startswith("FUTURERELEASE")]
        wanted = "PIPELINING,SIZE 12345,8BITMIME,SMTPUTF8,ENHANCEDSTATUSCODES,DSN,STARTTLS,AUTH PLAIN LOGIN,HELP"
        assert offered == {*wanted.split(","), "MT-PRIORITY", hold}
        interval, until = hold.split()[1:]
        assert int(interval) == 366 * 86400
        ahead = datetime.fromisoformat(until).timestamp() - step.door.parts.clock() - int(interval)
        assert -86400 <= ahead <= 0
        assert await client.say("HELO client.example") == "250 relay.example\r\n"


@pytest.mark.parametrize(
    ("auth", "trusted", "plaintext", "tls", "offered"),
    [
        (Auth.OPTIONAL, True, False, Tls.STARTTLS, True),
        (Auth.OPTIONAL, False, False, Tls.STARTTLS, False),
        (Auth.OPTIONAL, False, True, Tls.NONE, True),
        (Auth.REQUIRED, True, False, Tls.NONE, True),
        (Auth.NONE, True, True, Tls.STARTTLS, False),
    ],
)
async def test_auth_is_offered_in_the_clear_only_where_it_may_be(tmp_path, auth, trusted, plaintext, tls, offered):
    """AUTH in the clear is for trusted peers and by configuration; never where auth = none."""
    networks = ("127.0.0.0/8",) if trusted else ()
    async with doorstep(tmp_path, auth=auth, trusted=networks, allow_plaintext_auth=plaintext, tls=tls) as step:
        reply = await (await step.connect()).say("EHLO x")
        assert ("AUTH" in reply) is offered
        assert ("STARTTLS" in reply) is (tls is Tls.STARTTLS)


@pytest.mark.parametrize(
    ("auth", "trusted", "tls", "refusal"),
    [
        (Auth.OPTIONAL, False, Tls.STARTTLS, "530 5.7.0 Must issue a STARTTLS"),
        (Auth.OPTIONAL, False, Tls.NONE, "554 5.7.1"),
        (Auth.NONE, False, Tls.STARTTLS, "554 5.7.1"),
        (Auth.REQUIRED, True, Tls.STARTTLS, "530 5.7.0 Authentication required"),
        (Auth.OPTIONAL, True, Tls.STARTTLS, "250"),
        (Auth.NONE, True, Tls.NONE, "250"),
    ],
)
async def test_strangers_never_relay(tmp_path, auth, trusted, tls, refusal):
    """Only trusted peers and users relay; where auth = required, trusted peers are users too."""
    networks = ("127.0.0.0/8",) if trusted else ("192.0.2.0/24",)
    async with doorstep(tmp_path, auth=auth, trusted=networks, tls=tls) as step:
        client = await step.greeted()
        assert (await client.say("MAIL FROM:<a@example.org>")).startswith(refusal)
        if not refusal.startswith("250"):
            assert (await client.say("RCPT TO:<b@example.net>")).startswith(refusal)
            assert (await client.say("DATA")).startswith(refusal)
            assert (await client.say("MAIL FROM:<>")).startswith(refusal)
            assert {event.event for event in step.events} == {Kind.REJECTED}
            assert step.events[0].status == refusal[4:9]
        assert not step.intake.drafts


@on_both_loops
async def test_pipelined_mixes_are_answered_in_order(tmp_path):
    """Several transactions, good and bad, in one segment; each command gets its own reply, content is not confused."""
    async with doorstep(tmp_path) as step:
        client = await step.connect()
        await client.send(
            b"EHLO c\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<>\r\nRCPT TO:<b@y.example>\r\nDATA\r\n"
            b"one\r\nQUIT\r\n.\r\nMAIL FROM:<>\r\nNOOP\r\nRCPT TO:<c@y.example>\r\nRSET\r\nDATA\r\n"
            b"mail from:<d@x.example>\r\nrcpt to:<e@y.example>\r\ndata\r\n.\r\nVRFY e\r\nNOOP\r\nQUIT\r\n"
        )
        codes = [line[:3] for line in (await client.rest()).decode().splitlines() if line[3] == " "]
        expected = "250 250 501 250 354 250 250 250 250 250 503 250 250 354 250 252 250 221"
        assert codes == expected.split()
        assert [draft.content for draft in step.intake.accepted] == [b"one\r\nQUIT\r\n", b""]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7])
@on_both_loops
async def test_fragments_of_any_size_say_the_same(tmp_path, size):
    """A whole session cut into pieces of 1 to 7 octets gives the same message and replies."""
    said = (
        b"EHLO c\r\nMAIL FROM:<a@x.example>\r\nRCPT TO:<b@y.example>\r\nDATA\r\nSubject: x\r\n\r\n..a\r\n.b\r\n"
        b"\r\n.\r\nAUTH LOGIN\r\nYWRh\r\nY29ycmVjdCBob3JzZQ==\r\nQUIT\r\n"
    )
    async with doorstep(tmp_path) as step:
        client = await step.connect()
        for start in range(0, len(said), size):
            await client.send(said[start : start + size])
            await asyncio.sleep(0)
        codes = [line[:3] for line in (await client.rest()).decode().splitlines() if line[3] == " "]
        assert codes == ["250", "250", "250", "354", "250", "334", "334", "235", "221"]
        assert step.intake.accepted[0].content == b"Subject: x\r\n\r\n.a\r\nb\r\n\r\n"


@on_both_loops
async def test_a_reply_waits_for_its_commit_and_later_commands_for_the_reply(tmp_path):
    """What is pipelined behind the end of data is done when the commit has answered, not before."""
    async with doorstep(tmp_path) as step:
        step.intake.delay = None
        client = await step.greeted()
        await client.say("MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>", "DATA")
        await client.send(b"x\r\n.\r\nMAIL FROM:<c@x.example>\r\nNOOP\r\n")
        await step.until(lambda: bool(step.intake.drafts and step.intake.drafts[0].done))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.reader.read(1), 0.05)
        step.intake.drafts[0].finish()
        assert await client.reply() == "250 2.0.0 queued as TEST\r\n"
        assert (await client.reply()).startswith("250 2.1.0")
        assert (await client.reply()).startswith("250 2.0.0")


@on_both_loops
async def test_one_readable_event_is_answered_by_one_write(tmp_path):
    """The replies to a pipelined group leave together."""
    async with doorstep(tmp_path) as step:
        client = await step.greeted()
        (session,) = step.door.sessions
        written, write = [], session._channel.write

        class Channel:
            def __getattr__(self, name):
                return getattr(self.channel, name)

            def write(self, octets):
                written.append(octets)
                write(octets)

        Channel.channel = session._channel
        session._channel = Channel()
        await client.say("MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>", "RCPT TO:<c@y.example>", "DATA")
        assert len(written) == 1


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("MAIL", "501 5.5.4"),
        ("MAIL FROM:a@x.example", "501 5.1.7"),
        ("MAIL FROM:<a@-x.example>", "501 5.1.7"),
        ("MAIL FROM:<a@x.example> SIZE=1000001", "552 5.3.4"),
        ("MAIL FROM:<a@x.example> FOO=1", "555 5.5.4"),
        ("MAIL FROM:<a@x.example> HOLDFOR=31622400", "250"),
        ("MAIL FROM:<a@x.example> HOLDFOR=31622401", "501 5.5.4"),
        ("MAIL FROM:<a@x.example> HOLDUNTIL=2000-01-01T00:00:00Z", "250"),
        ("MAIL FROM:<a@x.example> HOLDUNTIL=2999-01-01T00:00:00Z", "501 5.5.4"),
        ("MAIL FROM:<a@x.example> HOLDFOR=1 HOLDUNTIL=2000-01-01T00:00:00Z", "501 5.5.4"),
        ("MAIL FROM:<a@x.example> MT-PRIORITY=9", "250"),
        ("MAIL FROM:<a@x.example> MT-PRIORITY=", "501 5.5.4"),
        ("MAIL FROM:<ä@x.example>", "553 5.6.7"),
        ("MAIL FROM:<ä@x.example> SMTPUTF8", "250"),
        ("MAIL FROM:<>", "250 2.1.0"),
        ("RCPT TO:<b@x.example>", "503 5.5.1"),
        ("DATA", "503 5.5.1"),
        ("FOO", "500 5.5.2"),
        ("", "500 5.5.2"),
        ("M\u00c4IL", "500 5.5.2"),
        ("EHLO", "501"),
        ("RSET now", "501"),
        ("NOOP whatever", "250"),
        ("noop", "250"),
        ("Quit", "221"),
        ("HELP", "250 2.0.0 Supported commands"),
        ("HELP AUTH", "250 2.0.0 Syntax: AUTH"),
        ("VRFY a\rb", "252 2.5.2"),
        ("EXPN list", "502 5.5.1"),
        ("STARTTLS now", "501"),
        ("GET / HTTP/1.1", "554 5.5.1"),
    ],
)
async def test_single_commands(tmp_path, command, reply):
    """One command behind EHLO, one reply, with an enhanced status and on one line."""
    async with doorstep(tmp_path, max_message_size=1_000_000) as step:
        answer = await (await step.greeted()).say(command)
        assert answer.startswith(reply)
        assert answer.count("\r") == 1


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("RCPT TO:<>", "501 5.1.3"),
        ("RCPT TO:<b@x..example>", "501 5.1.3"),
        (f"RCPT TO:<b@{'x' * 64}.example>", "501 5.1.3"),
        ("RCPT TO:<b@ä.example>", "553 5.6.7"),
        ("RCPT TO:<b@x.example> NOTIFY=NEVER,DELAY", "501 5.5.4"),
        ("RCPT TO:<b@x.example> MT-PRIORITY=1", "555 5.5.4"),
        ("RCPT TO:<reject@x.example>", "550 5.7.1 no such route"),
        ("MAIL FROM:<a@x.example>", "503 5.5.1"),
        ("AUTH PLAIN AGFkYQBjb3JyZWN0IGhvcnNl", "503 5.5.1"),
        ("DATA", "503 5.5.1"),
        ("DATA now", "501"),
    ],
)
async def test_commands_within_a_transaction(tmp_path, command, reply):
    """One command behind MAIL; what is wrong is refused and the transaction goes on."""

    def refuse(reverse_path, recipient, identity):
        return make_reply(550, "5.7.1", "no such route") if recipient.address.startswith("reject") else None

    async with doorstep(tmp_path, parts={"route_refusal": refuse}) as step:
        client = await step.greeted()
        await client.say("MAIL FROM:<a@x.example>")
        assert (await client.say(command)).startswith(reply)
        assert (await client.say("RCPT TO:<b@x.example>")).startswith("250")


@on_both_loops
async def test_data_behind_refused_recipients_is_told_so(tmp_path):
    """554 where recipients were tried, 503 where none was (RFC 2920 3.1)."""
    async with doorstep(tmp_path) as step:
        client = await step.greeted()
        await client.say("MAIL FROM:<a@x.example>", "RCPT TO:<>")
        assert (await client.say("DATA")).startswith("554 5.5.1")


@on_both_loops
async def test_addresses_without_a_domain_are_completed(tmp_path):
    """Cron writes <root>; <postmaster> is always an address; a quoted @ is no domain."""
    async with doorstep(tmp_path) as step:
        client = await step.greeted()
        await client.say('MAIL FROM:<"a@b">', "RCPT TO:<Postmaster>", "RCPT TO:<root>", "DATA")
        await client.say(".")
        envelope = step.intake.accepted[0].envelope
        assert envelope.reverse_path == '"a@b"@default.example'
        assert [recipient.address for recipient in envelope.recipients] == [
            "Postmaster@default.example",
            "root@default.example",
        ]
        assert {recipient.domain for recipient in envelope.recipients} == {"default.example"}


@on_both_loops
async def test_a_recipient_is_kept_once(tmp_path):
    """The same mailbox twice, its domain in another case, is accepted and kept as it was first written."""
    async with doorstep(tmp_path, max_recipients=2) as step:
        client = await step.greeted()
        await client.say("MAIL FROM:<a@x.example> SMTPUTF8")
        for address in ("b@y.example", "b@Y.EXAMPLE", "B@y.example"):
            assert (await client.say(f"RCPT TO:<{address}>")).startswith("250")
        assert (await client.say("RCPT TO:<c@y.example>")).startswith("452 4.5.3")
        await client.say("DATA")
        await client.say(".")
        kept = [recipient.address for recipient in step.intake.accepted[0].envelope.recipients]
        assert kept == ["b@y.example", "B@y.example"]


@on_both_loops
async def test_an_internationalised_domain_becomes_its_a_label(tmp_path):
    """RFC 6531: the address is kept as written, the domain for routing in A-labels."""
    async with doorstep(tmp_path) as step:
        client = await step.greeted()
        await client.say("MAIL FROM:<ä@bücher.example> SMTPUTF8", "RCPT TO:<ö@BÜCHER.example>", "DATA")
        await client.say(".")
        (recipient,) = step.intake.accepted[0].envelope.recipients
        assert (recipient.address, recipient.domain) == ("ö@BÜCHER.example", "xn--bcher-kva.example")
        assert step.intake.accepted[0].arrival.protocol == "UTF8SMTP"


@on_both_loops
async def test_a_user_sends_only_as_allowed_and_only_so_fast(tmp_path):
    """allowed_senders is checked at MAIL; the null reverse-path passes; the message rate is 450, and per user."""
    user = User("ada", HASH, ("*@example.org",), ("2/h",), Priority.HIGH)
    async with doorstep(tmp_path, users=(user,)) as step:
        client = await step.greeted()
        assert (await client.say(PLAIN)).startswith("235")
        assert (await client.say("MAIL FROM:<a@example.com>")).startswith("553 5.7.1")
        for path in ("A@EXAMPLE.ORG", ""):
            await client.say(f"MAIL FROM:<{path}>", "RCPT TO:<b@y.example>", "DATA")
            assert (await client.say(".")).startswith("250")
        assert (await client.say("MAIL FROM:<a@example.org>")).startswith("450 4.7.1")
        assert {draft.envelope.priority for draft in step.intake.accepted} == {Priority.HIGH}
        assert {draft.arrival.identity for draft in step.intake.accepted} == {"ada"}
        step.now[0] += 7200
        assert (await client.say("MAIL FROM:<a@example.org>")).startswith("250")
        assert [event.stage for event in step.events] == [Stage.MAIL, Stage.MAIL]
        assert {event.user for event in step.events} == {"ada"}


@on_both_loops
async def test_sessions_of_one_user_cannot_pass_a_rate_together(tmp_path):
    """Two that passed MAIL at the same time are counted again at DATA."""
    async with doorstep(tmp_path, users=(User("ada", HASH, (), ("1/h",)),)) as step:
        first, second = await step.greeted(), await step.greeted()
        for client in (first, second):
            await client.say(PLAIN)
            assert (await client.say("MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>")).startswith("250")
        assert (await first.say("DATA")).startswith("354")
        assert (await second.say("DATA")).startswith("450 4.7.1")


@on_both_loops
async def test_no_space_is_told_at_mail(tmp_path):
    """When the disk is nearly full, MAIL is 452 4.3.1."""
    async with doorstep(tmp_path, parts={"has_space": lambda: False}) as step:
        assert (await (await step.greeted()).say("MAIL FROM:<a@x.example>")).startswith("452 4.3.1")


@pytest.mark.parametrize(
    ("greeting", "login", "tls", "utf8", "keyword"),
    [
        ("HELO", False, False, False, "SMTP"),
        ("EHLO", False, False, False, "ESMTP"),
        ("EHLO", True, False, False, "ESMTPA"),
        ("EHLO", False, True, False, "ESMTPS"),
        ("EHLO", True, True, False, "ESMTPSA"),
        ("EHLO", True, True, True, "UTF8SMTPSA"),
        ("EHLO", False, True, True, "UTF8SMTPS"),
    ],
)
async def test_the_with_keyword_says_how_it_came(tmp_path, greeting, login, tls, utf8, keyword):
    """RFC 3848 and RFC 6531 4.3."""
    async with doorstep(tmp_path) as step:
        client = await step.connect()
        if tls:
            await client.say("EHLO x")
            await client.starttls(step.trust)
        await client.say(f"{greeting} x")
        if login:
            assert (await client.say(PLAIN)).startswith("235")
        await client.say(f"MAIL FROM:<a@x.example>{' SMTPUTF8' if utf8 else ''}", "RCPT TO:<b@y.example>", "DATA")
        await client.say(".")
        arrival = step.intake.accepted[0].arrival
        assert arrival.protocol == keyword
        assert arrival.tls.startswith("TLSv1") is tls


@on_both_loops
async def test_the_clients_name_cannot_break_the_trace(tmp_path):
    """What EHLO said is safe in a Received field, whatever it was."""
    async with doorstep(tmp_path) as step:
        client = await step.connect()
        await client.send(b"EHLO a (b)\rX: y;\x00\xff\r\n")
        await client.reply()
        await client.say("MAIL FROM:<a@x.example>", "RCPT TO:<b@y.example>", "DATA")
        await client.say(".")
        assert step.intake.accepted[0].arrival.ehlo == "a??b??X:?y???"


@on_both_loops
async def test_mail_before_ehlo_is_out_of_order_and_ehlo_ends_a_transaction(tmp_path):
    """503 before the greeting; a second EHLO forgets MAIL (RFC 5321 4.1.4)."""
    async with doorstep(tmp_path, users=(ADA,)) as step:
        client = await step.connect()
        assert (await client.say("MAIL FROM:<a@x.example>")).startswith("503")
        assert (await client.say("RCPT TO:<a@x.example>")).startswith("503")
        await client.say("EHLO x", "MAIL FROM:<a@x.example>")
        await client.say("EHLO x")
        assert (await client.say("RCPT TO:<a@x.example>")).startswith("503")


@on_both_loops
async def test_settings_of_one_client_do_not_drift_with_another(tmp_path):
    """aiosmtpd's limits are a dictionary of the class that every EHLO changes; ours are constants."""
    async with doorstep(tmp_path) as step:
        client = await step.greeted()
        for _ in range(30):
            await client.say("EHLO x")
        assert (await client.say("NOOP " + "x" * 504)).startswith("250")
        assert (await client.say("NOOP " + "x" * 506)).startswith("500 5.5.6")


@on_both_loops
async def test_an_early_talker_is_served(tmp_path):
    """Commands sent before the greeting are answered behind it."""
    async with doorstep(tmp_path) as step:
        client = await step.connect(greeting=False)
        await client.send(b"EHLO x\r\nQUIT\r\n")
        said = (await client.rest()).decode()
        assert said.startswith("220 relay.example")
        assert said.endswith("221 2.0.0 Bye\r\n")
