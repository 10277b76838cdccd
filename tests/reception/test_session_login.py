"""AUTH at the door: mechanisms, their traps, and guessing."""

import asyncio
from base64 import b64encode

import pytest
from doorstep import ADA, HASH, PASSWORD, doorstep, on_both_loops

from smarthost.mail.outcome import Stage
from smarthost.policy.admission import Auth, Tls, User


def plain(name="ada", password=PASSWORD, other=""):
    """Write the response of AUTH PLAIN."""
    return b64encode(f"{other}\0{name}\0{password}".encode()).decode()


def word(text):
    """Write a response of AUTH LOGIN."""
    return b64encode(text.encode()).decode()


WRONG = plain(password="wrong")


@pytest.mark.parametrize(
    ("said", "replies"),
    [
        ([f"AUTH PLAIN {plain()}"], ["235 2.7.0"]),
        ([f"auth plain {plain()}"], ["235 2.7.0"]),
        ([f"AUTH PLAIN {plain(other='ada')}"], ["235 2.7.0"]),
        (["AUTH PLAIN", plain()], ["334 ", "235 2.7.0"]),
        (["AUTH LOGIN", word("ada"), word(PASSWORD)], ["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6", "235"]),
        ([f"Auth Login {word('ada')}", word(PASSWORD)], ["334 UGFzc3dvcmQ6", "235"]),
        ([f"AUTH PLAIN {WRONG}"], ["535 5.7.8"]),
        ([f"AUTH PLAIN {plain('nobody')}"], ["535 5.7.8"]),
        ([f"AUTH PLAIN {plain(other='bob')}"], ["535 5.7.8"]),
        (["AUTH PLAIN ="], ["501 5.5.2"]),
        (["AUTH PLAIN !!!"], ["501 5.5.2"]),
        (["AUTH PLAIN", "*"], ["334 ", "501 5.7.0"]),
        (["AUTH LOGIN", word("ada"), "*"], ["334", "334", "501 5.7.0"]),
        (["AUTH LOGIN", "%%"], ["334", "501 5.5.2"]),
        (["AUTH LOGIN ="], ["501 5.5.2"]),
        (["AUTH PLAIN", ""], ["334 ", "501 5.5.2"]),
        (["AUTH PLAIN", "/w=="], ["334 ", "501 5.5.2"]),
        (["AUTH PLAIN AP8A/w=="], ["501 5.5.2"]),
        (["AUTH"], ["501"]),
        (["AUTH PLAIN a b"], ["501"]),
        (["AUTH CRAM-MD5"], ["504 5.5.4"]),
        ([f"AUTH PLAIN {plain()}", f"AUTH PLAIN {plain()}"], ["235", "503 5.5.1"]),
        (["MAIL FROM:<>", f"AUTH PLAIN {plain()}"], ["250", "503 5.5.1"]),
        (["HELO x", f"AUTH PLAIN {plain()}"], ["250", "503 5.5.1"]),
    ],
)
async def test_exchanges(tmp_path, said, replies):
    """One line after the other gets the reply of RFC 4954, and the session goes on."""
    async with doorstep(tmp_path) as step:
        client = await step.greeted()
        for line, reply in zip(said, replies, strict=True):
            assert (await client.say(line)).startswith(reply)
        assert (await client.say("NOOP")).startswith("250")


@on_both_loops
async def test_a_pipelined_exchange_is_answered_in_order(tmp_path):
    """The responses and what follows may come in one segment; commands are done as the user that logged in."""
    async with doorstep(tmp_path, auth=Auth.REQUIRED) as step:
        client = await step.greeted()
        await client.send(
            f"AUTH LOGIN\r\n{word('ada')}\r\n{word(PASSWORD)}\r\nMAIL FROM:<a@x.example>\r\nQUIT\r\n".encode()
        )
        codes = [line[:3] for line in (await client.rest()).decode().splitlines()]
        assert codes == ["334", "334", "235", "250", "221"]


@pytest.mark.parametrize("size", [1_500, 9_000, 12_280, 12_400, 60_000])
@on_both_loops
async def test_long_responses(tmp_path, size):
    """aiosmtpd answers a response over 1,001 octets with a Python error; ours takes 12,288 (RFC 4954 4)."""
    async with doorstep(tmp_path) as step:
        client = await step.greeted()
        for line in (["AUTH PLAIN", "A" * size], ["AUTH PLAIN " + "A" * (size - 11)]):
            answer = await client.say(line[0])
            if len(line) == 2:
                assert answer.startswith("334")
                answer = await client.say(line[1])
            assert answer.startswith("501 5.5.2" if size < 12_288 else "500 5.5.6")
        assert (await client.say("NOOP")).startswith("250")


@on_both_loops
async def test_auth_in_the_clear_is_refused_where_it_is_not_offered(tmp_path):
    """538 5.7.11 for a stranger without TLS; 502 where the listener has no AUTH."""
    async with doorstep(tmp_path, trusted=()) as step:
        client = await step.greeted()
        assert (await client.say(f"AUTH PLAIN {plain()}")).startswith("538 5.7.11")
        await client.starttls(step.trust)
        assert (await client.say("AUTH PLAIN x")).startswith("503")
        assert "AUTH PLAIN LOGIN" in await client.say("EHLO x")
        assert (await client.say(f"AUTH PLAIN {plain()}")).startswith("235")
        assert (await client.say("MAIL FROM:<a@x.example>")).startswith("250")
    async with doorstep(tmp_path, auth=Auth.NONE) as step:
        assert (await (await step.greeted()).say(f"AUTH PLAIN {plain()}")).startswith("502")


@on_both_loops
async def test_five_failures_shut_an_address_out(tmp_path):
    """The fifth failure and every connection after it are 421 4.7.0, for ten minutes."""
    async with doorstep(tmp_path, trusted=(), allow_plaintext_auth=True) as step:
        client = await step.greeted()
        for _ in range(4):
            assert (await client.say(f"AUTH PLAIN {WRONG}")).startswith("535")
        assert (await client.say(f"AUTH PLAIN {WRONG}")).startswith("421 4.7.0")
        assert await client.rest() == b""
        refused = await step.connect(greeting=False)
        assert (await refused.rest()).startswith(b"421 4.7.0")
        assert {event.stage for event in step.events} == {Stage.AUTH, Stage.CONNECT}
        assert step.door.parts.counters.logins["refused"] == 5
        step.now[0] += 601
        client = await step.greeted()
        assert (await client.say(f"AUTH PLAIN {plain()}")).startswith("235")


@on_both_loops
async def test_a_trusted_local_address_is_shut_out_of_auth_only(tmp_path):
    """Behind 127.0.0.1 are many programs: one that guesses does not stop the others' mail."""
    async with doorstep(tmp_path) as step:
        client = await step.greeted()
        for _ in range(5):
            await client.say(f"AUTH PLAIN {WRONG}")
        client = await step.greeted()
        assert (await client.say("MAIL FROM:<a@x.example>", "RSET")).startswith("250")
        assert (await client.say(f"AUTH PLAIN {plain()}")).startswith("421 4.7.0")


@on_both_loops
async def test_a_client_that_goes_during_its_login_leaves_nothing(tmp_path):
    """The session's task is gone; the next login works."""
    async with doorstep(tmp_path) as step:
        for said in ("AUTH LOGIN", f"AUTH PLAIN {WRONG}"):
            client = await step.greeted()
            await client.send(f"{said}\r\n".encode())
            client.close()
        await step.until(lambda: not step.door.sessions)
        assert (await (await step.greeted()).say(f"AUTH PLAIN {plain()}")).startswith("235")


async def test_an_application_that_opens_many_connections_pays_one_hash(tmp_path):
    """Sixty logins at once with one password share one verification: none is told to come back later."""
    async with doorstep(tmp_path, max_connections_per_ip=100) as step:
        clients = [await step.greeted() for _ in range(60)]
        answers = await asyncio.gather(*(client.say(f"AUTH PLAIN {plain()}") for client in clients))
        assert {answer[:3] for answer in answers} == {"235"}


async def test_no_password_is_logged_or_published(tmp_path, caplog):
    """Neither the log at its most talkative nor an event has a password, right or wrong."""
    caplog.set_level("DEBUG")
    async with doorstep(tmp_path, users=(ADA, User("bob", HASH))) as step:
        client = await step.greeted()
        for password in ("wrong-secret", PASSWORD):
            await client.say(f"AUTH PLAIN {plain(password=password)}")
        client = await step.greeted()
        await client.say("AUTH LOGIN", word("bob"), word("wrong-secret"))
        said = caplog.text + repr(step.events)
        for secret in ("wrong-secret", PASSWORD, word("wrong-secret"), plain(), plain(password="wrong-secret"), HASH):
            assert secret not in said
        assert "bob" in repr(step.events)


async def test_implicit_tls_offers_auth_and_not_starttls(tmp_path):
    """aiosmtpd has it the wrong way round on port 465."""
    async with doorstep(tmp_path, tls=Tls.IMPLICIT, trusted=()) as step:
        client = await step.connect(ssl=step.trust, server_hostname="localhost")
        offered = await client.say("EHLO x")
        assert "AUTH PLAIN LOGIN" in offered
        assert "STARTTLS" not in offered
        assert (await client.say("STARTTLS")).startswith("503")
        assert (await client.say(f"AUTH PLAIN {plain()}")).startswith("235")
