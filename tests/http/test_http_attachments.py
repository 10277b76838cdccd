"""Attachments through the relay's own route: from servers, a store, folders and large requests; what is too large."""

import asyncio
import email
import hashlib
import http.client
import os
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import msgspec
import pytest
from http_house import HttpHouse, Said
from http_peer import Asked, HttpPeer, answer
from moto.server import ThreadedMotoServer
from relay_house import SLOW

from smarthost.compose.limits import SubmissionLimits
from smarthost.mail.entry import Entry
from smarthost.network import http_session
from smarthost.policy.attachments import (
    AttachmentSettings,
    AttachmentTerms,
    CacheSettings,
    LargeAction,
    LargeSettings,
    S3Settings,
    UrlSettings,
)
from smarthost.policy.http_terms import HttpTerms
from smarthost.spool.store import Filter

QUICK = UrlSettings(timeout=1.0, attempts=3, pause=0.0)
OCTETS = bytes(range(256)) * 400
HELLO = {"from": "shop@example.org", "to": "ada@example.net", "subject": "Files", "text": "See below.\n"}
KIB = 1024
LIMITS = SubmissionLimits()


class Web:
    """Answers by the last word of the target, and counts."""

    def __init__(self) -> None:
        self.counts = count(1)

    async def __call__(self, asked: Asked) -> bytes | None:
        """Answer one question."""
        match asked.target.rpartition("/")[2]:
            case "slow":
                await asyncio.sleep(0.2)
            case "hang":
                await asyncio.Event().wait()
            case "flaky" if next(self.counts) < 3:
                return answer(503)
            case "down":
                return answer(500)
            case "missing":
                return answer(404)
            case "moved":
                return answer(302, b"", "Location: /there")
            case "inside":
                return answer(302, b"", "Location: http://127.0.0.2:9/")
            case "round":
                return answer(302, b"", "Location: /round?again")
            case "round?again":
                return answer(302, b"", "Location: /round")
        return answer(200, OCTETS)


@pytest.fixture
async def web() -> AsyncIterator[HttpPeer]:
    """Give a server on loopback."""
    peer = HttpPeer(Web())
    await peer.start()
    yield peer
    await peer.stop()


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """Run a store that speaks S3's protocol, with an object in it."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    made = boto3.client(
        "s3", "us-east-1", endpoint_url=endpoint, aws_access_key_id="key", aws_secret_access_key="secret"
    )
    made.create_bucket(Bucket="letters")
    made.put_object(Bucket="letters", Key="in/a b.bin", Body=OCTETS)
    yield endpoint
    server.stop()


async def opened(house: HttpHouse, limits: SubmissionLimits = LIMITS, **terms: Any) -> str:
    """Start a relay whose attachments may be anywhere; gives a key."""
    fetching = terms.pop("fetching", AttachmentSettings(QUICK))
    attachments = AttachmentTerms(fetching, **{"allow_private": True, **terms})
    await house.open_http(attachments=attachments, http_limits=limits)
    return (await house.make_key("shop"))[1]


async def sent(house: HttpHouse, token: str, *attachments: object, **fields: object) -> Said:
    """Hand in a message with attachments."""
    return await house.ask("POST", "/api/v1/messages", token, {**HELLO, **fields, "attachments": list(attachments)})


async def arrived(house: HttpHouse) -> email.message.Message:
    """Give the message that has come to the sink."""
    await house.empty()
    (mail,) = house.sink.messages
    return email.message_from_bytes(mail.content)


def contents(message: email.message.Message) -> dict[str | None, bytes]:
    """Give the attachments of a message by their names."""
    return {each.get_filename(): each.get_payload(decode=True) for each in message.walk() if each.get_filename()}


@pytest.mark.parametrize("word", ["a", "slow", "flaky", "moved"])
async def test_a_url_is_fetched_and_sent(house: HttpHouse, web: HttpPeer, word: str) -> None:
    """From a server that is slow, fails at first, or sends elsewhere."""
    token = await opened(house)
    said = await sent(house, token, {"filename": "a.bin", "url": f"http://127.0.0.1:{web.port}/{word}"})
    assert said.status == 202, said.body
    assert contents(await arrived(house)) == {"a.bin": OCTETS}


@pytest.mark.parametrize(
    ("word", "status", "says"),
    [
        ("down", 503, "127.0.0.1 answered with status 500"),
        ("hang", 503, "127.0.0.1 did not answer in time"),
        ("missing", 422, "127.0.0.1 answered with status 404"),
        ("round", 422, "redirects more than 5 times"),
    ],
)
async def test_a_server_that_fails_is_told(house: HttpHouse, web: HttpPeer, word: str, status: int, says: str) -> None:
    """503 with Retry-After for what may pass, 422 for what does not; the field is named, and nothing is sent."""
    token = await opened(house, fetching=AttachmentSettings(UrlSettings(0.3, 2, 0.0)))
    said = await sent(house, token, {"filename": "a", "url": f"http://127.0.0.1:{web.port}/secret/{word}"})
    assert said.status == status and ("Retry-After" in said.headers) is (status == 503)
    (error,) = said.json["errors"]
    assert error["field"] == "attachments[0].url" and says in error["message"] and b"secret" not in said.body
    assert (await house.server.spool.count())["total"] == 0
    content = house.folder / "spool" / "content"
    await house.until(lambda: not os.listdir(content))


async def test_no_private_address_is_spoken_to(
    house: HttpHouse, web: HttpPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by its number, not by a name, and not by a redirect of a server that is not private."""
    token = await opened(house, allow_private=False)
    for host in ("127.0.0.1", "localhost", "[::1]", "2130706433"):
        said = await sent(house, token, {"filename": "a", "url": f"http://{host}:{web.port}/a"})
        assert said.status in (422, 503) and not web.asked, host
    judge = http_session.is_public
    monkeypatch.setattr(http_session, "is_public", lambda address: address == "127.0.0.1" or judge(address))
    said = await sent(house, token, {"filename": "a", "url": f"http://127.0.0.1:{web.port}/inside"})
    assert said.status == 422 and "private address" in said.json["detail"] and len(web.asked) == 1


async def test_an_object_of_a_store(house: HttpHouse, store: str) -> None:
    """Comes by a signed request; one that is not there, or of a bucket that may not be read, is told."""
    settings = S3Settings(store, access_key="key", secret_key="secret", path_style=True, buckets=("letters", "none"))
    token = await opened(house, fetching=AttachmentSettings(QUICK, settings), allow_private=False)
    said = await sent(house, token, {"filename": "a.bin", "s3": {"bucket": "letters", "key": "in/a b.bin"}})
    assert said.status == 202, said.body
    assert contents(await arrived(house)) == {"a.bin": OCTETS}
    for bucket, key in (("letters", "none"), ("none", "a"), ("secrets", "a")):
        said = await sent(house, token, {"filename": "a", "s3": {"bucket": bucket, "key": key}})
        assert said.status == 422 and said.json["errors"][0]["field"] == "attachments[0].s3"


async def test_a_file_of_a_folder_and_the_cache(house: HttpHouse, tmp_path: Path, web: HttpPeer) -> None:
    """Below a root and nowhere else; what a mark names is fetched once, for each tenant."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.bin").write_bytes(OCTETS)
    fetching = AttachmentSettings(QUICK, roots=(str(tmp_path / "files"),))
    token = await opened(house, fetching=fetching, cache=CacheSettings(folder=str(tmp_path / "cache")))
    md5 = hashlib.md5(OCTETS).hexdigest()
    marked = {"filename": f"b_{{MD5:{md5}}}.bin", "url": f"http://127.0.0.1:{web.port}/a"}
    said = await sent(house, token, {"filename": "a.bin", "storage_path": "a.bin"}, marked)
    assert said.status == 202, said.body
    assert contents(await arrived(house)) == {"a.bin": OCTETS, "b.bin": OCTETS}
    assert (await sent(house, token, marked)).status == 202 and len(web.asked) == 1
    assert os.listdir(tmp_path / "cache") == [f"shop.{md5}"]
    said = await sent(house, token, {"filename": "a", "storage_path": "../cache/x"})
    assert said.status == 422 and said.json["errors"][0]["field"] == "attachments[0].storage_path"


async def test_a_large_request_keeps_its_octets(house: HttpHouse) -> None:
    """Contents that go to the disk while they come are sent as they were, and leave nothing behind."""
    token = await opened(house)
    content, other = os.urandom(700_001), b"s" * 100
    text = '\\ "quoted" und umlaut: ä\n' * 20_000
    files = [
        {"filename": "large.bin", "content": b64encode(content).decode()},
        {"filename": "small.bin", "content": b64encode(other).decode()},
        {"filename": "again.bin", "content": b64encode(content[::-1]).decode()},
    ]
    headers = {"Idempotency-Key": "large"}
    whole = {**HELLO, "text": text, "attachments": files}
    said = await house.ask("POST", "/api/v1/messages", token, whole, headers)
    assert said.status == 202, said.body
    message = await arrived(house)
    assert contents(message) == {"large.bin": content, "small.bin": other, "again.bin": content[::-1]}
    (body,) = [each for each in message.walk() if each.get_content_type() == "text/plain"]
    assert body.get_payload(decode=True).decode().replace("\r\n", "\n") == text
    again = await house.ask("POST", "/api/v1/messages", token, whole, headers)
    assert (again.status, again.body) == (202, said.body)
    files[2]["content"] = files[0]["content"]
    assert (await house.ask("POST", "/api/v1/messages", token, whole, headers)).status == 409
    assert not os.listdir(house.folder / "scratch")


async def test_a_large_request_is_held_to_the_limits(house: HttpHouse) -> None:
    """One content, all together, what is no base64, and one that is no attachment's."""
    limits = SubmissionLimits(attachments=500_000)
    token = await opened(house, limits, fetching=AttachmentSettings(QUICK, largest=300_000))
    fits, long = b64encode(b"x" * 250_000).decode(), b64encode(b"x" * 300_001).decode()
    for contents_given, field, says in (
        ([long], "attachments[0].content", "larger than 300000 octets"),
        ([fits, fits, fits], "attachments", "in all"),
        ([fits, fits[:-4] + "!!!!"], "attachments[1].content", "is not base64"),
    ):
        said = await sent(house, token, *({"filename": "a", "content": each} for each in contents_given))
        assert said.status == 422 and said.json["errors"][0]["field"] == field, said.body
        assert says in said.json["errors"][0]["message"]
    said = await sent(house, token, metadata={"content": fits})
    assert said.status == 422 and "content" in said.json["detail"]


async def test_what_goes_to_the_disk_is_no_part_of_the_request(house: HttpHouse) -> None:
    """The size of a request is that of what stays in memory; text that is too long is 413 with an attachment, too."""
    await house.open_http(http=HttpTerms(max_request_size=400_000))
    _, token = await house.make_key("shop")
    file = {"filename": "a", "content": b64encode(b"x" * 900_000).decode()}
    assert (await sent(house, token, file)).status == 202
    assert (await sent(house, token, file, text="x" * 500_000)).status == 413


async def test_a_large_attachment_is_warned_of(house: HttpHouse, web: HttpPeer) -> None:
    """The answer says which one, a dry run as far as it is known, and the message is sent as it is."""
    token = await opened(house, large=LargeSettings(above=KIB))
    large = {"filename": "b", "content": b64encode(b"b" * 2 * KIB).decode()}
    small = {"filename": "a", "content": b64encode(b"a" * KIB).decode()}
    fetched = {"filename": "c", "url": f"http://127.0.0.1:{web.port}/a"}
    said = await sent(house, token, small, large, fetched)
    assert said.status == 202
    assert [each["field"] for each in said.json["warnings"]] == ["attachments[1]", "attachments[2]"]
    assert "0.1 MiB" in said.json["warnings"][1]["message"]
    assert len(contents(await arrived(house))) == 3
    dry = await sent(house, token, small, large, fetched, dry_run=True)
    assert [each["field"] for each in dry.json["warnings"]] == ["attachments[1]"]
    assert "warnings" not in (await sent(house, token, small)).json


async def test_a_large_attachment_is_rejected(house: HttpHouse, web: HttpPeer) -> None:
    """Wherever it comes from."""
    token = await opened(house, large=LargeSettings(KIB, LargeAction.REJECT))
    for large in (
        {"filename": "b", "content": b64encode(b"b" * 2 * KIB).decode()},
        {"filename": "c", "url": f"http://127.0.0.1:{web.port}/a"},
    ):
        said = await sent(house, token, large)
        assert said.status == 422 and "larger than 1024 octets" in said.json["detail"]


async def linked(house: HttpHouse) -> str:
    """Have a large attachment become a link; gives its path and query."""
    token = await opened(house, large=LargeSettings(KIB, LargeAction.REWRITE, 3600.0, "https://files.example.org"))
    large = {"filename": 'ä "b".html', "content_type": "text/html", "content": b64encode(OCTETS * 5).decode()}
    said = await sent(house, token, large, {"filename": "c", "content": "QUJD"})
    assert said.status == 202 and [each["field"] for each in said.json["warnings"]] == ["attachments[0]"]
    message = await arrived(house)
    assert contents(message) == {"c": b"ABC"}
    (text,) = [each.get_payload(decode=True) for each in message.walk() if each.get_content_type() == "text/plain"]
    link = next(line for line in text.decode().splitlines() if line.startswith("https://files.example.org/api/"))
    return urlsplit(link)._replace(scheme="", netloc="").geturl()


async def test_a_large_attachment_becomes_a_link(house: HttpHouse) -> None:
    """Who has it gets the file without a key, under its name, and as nothing that runs."""
    path = await linked(house)
    said = await house.ask("GET", path)
    assert said.status == 200 and said.body == OCTETS * 5
    assert said.headers["Content-Length"] == str(len(OCTETS) * 5)
    assert said.headers["Content-Disposition"] == (
        "attachment; filename=\"_ _b_.html\"; filename*=UTF-8''%C3%A4%20%22b%22.html"
    )
    assert "sandbox" in said.headers["Content-Security-Policy"]
    assert said.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_link_that_is_not_good(house: HttpHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    """403 if it was changed, 410 if it is over, 404 if there is no file, each as a problem document."""
    path = await linked(house)
    folder = house.folder / "downloads"
    name = next(each for each in os.listdir(folder) if not each.endswith(".json"))
    changed = path.replace("expires=1", "expires=2")
    for wrong, status in ((path[:-1] + "z", 403), (changed, 403), (path.partition("?")[0], 404)):
        said = await house.ask("GET", wrong)
        assert said.status == status and said.headers["Content-Type"] == "application/problem+json", wrong
    os.rename(folder / name, folder / "elsewhere")
    assert (await house.ask("GET", path)).status == 404
    os.rename(folder / "elsewhere", folder / name)
    downloads = house.server.api.attachments._downloads
    monkeypatch.setattr(downloads, "_now", lambda: 99_999_999_999.0)
    assert (await house.ask("GET", path)).status == 410
    assert house.server.api.attachments.sweep(99_999_999_999.0) == 1 and not os.listdir(folder)


async def test_expired_files_go_by_themselves(house: HttpHouse) -> None:
    """The relay's watch deletes them, even after a start at which nobody asked for anything."""
    await linked(house)
    folder = house.folder / "downloads"
    assert len(os.listdir(folder)) == 2
    for described in folder.glob("*.json"):
        described.write_bytes(re.sub(rb'"expires":\d+', b'"expires":1', described.read_bytes()))
    await house.server.stop()
    await house.open_http(attachments=AttachmentTerms())
    await house.until(lambda: not os.listdir(folder))


async def test_a_reader_that_goes_away_leaves_no_file_open(house: HttpHouse) -> None:
    """The download ends with its connection."""
    path = await linked(house)
    connection = http.client.HTTPConnection(*house.http, timeout=20)
    connection.request("GET", path)
    response = await asyncio.to_thread(connection.getresponse)
    await asyncio.to_thread(response.read, 1000)
    connection.close()
    await house.until(lambda: not any("/downloads/" in each for each in _open_files()))


def _open_files() -> list[str]:
    found = []
    for each in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{each}"))
        except OSError:
            continue
    return found


async def test_a_reload_changes_what_is_allowed(house: HttpHouse, web: HttpPeer) -> None:
    """Limits, sources and the answer to large attachments follow the configuration."""
    token = await opened(house)
    url = {"filename": "a", "url": f"http://127.0.0.1:{web.port}/a"}
    assert (await sent(house, token, url)).status == 202
    terms = AttachmentTerms(AttachmentSettings(QUICK, largest=KIB), large=LargeSettings(KIB, LargeAction.REJECT))
    limits = msgspec.structs.replace(house.server.config.http_limits, recipients=1)
    config = msgspec.structs.replace(house.server.config, attachments=terms, http_limits=limits)
    house.server.api.follow(config)
    said = await sent(house, token, url)
    assert said.status == 422 and "private address" in said.json["detail"]
    said = await sent(house, token, to=["a@example.net", "b@example.net"])
    assert said.status == 422 and "1 are allowed" in said.json["detail"]


async def waiting(house: HttpHouse) -> Entry:
    """Give the entry that waits for another attempt."""
    found: list[Entry] = []
    async with asyncio.timeout(15):
        while not found or not found[0].attempts:
            found = list(await house.server.spool.select(Filter(), 10, (0, 0)))
            await asyncio.sleep(0.02)
    return found[0]


async def test_a_message_brings_its_own_pace(house: HttpHouse) -> None:
    """Its delays and its lifetime hold for it, over a restart too, and for no other message."""
    await house.open_http(retry=SLOW)
    _, token = await house.make_key("shop")
    retry = {"schedule": [4000, 9000], "lifetime": 7200}
    said = await house.ask("POST", "/api/v1/messages", token, {**HELLO, "to": "451@example.net", "retry": retry})
    assert said.status == 202, said.body
    entry = await waiting(house)
    at = entry.message.arrival.at
    assert entry.expires == at + 7200 and 3399 <= entry.due - at <= 4700
    await house.server.stop()
    await house.open_http(retry=SLOW)
    pace = (await waiting(house)).message.envelope.pace
    assert pace is not None and (pace.schedule, pace.lifetime) == ((4000.0, 9000.0), 7200.0)


async def test_a_quick_pace_is_kept(house: HttpHouse) -> None:
    """What is refused once is relayed by the second attempt, long before the relay's own schedule."""
    await house.open_http(retry=SLOW)
    _, token = await house.make_key("shop")
    message = {**HELLO, "to": "451.once@example.net", "retry": {"schedule": [1]}}
    assert (await house.ask("POST", "/api/v1/messages", token, message)).status == 202
    await house.empty()
    assert house.sink.counts.messages == 1


@pytest.mark.parametrize(
    ("retry", "field"),
    [
        ({"schedule": [0.5]}, "retry.schedule[0]"),
        ({"schedule": [60] * 31}, "retry.schedule"),
        ({"schedule": [60, 700_000]}, "retry.schedule[1]"),
        ({"lifetime": 59}, "retry.lifetime"),
        ({"lifetime": 31 * 86400}, "retry.lifetime"),
        ({"first": 60}, "retry"),
    ],
)
async def test_a_pace_has_bounds(house: HttpHouse, retry: object, field: str) -> None:
    """What is beyond them is refused by its field."""
    await house.open_http()
    _, token = await house.make_key("shop")
    said = await house.ask("POST", "/api/v1/messages", token, {**HELLO, "retry": retry})
    assert said.status == 422 and said.json["errors"][0]["field"] == field, said.body
