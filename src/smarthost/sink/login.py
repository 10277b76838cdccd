"""One AUTH exchange with the sink, for the one user that it knows (RFC 4954, 4616, 2195)."""

import hashlib
import hmac
from base64 import b64decode, b64encode

_CHALLENGE = b"<1.1@sink.test>"


class Login:
    """Plays the server's part of PLAIN, LOGIN or CRAM-MD5."""

    def __init__(self, mechanism: str, username: str, password: str) -> None:
        """Expect this user."""
        self._mechanism = mechanism
        self._expected = (username.encode(), password.encode())
        self._name: bytes | None = None

    def respond(self, text: bytes | None) -> bytes | bool:
        """Take a client's base64 text (None where it sent none yet); give a challenge in base64, or the verdict."""
        if text is None:
            first = {"PLAIN": b"", "LOGIN": b"Username:", "CRAM-MD5": _CHALLENGE}[self._mechanism]
            return b64encode(first)
        try:
            octets = b"" if text == b"=" else b64decode(text, validate=True)
        except ValueError:
            return False
        if self._mechanism == "PLAIN":
            return tuple(octets.split(b"\0")[1:]) == self._expected
        if self._mechanism == "CRAM-MD5":
            name, password = self._expected
            digest = hmac.new(password, _CHALLENGE, hashlib.md5).hexdigest().encode()
            return octets == name + b" " + digest
        if self._name is None:
            self._name = octets
            return b64encode(b"Password:")
        return (self._name, octets) == self._expected
