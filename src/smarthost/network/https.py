"""Posts forms and gets texts over HTTPS by the standard library, each in a thread: for what is asked once an hour."""

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlencode, urlsplit

import msgspec

TIMEOUT = 20.0  # seconds for each step of a request, and for all of its answer
_MOST_OCTETS = 64 * 1024


class Answer(msgspec.Struct, frozen=True):
    """What was answered; its representation hides the body. `content_type` is in lower case, without parameters."""

    status: int
    body: bytes
    content_type: str = ""

    def __repr__(self) -> str:
        """Write it without the body."""
        return f"Answer(status={self.status})"


class HttpsFault(msgspec.Struct, frozen=True):
    """Why there was no answer; `reason` is the end of a sentence that begins with who was asked."""

    reason: str


class _TooLong(Exception):
    """The answer has more octets than any that is asked for."""


class _Connection(http.client.HTTPSConnection):
    """A connection to an address that was looked up before; its certificate must be for the host's name.

    `cut` ends it, from another thread: a peer that sends an octet now and then would else hold its thread for ever.
    """

    def __init__(self, host: str, address: str, port: int, timeout: float, context: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=timeout, context=context)
        self._address, self._tls, self._is_cut = address, context, False

    def connect(self) -> None:
        self.sock = socket.create_connection((self._address, self.port), self.timeout)
        if not self._is_cut:
            self.sock = self._tls.wrap_socket(self.sock, server_hostname=self.host)
        if self._is_cut:
            # It was cut before there was anything that could be: during the handshake nobody holds the socket.
            raise TimeoutError

    def cut(self) -> None:
        self._is_cut = True
        if isinstance(self.sock, socket.socket):
            with suppress(OSError):
                # The plain method: TLS's own changes what the other thread is using.
                socket.socket.shutdown(self.sock, socket.SHUT_RDWR)


def post_form(url: str, fields: Mapping[str, str], context: ssl.SSLContext, timeout: float) -> Answer | HttpsFault:
    """Post fields and wait for the answer, at most about `timeout` seconds for each step; what goes wrong is a value.

    A redirect is an answer like others and not followed: what is sent is secret. http:// goes without TLS.
    """
    parts = urlsplit(url)
    connection: http.client.HTTPConnection
    if parts.scheme == "http":
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    else:
        connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=timeout, context=context)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    return _ask(connection, "POST", target, urlencode(fields), headers, timeout)


def get_text(
    url: str, address: str, context: ssl.SSLContext, timeout: float, *, port: int = 443
) -> Answer | HttpsFault:
    """Get a text from the host of an https:// URL at an address, within `timeout` seconds; faults are values.

    A redirect is an answer like others and not followed (RFC 8461 3.3).
    """
    parts = urlsplit(url)
    connection = _Connection(parts.hostname or "", address, port, timeout, context)
    watch = threading.Timer(timeout, connection.cut)
    watch.daemon = True
    watch.start()
    try:
        return _ask(connection, "GET", parts.path or "/", None, {"Accept": "text/plain"}, timeout)
    finally:
        watch.cancel()


def _ask(
    connection: http.client.HTTPConnection,
    method: str,
    target: str,
    body: str | None,
    headers: Mapping[str, str],
    timeout: float,
) -> Answer | HttpsFault:
    """Put one request; what goes wrong becomes a value here."""
    try:
        connection.request(method, target, body, headers)
        response = connection.getresponse()
        content_type = (response.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
        return Answer(response.status, _read(response, time.monotonic() + timeout), content_type)
    except ssl.SSLCertVerificationError as error:
        return HttpsFault(f"has no valid certificate: {error.verify_message or 'not trusted'}")
    except ssl.SSLError:
        return HttpsFault("cannot be spoken to: the TLS handshake failed")
    except TimeoutError:
        return HttpsFault("did not answer in time")
    except _TooLong:
        return HttpsFault("gave an answer that is too long")
    except ConnectionRefusedError:
        return HttpsFault("refuses connections")
    except (OSError, http.client.HTTPException, UnicodeError) as error:
        what = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        return HttpsFault(f"cannot be reached ({what})")
    finally:
        connection.close()


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    body = bytearray()
    while block := response.read1(8192):
        body += block
        if len(body) > _MOST_OCTETS:
            raise _TooLong
        if time.monotonic() > deadline:
            raise TimeoutError
    return bytes(body)
