"""Attachments come from URLs, folders and a cache block by block; what goes wrong names the attachment and why."""

import asyncio
import hashlib
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import aclosing
from itertools import count
from pathlib import Path

import pytest
import trustme
from http_peer import Asked, HttpPeer, answer

from smarthost.compose.bodies import radix64_lines
from smarthost.compose.letter import Letter, check_submission
from smarthost.compose.limits import SubmissionLimits
from smarthost.compose.mime import Composed, Stamp, compose
from smarthost.compose.submission import Submission, convert_submission
from smarthost.network import http_session
from smarthost.network.attachment_cache import AttachmentCache
from smarthost.network.attachments import AttachmentSources
from smarthost.network.dns import Resolver
from smarthost.network.http_client import HttpClient
from smarthost.network.source_fault import SourceFault
from smarthost.policy.attachments import AttachmentSettings, CacheSettings, UrlSettings

QUICK = UrlSettings(timeout=2.0, attempts=3, pause=0.0)
OCTETS = bytes(range(256)) * 400


class Server:
    """Answers by the last word of the target; some only after others were refused."""

    def __init__(self) -> None:
        self.counts = count(1)
        self.elsewhere = ""

    async def __call__(self, asked: Asked) -> bytes | None:
        """Answer one question."""
        match asked.target.rpartition("/")[2]:
            case "flaky":
                return answer(503) if next(self.counts) < 3 else answer(200, OCTETS)
            case "cut-first":
                return None if next(self.counts) < 3 else answer(200, OCTETS)
            case "down":
                return answer(503, b"later")
            case "missing":
                return answer(404, b"no")
            case "cut":
                return answer(200, OCTETS).replace(b"Content-Length: 102400", b"Content-Length: 102401")
            case "gzip":
                return answer(200, OCTETS, "Content-Encoding: gzip")
            case "endless":
                return b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n" + OCTETS * 20
            case "hang":
                await asyncio.Event().wait()
            case "moved":
                return answer(302, b"", "Location: /files/again")
            case "again":
                return answer(307, b"", "Location: here")
            case "round":
                return answer(301, b"", "Location: /round/round?x")
            case "round?x":
                return answer(301, b"", "Location: /round/round")
            case "elsewhere":
                return answer(302, b"", f"Location: {self.elsewhere}")
        return answer(200, OCTETS)


@pytest.fixture
async def server() -> Server:
    """Give what answers."""
    return Server()


@pytest.fixture
async def peer(server: Server) -> AsyncIterator[HttpPeer]:
    """Give a server on loopback."""
    peer = HttpPeer(server)
    await peer.start()
    yield peer
    await peer.stop()


def make_client(context: ssl.SSLContext | None = None, allow_private: bool = True) -> HttpClient:
    """Make a client whose resolver knows nothing."""
    resolver = Resolver(("127.0.0.1:1",), asyncio.get_running_loop().time, lambda *_: None)
    return HttpClient(resolver, lambda: context or ssl.create_default_context(), allow_private=allow_private)


def made(*attachments: object, **fields: object) -> tuple[Composed, Letter]:
    """Compose a letter with attachments."""
    whole = {"from": "a@example.org", "to": "b@example.net", "text": "t", "attachments": list(attachments), **fields}
    submission = convert_submission(whole)
    assert isinstance(submission, Submission), submission
    letter = check_submission(submission, SubmissionLimits())
    assert isinstance(letter, Letter), letter
    return compose(letter, Stamp(0.0, "relay.example", "0" * 32)), letter


async def poured(sources: AttachmentSources, *attachments: object, tenant: str = "default") -> bytes | SourceFault:
    """Give a whole message with attachments, or the fault that ended it."""
    blocks = []
    composed, letter = made(*attachments)
    async with aclosing(sources.message(composed, letter, tenant)) as pieces:
        async for piece in pieces:
            if isinstance(piece, SourceFault):
                return piece
            blocks.append(piece)
    return b"".join(blocks)


async def from_url(url: str, largest: int = 25 * 1024 * 1024, settings: UrlSettings = QUICK, **how: object) -> object:
    """Give what a message with one attachment by URL comes to."""
    client = make_client(**how)
    sources = AttachmentSources(AttachmentSettings(settings, largest=largest), client)
    try:
        return await poured(sources, {"filename": "a.bin", "url": url})
    finally:
        await client.close()


def holds(octets: object, content: bytes = OCTETS) -> bool:
    """Whether a message holds the base64 of a content."""
    assert isinstance(octets, bytes), octets
    return radix64_lines(content) in octets


async def test_a_url_is_fetched(peer: HttpPeer) -> None:
    """Its octets are in the message, as base64 in whole lines, whatever the blocks were."""
    assert holds(await from_url(f"http://127.0.0.1:{peer.port}/a"))
    assert "accept" in peer.asked[0].headers and "cookie" not in peer.asked[0].headers


@pytest.mark.parametrize("word", ["flaky", "cut-first"])
async def test_what_did_not_begin_is_tried_again(peer: HttpPeer, word: str) -> None:
    """A server that fails twice is asked three times."""
    assert holds(await from_url(f"http://127.0.0.1:{peer.port}/{word}"))
    assert len(peer.asked) == 3


@pytest.mark.parametrize(
    ("word", "says", "passing", "asked"),
    [
        ("down", "127.0.0.1 answered with status 503", True, 3),
        ("missing", "127.0.0.1 answered with status 404", False, 1),
        ("cut", "did not answer in time", True, 1),
        ("gzip", "compressed", False, 1),
        ("round", "more than 5 times", False, 6),
    ],
)
async def test_a_fault_names_attachment_and_cause(
    peer: HttpPeer, word: str, says: str, passing: bool, asked: int
) -> None:
    """What began is not begun again; what is refused for good is asked for once. The URL's path is not in the text."""
    fault = await from_url(f"http://127.0.0.1:{peer.port}/secret/{word}")
    assert isinstance(fault, SourceFault)
    assert fault.field == "attachments[0].url" and says in fault.message and fault.passing is passing
    assert "secret" not in fault.message and len(peer.asked) == asked


async def test_a_connection_that_ends_too_early_is_a_fault() -> None:
    """What has come is not taken for the whole."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 X\r\nContent-Length: 200000\r\n\r\n" + OCTETS)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        fault = await from_url(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a")
    assert fault == SourceFault("attachments[0].url", "127.0.0.1 closed the connection", True)


async def test_a_server_that_hangs_is_given_up(peer: HttpPeer) -> None:
    """After the configured time, as often as is configured."""
    fault = await from_url(f"http://127.0.0.1:{peer.port}/hang", settings=UrlSettings(0.2, 2, 0.0))
    assert fault == SourceFault("attachments[0].url", "127.0.0.1 did not answer in time", True)
    assert len(peer.asked) == 2


@pytest.mark.parametrize("word", ["a", "endless"])
async def test_what_is_too_large_is_cut_off(peer: HttpPeer, word: str) -> None:
    """By the length that the server names, or when the octets have come."""
    fault = await from_url(f"http://127.0.0.1:{peer.port}/{word}", largest=102_399)
    assert isinstance(fault, SourceFault) and "larger than 102399 octets" in fault.message


async def test_redirects_are_followed(peer: HttpPeer) -> None:
    """Relative ones too, to where the content is."""
    assert holds(await from_url(f"http://127.0.0.1:{peer.port}/moved"))
    assert [each.target for each in peer.asked] == ["/moved", "/files/again", "/files/here"]


@pytest.mark.parametrize(
    "target", ["http://127.0.0.2:{port}/", "http://[::1]:{port}/", "http://169.254.169.254/", "http://10.0.0.1/"]
)
async def test_a_redirect_leads_to_no_private_address(
    peer: HttpPeer, server: Server, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """Each hop's address is looked at when its socket is made; here 127.0.0.1 plays the Internet."""
    judge = http_session.is_public
    monkeypatch.setattr(http_session, "is_public", lambda address: address == "127.0.0.1" or judge(address))
    server.elsewhere = target.format(port=peer.port)
    fault = await from_url(f"http://127.0.0.1:{peer.port}/elsewhere", allow_private=False)
    assert isinstance(fault, SourceFault) and "private address" in fault.message and not fault.passing
    assert len(peer.asked) == 1
    assert holds(await from_url(f"http://127.0.0.1:{peer.port}/a", allow_private=False))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433"])
async def test_private_addresses_are_refused(peer: HttpPeer, host: str) -> None:
    """However they are written, and what the name of a host leads to."""
    fault = await from_url(f"http://{host}:{peer.port}/a", allow_private=False)
    assert isinstance(fault, SourceFault) and not peer.asked


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/a", "file:///etc/passwd", "//", "http://[", ""])
async def test_a_redirect_leads_to_the_web_or_nowhere(peer: HttpPeer, server: Server, target: str) -> None:
    """Another scheme, no address and the same again are no targets."""
    server.elsewhere = target
    fault = await from_url(f"http://127.0.0.1:{peer.port}/elsewhere")
    assert isinstance(fault, SourceFault) and fault.field == "attachments[0].url"


async def test_certificates_are_verified(server: Server) -> None:
    """A certificate that nobody vouches for is a fault; so is a redirect from https to http."""
    authority, peer = trustme.CA(), HttpPeer(server)
    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(theirs)
    await peer.start(theirs)
    try:
        fault = await from_url(f"https://127.0.0.1:{peer.port}/a", context=ours)
        assert fault == SourceFault("attachments[0].url", "127.0.0.1 has no valid certificate")
        authority.configure_trust(ours)
        assert holds(await from_url(f"https://127.0.0.1:{peer.port}/a", context=ours))
        server.elsewhere = f"http://127.0.0.1:{peer.port}/a"
        fault = await from_url(f"https://127.0.0.1:{peer.port}/elsewhere", context=ours)
        assert isinstance(fault, SourceFault) and "https to http" in fault.message
    finally:
        await peer.stop()


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    """Give a client that may speak to loopback."""
    client = make_client()
    yield client
    await client.close()


def folder_with_files(folder: Path) -> Path:
    """Make a root with files in it, a link out of it, and a secret beside it."""
    root = folder / "root"
    (root / "in").mkdir(parents=True)
    (root / "in" / "a.bin").write_bytes(OCTETS)
    (folder / "secret").write_bytes(b"secret")
    (root / "link").symlink_to(folder / "secret")
    (root / "out").symlink_to(folder)
    os.mkfifo(root / "pipe")
    return root


@pytest.mark.parametrize("path", ["in/a.bin", "{root}/in/a.bin", "./in//a.bin"])
async def test_a_file_below_a_root_is_read(tmp_path: Path, client: HttpClient, path: str) -> None:
    """By its whole path, or by one that begins at the root."""
    root = folder_with_files(tmp_path)
    sources = AttachmentSources(AttachmentSettings(roots=(str(tmp_path / "none"), str(root))), client)
    assert holds(await poured(sources, {"filename": "a", "storage_path": path.format(root=root)}))


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("../secret", "not below"),
        ("in/../../secret", "not below"),
        ("{root}/../secret", "not below"),
        ("/etc/passwd", "not below"),
        ("link", "cannot be read"),
        ("out/secret", "cannot be read"),
        ("in", "not a file"),
        ("pipe", "not a file"),
        ("none", "is not there"),
        (".", "not below"),
    ],
)
async def test_nothing_else_is_read(tmp_path: Path, client: HttpClient, path: str, says: str) -> None:
    """No way leads out of the root: no dots, no symbolic link; and a pipe does not hold anybody up."""
    root = folder_with_files(tmp_path)
    sources = AttachmentSources(AttachmentSettings(roots=(str(root),)), client)
    fault = await poured(sources, {"filename": "a", "storage_path": path.format(root=root)})
    assert isinstance(fault, SourceFault) and fault.field == "attachments[0].storage_path" and says in fault.message


async def test_what_is_not_configured_is_refused(client: HttpClient) -> None:
    """No root and no store is what a relay has that was told nothing of them."""
    sources = AttachmentSources(AttachmentSettings(), client)
    no_root = await poured(sources, {"filename": "a", "storage_path": "a"})
    no_store = await poured(sources, {"filename": "a", "s3": {"bucket": "bbb", "key": "k"}})
    assert isinstance(no_root, SourceFault) and "no folder is configured" in no_root.message
    assert isinstance(no_store, SourceFault) and "no store is configured" in no_store.message


async def test_files_have_bounds_alone_and_together(tmp_path: Path, client: HttpClient) -> None:
    """One that is too large, and several that are so in all, end the message."""
    root = folder_with_files(tmp_path)
    each = {"filename": "a", "storage_path": "in/a.bin"}
    small = AttachmentSources(AttachmentSettings(roots=(str(root),), largest=1000), client)
    fault = await poured(small, each)
    assert isinstance(fault, SourceFault) and "larger than 1000 octets" in fault.message
    exact = AttachmentSources(AttachmentSettings(roots=(str(root),), largest=len(OCTETS), together=250_000), client)
    assert holds(await poured(exact, each, each))
    fault = await poured(exact, each, each, each)
    assert fault == SourceFault("attachments", "the attachments are larger than 250000 octets in all")


async def test_no_attachment_is_whole_in_memory(tmp_path: Path, client: HttpClient) -> None:
    """A file of 8 MiB comes in blocks of at most half a MiB."""
    (tmp_path / "large").write_bytes(b"x" * 8 * 1024 * 1024)
    sources = AttachmentSources(AttachmentSettings(roots=(str(tmp_path),)), client)
    composed, letter = made({"filename": "a", "storage_path": "large"}, {"filename": "b", "content": b"y" * 1_000_000})
    async with aclosing(sources.message(composed, letter, "default")) as pieces:
        sizes = [len(piece) async for piece in pieces if isinstance(piece, bytes)]
    assert max(sizes) <= 512 * 1024 and sum(sizes) > 11 * 1024 * 1024


async def test_a_content_is_fetched_once(tmp_path: Path, peer: HttpPeer, client: HttpClient) -> None:
    """The mark in the file name finds it in the cache, for the same tenant; without a mark nothing is kept."""
    md5 = hashlib.md5(OCTETS).hexdigest()
    cache = AttachmentCache(tmp_path / "cache", CacheSettings(), lambda: 1000.0)
    sources = AttachmentSources(AttachmentSettings(QUICK), client, cache=cache)
    url = f"http://127.0.0.1:{peer.port}/a"
    marked = {"filename": f"a_{{MD5:{md5}}}.bin", "url": url}
    for _ in range(3):
        octets = await poured(sources, marked)
        assert holds(octets) and b"MD5" not in octets and b'filename="a.bin"' in octets
    assert len(peer.asked) == 1
    assert holds(await poured(sources, marked, tenant="other"))
    assert holds(await poured(sources, {"filename": "a", "url": url}))
    assert len(peer.asked) == 3
    assert sorted(os.listdir(tmp_path / "cache")) == [f"default.{md5}", f"other.{md5}"]


async def test_a_wrong_mark_is_believed_by_nobody(tmp_path: Path, peer: HttpPeer, client: HttpClient) -> None:
    """A content is kept under the MD5 that it has, so that nobody can put another one in its place."""
    cache = AttachmentCache(tmp_path / "cache", CacheSettings(), lambda: 1000.0)
    sources = AttachmentSources(AttachmentSettings(QUICK), client, cache=cache)
    wrong = {"filename": "a", "content_md5": "0" * 32, "url": f"http://127.0.0.1:{peer.port}/a"}
    assert holds(await poured(sources, wrong)) and holds(await poured(sources, wrong))
    assert len(peer.asked) == 2
    assert os.listdir(tmp_path / "cache") == [f"default.{hashlib.md5(OCTETS).hexdigest()}"]


async def test_a_broken_content_is_not_kept(tmp_path: Path, peer: HttpPeer, client: HttpClient) -> None:
    """What ends in a fault, or is given up half-way, leaves nothing behind; nor does a crash."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "unfinished-old").write_bytes(b"x")
    cache = AttachmentCache(tmp_path / "cache", CacheSettings(), lambda: 1000.0)
    sources = AttachmentSources(AttachmentSettings(QUICK), client, cache=cache)
    url = f"http://127.0.0.1:{peer.port}"
    fault = await poured(sources, {"filename": "a", "content_md5": "0" * 32, "url": f"{url}/cut"})
    assert isinstance(fault, SourceFault)
    composed, letter = made({"filename": "a", "content_md5": "0" * 32, "url": f"{url}/a"})
    async with aclosing(sources.message(composed, letter, "default")) as pieces:
        await anext(pieces)
        await anext(pieces)
    for _ in range(500):
        if not os.listdir(tmp_path / "cache"):
            break
        await asyncio.sleep(0.01)
    assert not os.listdir(tmp_path / "cache")


async def test_the_cache_has_bounds(tmp_path: Path, client: HttpClient) -> None:
    """What was used longest ago goes for size, what was not used for long goes for age."""
    clock = count(1000)
    cache = AttachmentCache(tmp_path / "cache", CacheSettings(octets=250, age=50), lambda: float(next(clock)))
    contents = [letter * 100 for letter in (b"a", b"b", b"c")]
    names = [f"default.{hashlib.md5(content).hexdigest()}" for content in contents]
    for name, content in zip("abc", contents, strict=True):
        (tmp_path / name).write_bytes(content)
    sources = AttachmentSources(AttachmentSettings(roots=(str(tmp_path),)), client, cache=cache)

    def named(place: int) -> dict[str, str]:
        return {"filename": "x", "storage_path": "abc"[place], "content_md5": names[place].partition(".")[2]}

    await poured(sources, named(0))
    await poured(sources, named(1))
    await poured(sources, named(0))  # used again, so that the second one is the oldest
    await poured(sources, named(2))
    assert sorted(os.listdir(tmp_path / "cache")) == sorted([names[0], names[2]])
    (tmp_path / "a").unlink()
    assert holds(await poured(sources, named(0)), contents[0])
    for _ in range(60):
        next(clock)
    assert isinstance(await poured(sources, named(0)), SourceFault)


async def test_a_disk_that_takes_nothing_only_costs_the_cache(
    tmp_path: Path, peer: HttpPeer, client: HttpClient
) -> None:
    """The message goes through, and nothing is kept."""
    cache = AttachmentCache(tmp_path / "cache", CacheSettings(), lambda: 1000.0)
    (tmp_path / "cache").rmdir()
    sources = AttachmentSources(AttachmentSettings(QUICK), client, cache=cache)
    marked = {"filename": "a", "content_md5": "0" * 32, "url": f"http://127.0.0.1:{peer.port}/a"}
    assert holds(await poured(sources, marked)) and holds(await poured(sources, marked))
