"""Objects of an S3 store are read by signed requests; the signatures are those of another implementation."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator

import boto3
import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from smarthost.compose.submission import StoredObject
from smarthost.network.dns import Resolver
from smarthost.network.http_client import HttpClient
from smarthost.network.s3 import S3Reader, object_url, sign
from smarthost.network.source_fault import SourceFault
from smarthost.policy.attachments import S3Settings

SETTINGS = S3Settings("https://s3.eu-south-1.amazonaws.com", "eu-south-1", "AKIDEXAMPLE", "wJalr/EXAMPLE+KEY")
KEYS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=60)


@given(KEYS, st.booleans(), st.sampled_from(["", "token/+="]))
def test_signatures_are_those_of_the_protocol(key: str, path_style: bool, token: str) -> None:
    """Whatever the key is made of, and with a session's token as without."""
    settings = S3Settings(
        SETTINGS.endpoint, SETTINGS.region, SETTINGS.access_key, SETTINGS.secret_key, token, path_style
    )
    url = object_url(settings, StoredObject("bucket", key))
    ours = sign(settings, "GET", url, 1763800000.0)
    request = AWSRequest("GET", url, headers={"x-amz-content-sha256": ours["x-amz-content-sha256"]})
    request.context["timestamp"] = ours["x-amz-date"]
    signer = S3SigV4Auth(Credentials(settings.access_key, settings.secret_key, token or None), "s3", settings.region)
    request.headers["X-Amz-Date"] = ours["x-amz-date"]
    if token:
        request.headers["X-Amz-Security-Token"] = token
    to_sign = signer.string_to_sign(request, signer.canonical_request(request))
    assert ours["authorization"].endswith(f"Signature={signer.signature(to_sign, request)}")


def test_credentials_are_not_shown() -> None:
    """Neither of the settings' parts that are secret is in their representation."""
    assert SETTINGS.secret_key not in repr(SETTINGS) and SETTINGS.access_key not in repr(SETTINGS)


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """Run a store on loopback with a bucket and objects in it."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    made = boto3.client(
        "s3", "us-east-1", endpoint_url=endpoint, aws_access_key_id="key", aws_secret_access_key="secret"
    )
    made.create_bucket(Bucket="letters")
    made.put_object(Bucket="letters", Key="a/report 1+2é.pdf", Body=b"x" * 300_000)
    yield endpoint
    server.stop()


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    """Give a client that may speak to loopback."""
    resolver = Resolver(("127.0.0.1:1",), asyncio.get_running_loop().time, lambda *_: None)
    client = HttpClient(resolver, ssl.create_default_context, allow_private=True)
    yield client
    await client.close()


async def read(client: HttpClient, endpoint: str, bucket: str, key: str, largest: int = 10**6, **how: object) -> object:
    """Give an object, or the fault."""
    settings = S3Settings(endpoint, "us-east-1", "key", "secret", path_style=True, **how)
    reader = S3Reader(client, settings, lambda: 1763800000.0, 10.0)
    pieces = [piece async for piece in reader.read(StoredObject(bucket, key), largest, "attachments[0].s3")]
    if pieces and isinstance(pieces[-1], SourceFault):
        return pieces[-1]
    return b"".join(piece for piece in pieces if isinstance(piece, bytes))


async def test_an_object_is_read(store: str, client: HttpClient) -> None:
    """With a key that needs every kind of encoding."""
    assert await read(client, store, "letters", "a/report 1+2é.pdf") == b"x" * 300_000


@pytest.mark.parametrize(
    ("bucket", "key", "says"),
    [
        ("letters", "none", 'the bucket "letters" has no "none"'),
        ("nowhere", "a", 'the bucket "nowhere" has no "a"'),
        ("a.b/../c", "a", "not the name of a bucket"),
        ("evil.example.org#", "a", "not the name of a bucket"),
        ("letters", "k" * 1025, "1 to 1024 octets"),
    ],
)
async def test_a_fault_names_bucket_and_key(store: str, client: HttpClient, bucket: str, key: str, says: str) -> None:
    """What is not there, and what cannot be a name."""
    fault = await read(client, store, bucket, key)
    assert isinstance(fault, SourceFault) and says in fault.message and fault.field == "attachments[0].s3"


async def test_only_buckets_that_are_configured_are_read(store: str, client: HttpClient) -> None:
    """A list of buckets is all that a request may name."""
    fault = await read(client, store, "letters", "a", buckets=("others",))
    assert isinstance(fault, SourceFault) and "not one that may be read" in fault.message


async def test_an_object_that_is_too_large_is_not_read(store: str, client: HttpClient) -> None:
    """Its length is known before its octets."""
    fault = await read(client, store, "letters", "a/report 1+2é.pdf", largest=299_999)
    assert isinstance(fault, SourceFault) and "larger than 299999 octets" in fault.message


async def test_a_store_that_is_away_is_a_passing_fault(client: HttpClient) -> None:
    """It may be there again later."""
    fault = await read(client, "http://127.0.0.1:1", "letters", "a")
    assert isinstance(fault, SourceFault) and fault.passing
