"""Access tokens: each way to ask for them, one fetch at a time, renewal, rotation, and what goes wrong."""

import asyncio
import logging
import ssl
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import msgspec
import pytest
from dns_server import Clock
from token_server import (
    ACCOUNT,
    CLIENT_ID,
    SECRET,
    WRONG_SECRET,
    TokenServer,
    by_secret,
    client_certificate,
    service_account,
    token_server,
)

from smarthost.crypto.jwt import JwtSigner
from smarthost.network.oauth import TokenSource
from smarthost.network.oauth_answer import TokenFault
from smarthost.network.oauth_file import write_refresh_token
from smarthost.network.oauth_grant import Assertion, Grant


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TokenServer]:
    """Give a token endpoint."""
    with token_server(tmp_path) as running:
        yield running


def by_refresh_token(server: TokenServer, file: Path) -> Grant:
    """Ask by refresh token."""
    file.write_text(server.refresh_token + "\n")
    file.chmod(0o600)
    return by_secret(server, client_secret="", scope="SMTP.Send offline_access", refresh_token_file=file)


def source(grant: Grant, clock: Clock | None = None) -> TokenSource:
    """Make a source that trusts the grant's authority."""
    made = grant.assertion
    sign = JwtSigner(made.key, made.certificate, made.key_id).sign if made is not None else None

    def context() -> ssl.SSLContext:
        return ssl.create_default_context(cafile=grant.ca_file or None)

    return TokenSource(grant, sign, context, clock or time.time, Random(7))


async def token_of(asked: TokenSource, refused: str = "") -> str:
    """Have a token."""
    token = await asked.token(refused)
    assert isinstance(token, str), token
    return token


async def fault_of(asked: TokenSource) -> TokenFault:
    """Have a fault, in whose words nothing secret may be."""
    fault = await asked.token()
    assert isinstance(fault, TokenFault)
    assert SECRET not in fault.reason and "refresh-" not in fault.reason
    return fault


async def test_client_credentials_by_secret(server: TokenServer) -> None:
    """Microsoft's shape: client_id, client_secret, scope; a second login within the hour asks nobody."""
    asked = source(by_secret(server))
    assert await token_of(asked) == await token_of(asked) == server.issued[0]
    assert server.requests == [
        (
            "/tenant.example/oauth2/v2.0/token",
            {
                "grant_type": "client_credentials",
                "client_id": CLIENT_ID,
                "client_secret": SECRET,
                "scope": "https://outlook.office365.com/.default",
            },
        )
    ]


async def test_client_credentials_by_certificate(server: TokenServer, tmp_path: Path) -> None:
    """Microsoft's client assertion is verified with the certificate; each has an identifier of its own."""
    certificate, key, server.certificate = client_certificate(tmp_path)
    assertion = Assertion(key.read_bytes(), certificate.read_bytes())
    asked = source(by_secret(server, client_secret="", assertion=assertion))
    token = await token_of(asked)
    assert await token_of(asked, token) != token
    assert len(server.assertions) == 2
    assert set(server.requests[0][1]) == {
        "grant_type",
        "client_id",
        "scope",
        "client_assertion_type",
        "client_assertion",
    }


async def test_service_account(server: TokenServer, tmp_path: Path) -> None:
    """Google's assertion speaks for the account, is about the mailbox, and is verified with its key."""
    file, server.service_key = service_account(tmp_path)
    key = msgspec.json.decode(file.read_bytes())["private_key"].encode()
    asked = source(
        Grant(
            name="google",
            username="app@example.org",
            token_url=server.url("/token"),
            scope="https://mail.google.com/",
            assertion=Assertion(key, key_id="key-id-1", account=ACCOUNT),
            ca_file=str(server.ca_file),
        )
    )
    assert await token_of(asked) in server.tokens
    assert len(server.assertions) == 1


async def test_a_refresh_token_is_rotated(server: TokenServer, tmp_path: Path) -> None:
    """A new refresh token is in the file, 0600, before anybody logs in, and is what is used next."""
    file = tmp_path / "refresh"
    server.rotates = True
    asked = source(by_refresh_token(server, file))
    first = await token_of(asked)
    assert file.read_text().strip() == server.refresh_token == "refresh-1-~secret~"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    await token_of(asked, first)
    assert server.requests[1][1]["refresh_token"] == "refresh-1-~secret~"
    assert file.read_text().strip() == "refresh-2-~secret~"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["refresh", "token-ca.pem"]


async def test_a_rotated_token_that_cannot_be_written_is_kept(
    server: TokenServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a disk that takes nothing, the new refresh token lives in memory, and an error says so without showing it."""

    def full(path: Path, token: str) -> None:
        raise OSError(30, "Read-only file system")

    file = tmp_path / "refresh"
    server.rotates = True
    asked = source(by_refresh_token(server, file))
    monkeypatch.setattr("smarthost.network.oauth.write_refresh_token", full)
    token = await token_of(asked)
    token = await token_of(asked, token)
    await token_of(asked, token)
    assert file.read_text().strip() == "refresh-0-~secret~"
    assert "Read-only file system" in caplog.text and "~secret~" not in caplog.text
    # What `smarthost oauth login` writes meanwhile is taken up.
    server.refresh_token = "fresh-by-hand"
    write_refresh_token(file.parent / "other", "x")
    file.write_text("fresh-by-hand")
    await token_of(asked, server.issued[-1])
    assert server.requests[-1][1]["refresh_token"] == "fresh-by-hand"


async def test_the_file_is_never_readable_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file beside it is 0600 from the start, synced before the rename, and the folder after it."""
    file = tmp_path / "refresh"
    file.write_text("old")
    file.chmod(0o644)
    steps: list[str] = []
    replace, fsync = Path.replace, __import__("os").fsync

    def watched_replace(path: Path, target: Path) -> Path:
        steps.append(f"rename {stat.S_IMODE(path.stat().st_mode):o}")
        return replace(path, target)

    def watched_fsync(descriptor: int) -> None:
        mode = __import__("os").fstat(descriptor).st_mode
        steps.append("sync folder" if stat.S_ISDIR(mode) else f"sync file {stat.S_IMODE(mode):o}")
        fsync(descriptor)

    monkeypatch.setattr(Path, "replace", watched_replace)
    monkeypatch.setattr("os.fsync", watched_fsync)
    write_refresh_token(file, "new")
    assert steps == ["sync file 600", "rename 600", "sync folder"]
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("new\n", 0o600)


async def test_a_link_stays_a_link(tmp_path: Path) -> None:
    """Where the file is a symbolic link, what it points to is replaced; a fault leaves nothing behind."""
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "refresh").symlink_to(real / "token")
    write_refresh_token(tmp_path / "refresh", "new")
    assert (tmp_path / "refresh").is_symlink() and (real / "token").read_text() == "new\n"
    with pytest.raises(OSError):
        write_refresh_token(tmp_path / "no" / "refresh", "new")


async def test_one_fetch_at_a_time(server: TokenServer) -> None:
    """Twenty sessions that open at once wait for one fetch, also after they were all refused with the same token."""
    server.delay = 0.1
    asked = source(by_secret(server))
    tokens = await asyncio.gather(*(token_of(asked) for _ in range(20)))
    assert set(tokens) == {server.issued[0]} and len(server.requests) == 1
    again = await asyncio.gather(*(token_of(asked, tokens[0]) for _ in range(20)))
    assert set(again) == {server.issued[1]} and len(server.requests) == 2
    # Who comes late with the old refusal gets the token that others have fetched since.
    assert await token_of(asked, tokens[0]) == server.issued[1]
    assert len(server.requests) == 2


async def test_who_gives_up_waiting_takes_the_fetch_from_nobody(server: TokenServer) -> None:
    """A session that is cancelled while it waits leaves the fetch to the others."""
    server.delay = 0.1
    asked = source(by_secret(server))
    first, second = (asyncio.ensure_future(asked.token()) for _ in range(2))
    await asyncio.sleep(0.02)
    first.cancel()
    assert await second == server.issued[0]
    assert first.cancelled()


async def test_renewed_before_it_expires(server: TokenServer, caplog: pytest.LogCaptureFixture) -> None:
    """Between three quarters and nine tenths of its life a token is renewed while it is in use; nobody waits."""
    clock = Clock()
    asked = source(by_secret(server), clock)
    first = await token_of(asked)
    clock.now += 3600 * 0.74
    assert await token_of(asked) == first and len(server.requests) == 1
    clock.now += 3600 * 0.17
    assert await token_of(asked) == first
    async with asyncio.timeout(30):
        while await token_of(asked) == first:
            await asyncio.sleep(0.01)
    assert server.issued[1:] == [await token_of(asked)]
    # A renewal that fails hurts nobody while the token is good, and is tried again; then it is a fault.
    server.answers.extend([(503, "down")] * 3)
    clock.now += 3600 * 0.91
    with caplog.at_level(logging.WARNING, "smarthost"):
        async with asyncio.timeout(30):
            while "was not renewed" not in caplog.text:
                assert await token_of(asked) == server.issued[1]
                await asyncio.sleep(0.01)
    clock.now += 3600 * 0.05
    assert "answered 503" in (await fault_of(asked)).reason
    server.answers.clear()
    async with asyncio.timeout(30):
        # On a busy machine a fetch that was refused may be on its way still.
        while not isinstance(renewed := await asked.token(""), str):
            clock.now += 6
    assert renewed == server.issued[2]


async def test_each_token_draws_its_own_moment(server: TokenServer) -> None:
    """Two relays that started together do not renew together."""
    moments = set()
    for seed in range(5):
        asked = source(by_secret(server), Clock())
        asked._rng = Random(seed)
        await token_of(asked)
        moments.add(asked._renew_at)
    assert len(moments) == 5


async def test_a_fault_stands_for_a_moment(server: TokenServer) -> None:
    """Sessions that open one after the other do not ask a broken endpoint each."""
    clock = Clock()
    asked = source(by_secret(server), clock)
    server.answers.append((503, "down"))
    assert (await fault_of(asked)).reason == (await fault_of(asked)).reason
    assert len(server.requests) == 1
    clock.now += 5.1
    assert await token_of(asked) in server.tokens


SENTENCES = [
    (
        401,
        WRONG_SECRET,
        "the token endpoint localhost refused: invalid_client (AADSTS7000215: Invalid client secret provided. Ensure "
        "the secret being sent in the request is the client secret value, not the client secret ID, for a secret added "
        "to app '1111'); the client secret is wrong: the secret's value is wanted, not its id",
    ),
    (400, {"error": "invalid_scope"}, "refused: invalid_scope; the scope is not allowed for this client"),
    (
        400,
        {"error": "x", "error_description": f"you sent {SECRET}\r\nand\x1b[31m"},
        "refused: x (you sent *** and [31m)",
    ),
    (400, {"error": "invalid_grant"}, "refused: invalid_grant"),
    (429, {"message": "slow"}, "localhost answered 429"),
    (302, "moved", "localhost answered 302"),
    (200, "hello", "answered 200 without JSON"),
    (200, ["x"], "answered 200 without JSON"),
    (200, {"token_type": "Bearer"}, "gave no access token"),
    (200, {"access_token": "a\u0001b", "token_type": "Bearer"}, "gave no access token"),
    (200, {"access_token": "ab", "token_type": "mac"}, "gave a token that is no bearer token"),
    (200, "x" * 100_000, "gave an answer that is too long"),
]


@pytest.mark.parametrize(("status", "answer", "sentence"), SENTENCES)
async def test_refusals_become_sentences(server: TokenServer, status: int, answer: object, sentence: str) -> None:
    """Each answer that is no token is one sentence, with what to do where that is known, and without secrets."""
    server.answers.append((status, answer))
    reason = (await fault_of(source(by_secret(server)))).reason
    assert reason.endswith(sentence)
    assert len(server.requests) == 1  # a redirect is not followed
    assert reason.isprintable()


async def test_a_dead_refresh_token_names_the_remedy(server: TokenServer, tmp_path: Path) -> None:
    """invalid_grant for a refresh token says which command mends it; a lost or empty file is told likewise."""
    clock = Clock()
    grant = by_refresh_token(server, tmp_path / "refresh")
    asked = source(grant, clock)
    server.refresh_token = "another"
    fault = await fault_of(asked)
    assert fault.error == "invalid_grant"
    assert fault.reason.endswith("(Token has been expired or revoked); run: smarthost oauth login relayhost")
    (tmp_path / "refresh").write_text("\n")
    clock.now += 10
    assert "is empty; run: smarthost oauth login relayhost" in (await fault_of(asked)).reason
    (tmp_path / "refresh").unlink()
    clock.now += 10
    assert "cannot be read: No such file or directory" in (await fault_of(asked)).reason


async def test_an_endpoint_that_is_not_there(server: TokenServer, tmp_path: Path) -> None:
    """Refused connections, a certificate of nobody we trust, and a trust anchor that cannot be read are sentences."""
    nobody = by_secret(server, token_url="https://localhost:1/token")
    assert (await fault_of(source(nobody))).reason == "the token endpoint localhost refuses connections"
    stranger = await fault_of(source(by_secret(server, ca_file="")))
    assert "the token endpoint localhost has no valid certificate: " in stranger.reason
    wrong_name = by_secret(server, token_url=server.url().replace("localhost", "127.0.0.1"))
    assert "no valid certificate" in (await fault_of(source(wrong_name))).reason
    assert not server.requests


@pytest.mark.parametrize(("said", "seconds"), [(60, 60), ("60", 60), (None, 300), (-1, 300), ("x", 300), (1e9, 86400)])
async def test_lifetimes(server: TokenServer, said: object, seconds: float) -> None:
    """A lifetime may be text; one that is missing or odd is short, and one beyond a day is a day."""
    server.lifetime = said
    clock = Clock()
    asked = source(by_secret(server), clock)
    await token_of(asked)
    assert asked._usable_until == pytest.approx(clock.now + seconds * 0.95)


async def test_nothing_shows_a_secret(server: TokenServer, tmp_path: Path) -> None:
    """No representation of any part has a secret in it."""
    certificate, key, server.certificate = client_certificate(tmp_path)
    assertion = Assertion(key.read_bytes(), certificate.read_bytes())
    asked = source(by_refresh_token(server, tmp_path / "refresh"))
    await token_of(asked)
    shown = repr([asked, asked.grant, assertion, by_secret(server)])
    assert not [secret for secret in (*server.secrets(), "PRIVATE KEY") if secret in shown]


async def test_a_stop_waits_for_a_rotated_token(server: TokenServer, tmp_path: Path) -> None:
    """What a fetch brings at the very end is still written; one that takes too long is given up."""
    file = tmp_path / "refresh"
    server.rotates, server.delay = True, 0.2
    asked = source(by_refresh_token(server, file))
    waiting = asyncio.ensure_future(asked.token())
    await asyncio.sleep(0.05)
    waiting.cancel()
    await asked.close(5.0)
    assert file.read_text().strip() == server.refresh_token == "refresh-1-~secret~"
    late = asyncio.ensure_future(asked.token(server.issued[0]))
    await asyncio.sleep(0.05)
    began = time.monotonic()
    await asked.close(0.01)
    assert time.monotonic() - began < 0.15
    with pytest.raises(asyncio.CancelledError):
        await late
    await asyncio.sleep(0.3)
