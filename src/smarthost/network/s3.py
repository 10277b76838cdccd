"""Reads objects of a store that speaks S3's protocol, with requests signed by AWS Signature Version 4."""

import re
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime
from hashlib import sha256
from hmac import digest
from urllib.parse import quote, urlsplit

from smarthost.compose.fault import excerpt
from smarthost.compose.submission import StoredObject
from smarthost.network.fetch_url import Pieces, host_of, read_answer
from smarthost.network.http_client import HttpClient, HttpRequest, HttpStream
from smarthost.network.source_fault import SourceFault
from smarthost.policy.attachments import S3Settings

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_LONGEST_KEY = 1024  # octets
_NOTHING = sha256(b"").hexdigest()
_ALGORITHM = "AWS4-HMAC-SHA256"


class S3Reader:
    """Reads objects by one set of credentials. `now` gives Unix seconds."""

    def __init__(self, client: HttpClient, settings: S3Settings, now: Callable[[], float], timeout: float) -> None:
        """Ask by a client; it may speak to private addresses if it is allowed to, for the endpoint is configured."""
        self._client, self._settings, self._now, self._timeout = client, settings, now, timeout

    async def read(self, named: StoredObject, largest: int, field: str) -> Pieces:
        """Give an object block by block, at most `largest` octets; what goes wrong is the last piece."""
        if wrong := self._wrong_name(named):
            yield SourceFault(field, wrong)
            return
        url = object_url(self._settings, named)
        headers = sign(self._settings, "GET", url, self._now())
        request = HttpRequest("GET", url, headers, timeout=self._timeout, encoded=True)
        async with self._client.open(request) as answer:
            if isinstance(answer, HttpStream) and answer.status != 200:
                yield SourceFault(field, _said(named, answer.status), answer.status in (429, 500, 502, 503, 504))
                return
            async with aclosing(read_answer(answer, largest, field, host_of(url))) as pieces:
                async for piece in pieces:
                    yield piece

    def _wrong_name(self, named: StoredObject) -> str:
        allowed = self._settings.buckets
        if _BUCKET.fullmatch(named.bucket) is None or ".." in named.bucket:
            return f"{excerpt(named.bucket)} is not the name of a bucket"
        if allowed and named.bucket not in allowed:
            return f"the bucket {excerpt(named.bucket)} is not one that may be read"
        if not 0 < len(named.key.encode("utf-8", "replace")) <= _LONGEST_KEY:
            return f"the key has to have 1 to {_LONGEST_KEY} octets"
        return ""


def _said(named: StoredObject, status: int) -> str:
    """Say what a status means for an object."""
    bucket, key = excerpt(named.bucket), excerpt(named.key)
    if status == 404:
        return f"the bucket {bucket} has no {key}"
    if status == 403:
        return f"{key} of the bucket {bucket} may not be read with the relay's credentials"
    if 300 <= status < 400:
        return f"the bucket {bucket} is in another region than the one that is configured"
    return f"the store answered with status {status}"


def object_url(settings: S3Settings, named: StoredObject) -> str:
    """Give the address of an object, written as the signature wants it."""
    path = quote(named.key.encode(), safe="/-_.~")
    endpoint = urlsplit(settings.endpoint)
    if settings.path_style:
        return f"{endpoint.scheme}://{endpoint.netloc}/{named.bucket}/{path}"
    return f"{endpoint.scheme}://{named.bucket}.{endpoint.netloc}/{path}"


def sign(settings: S3Settings, method: str, url: str, now: float) -> dict[str, str]:
    """Give the headers that authorise a request without a body and without a query."""
    parts = urlsplit(url)
    at = datetime.fromtimestamp(int(now), UTC).strftime("%Y%m%dT%H%M%SZ")
    headers = {"host": parts.netloc, "x-amz-content-sha256": _NOTHING, "x-amz-date": at}
    if settings.session_token:
        headers["x-amz-security-token"] = settings.session_token
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical = "\n".join([method, parts.path, "", lines, names, _NOTHING])
    scope = f"{at[:8]}/{settings.region}/s3/aws4_request"
    to_sign = "\n".join([_ALGORITHM, at, scope, sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{settings.secret_key}".encode()
    for part in scope.split("/"):
        key = digest(key, part.encode(), "sha256")
    signature = digest(key, to_sign.encode(), "sha256").hex()
    credential = f"{settings.access_key}/{scope}"
    headers["authorization"] = f"{_ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return headers
