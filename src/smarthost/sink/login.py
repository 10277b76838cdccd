"""One AUTH exchange with the sink, for the one user that it knows (RFC 4954, 4616, 2195, 7628)."""

import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Collection

_CHALLENGE = b"<1.1@sink.test>"
_REFUSAL = b'{"status":"401","schemes":"Bearer","scope":"https://sink.test/"}'
_BY_TOKEN = ("XOAUTH2", "OAUTHBEARER")


class Login:
    """Plays the server's part of PLAIN, LOGIN, CRAM-MD5, XOAUTH2 or OAUTHBEARER."""

    def __init__(self, mechanism: str, username: str, password: str, tokens: Collection[str] = ()) -> None:
        """Expect this user, with the password or, by the mechanisms that take one, any of the access tokens."""
        self._mechanism = mechanism
        self._tokens = tokens
        self._is_refused = False
        self._expected = (username.encode(), password.encode())
        self._name: bytes | None = None

    def respond(self, text: bytes | None) -> bytes | bool:
        """Take a client's base64 text (None where it sent none yet); give a challenge in base64, or the verdict."""
        if self._is_refused:
            return False
        if text is None:
            return b64encode({"LOGIN": b"Username:", "CRAM-MD5": _CHALLENGE}.get(self._mechanism, b""))
        try:
            octets = b"" if text == b"=" else b64decode(text, validate=True)
        except ValueError:
            return False
        if self._mechanism in _BY_TOKEN:
            if self._has_token(octets):
                return True
            # The reason comes as a challenge; whatever the client says to it, the reply behind it is a refusal.
            self._is_refused = True
            return b64encode(_REFUSAL)
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

    def _has_token(self, octets: bytes) -> bool:
        first, *fields = octets.split(b"\1")
        name = self._expected[0]
        if self._mechanism == "OAUTHBEARER":
            name = name.replace(b"=", b"=3D").replace(b",", b"=2C")  # RFC 5801 4
        expected = b"user=" + name if self._mechanism == "XOAUTH2" else b"n,a=" + name + b","
        given = [field.removeprefix(b"auth=Bearer ") for field in fields if field.startswith(b"auth=Bearer ")]
        is_whole = octets.endswith(b"\1\1") and first == expected and len(given) == 1
        return is_whole and given[0].decode("ascii", "replace") in self._tokens
