"""What is kept of aiosmtpd: its AUTH exchange and rarer verbs, fed line by line by our own pump."""

import re
from abc import abstractmethod
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from aiosmtpd.smtp import MISSING, SMTP, AuthResult, Envelope, LoginPassword, Session, syntax

from smarthost.mail.outcome import Stage
from smarthost.mail.reply import AUTH_BUSY, TOO_MANY_FAILURES, Reply, make_reply
from smarthost.policy.admission import Auth, User
from smarthost.reception.dialogue import Dialogue

NO_AUTH_HERE = make_reply(502, "5.5.1", "AUTH is not offered here")
EHLO_FIRST = make_reply(503, "5.5.1", "Send EHLO first")
LOGGED_IN = make_reply(503, "5.5.1", "Already authenticated")
AUTH_IN_TRANSACTION = make_reply(503, "5.5.1", "AUTH is not permitted during a transaction")
AUTH_NEEDS_TLS = make_reply(538, "5.7.11", "Encryption required for requested authentication mechanism")
NO_MECHANISM = make_reply(501, "5.5.4", "Name one mechanism and at most one response")
BAD_RESPONSE = make_reply(501, "5.5.2", "The response cannot be read")
OTHER_IDENTITY = make_reply(535, "5.7.8", "Nobody may act as another user")

_HAS_STATUS = re.compile(r"\d{3}[ -]\d\.\d{1,3}\.\d{1,3}(?: |$)")
_CONTROLS = re.compile(r"[\x00-\x1f\x7f]")
# aiosmtpd writes many replies without an enhanced status, which RFC 2034 4 demands of whoever offers them.
_STATUSES: Mapping[str, str] = MappingProxyType(
    {"252": "2.5.2", "500": "5.5.2", "501": "5.5.4", "502": "5.5.1", "503": "5.5.1", "504": "5.5.4"}
)


class StockSession(Session):
    """aiosmtpd's session without its deprecated property, which logs a warning at each login."""

    login_data: Any = None


class LineReader:
    """Stands where aiosmtpd expects a stream: gives the next whole line, so that no stream holds octets of its own."""

    def __init__(self, session: "StockVerbs") -> None:
        """Read from a session's pump."""
        self._session = session

    async def readline(self) -> bytes:
        """Give the next line without its end."""
        return await self._session.next_line()


class StockVerbs(SMTP):
    """aiosmtpd's SMTP class as far as we use it. Its constructor runs once per process, not once per connection.

    A session takes the template's attributes over when a rare verb is first used; most never do.
    """

    AuthLoginUsernameChallenge = "Username:"
    AuthLoginPasswordChallenge = "Password:"

    dialogue: Dialogue
    _mechanisms: Mapping[str, Any]
    _reader: Any

    @abstractmethod
    def stock_template(self) -> Mapping[str, Any]:
        """Give the attributes that `make_template` made."""

    @abstractmethod
    def say(self, reply: bytes, code: int) -> None:
        """Send a reply now."""

    @abstractmethod
    def end(self, reply: Reply) -> None:
        """Send a last reply and close."""

    @abstractmethod
    async def next_line(self) -> bytes:
        """Give the client's next line."""

    @classmethod
    def make_template(cls, hostname: str, loop: Any) -> Mapping[str, Any]:
        """Run aiosmtpd's constructor once and give the attributes that sessions share."""
        template = SMTP.__new__(cls)
        # auth_require_tls is our decision (`Dialogue.offers_auth`); a hostname avoids a look-up by the resolver.
        SMTP.__init__(template, None, hostname=hostname, enable_SMTPUTF8=True, auth_require_tls=False, loop=loop)
        own = {name: value for name, value in vars(template).items() if name not in ("_closed", "_auth_methods")}
        # The table's methods are bound to the template; sessions bind their own.
        own["_mechanisms"] = MappingProxyType(dict(template._auth_methods))
        return MappingProxyType(own)

    def adopt_stock(self) -> None:
        """Get ready for aiosmtpd's verbs; the second time only what was said since is brought up to date."""
        own = vars(self)
        if "_mechanisms" not in own:
            for name, value in self.stock_template().items():
                own.setdefault(name, value)
            self.session = StockSession(self.loop)
            self._reader = LineReader(self)
            self._auth_methods = {
                name: mechanism._replace(method=getattr(self, mechanism.method.__name__))
                for name, mechanism in self._mechanisms.items()
            }
        session = self.session
        assert session is not None
        session.host_name = self.dialogue.ehlo
        session.extended_smtp = self.dialogue.extended
        session.authenticated = self.dialogue.user is not None
        self.envelope = Envelope()

    async def push(self, status: str | bytes) -> None:
        """Send a reply of aiosmtpd's, with an enhanced status, and nothing in it that could end the line."""
        text = status.decode("utf-8", "replace") if isinstance(status, bytes) else status
        code = text[:3]
        if code[0] in "245" and not _HAS_STATUS.match(text):
            text = f"{text[:4]}{_STATUSES.get(code, f'{code[0]}.0.0')} {text[4:]}"
        self.say(_CONTROLS.sub("?", text).encode("utf-8", "replace") + b"\r\n", int(code))

    @syntax("AUTH <mechanism> [initial-response]")
    async def smtp_AUTH(self, arg: str | None) -> None:
        """Log a client in (RFC 4954); mechanism names in any case."""
        words = (arg or "").split()
        refusal = self._auth_refusal(words)
        if refusal is not None:
            self.say(refusal.encode(), refusal.code)
            return
        if self.dialogue.parts.credentials.failures.is_blocked(self.dialogue.client):
            self.end(self.dialogue.reject(Stage.AUTH, TOO_MANY_FAILURES))
            return
        words[0] = words[0].upper()
        await super().smtp_AUTH(" ".join(words))

    def _auth_refusal(self, words: list[str]) -> Reply | None:
        dialogue = self.dialogue
        if not dialogue.extended:
            return EHLO_FIRST
        if dialogue.listener.auth is Auth.NONE:
            return NO_AUTH_HERE
        if dialogue.user is not None:
            return LOGGED_IN
        if dialogue.mail is not None:
            return AUTH_IN_TRANSACTION
        if not dialogue.offers_auth:
            return AUTH_NEEDS_TLS
        return None if 1 <= len(words) <= 2 else NO_MECHANISM

    async def auth_PLAIN(self, _: Any, args: list[str]) -> AuthResult:
        """Take authorization identity, name and password in one response (RFC 4616)."""
        if len(args) == 1:
            response = await self.challenge_auth("")
            if response is MISSING:
                return AuthResult(success=False)
        else:
            try:
                # "=" is an empty response (RFC 4954 4).
                response = b"" if args[1] == "=" else b64decode(args[1].encode(), validate=True)
            except (Base64Error, UnicodeError):
                response = b""
        words = response.split(b"\0")
        if len(words) != 3:
            self.say(BAD_RESPONSE.encode(), BAD_RESPONSE.code)
            return AuthResult(success=False)
        other, name, password = words
        if other and other != name:
            return self._refuse_login(OTHER_IDENTITY, name)
        return await self._log_in(LoginPassword(name, password))

    async def auth_LOGIN(self, _: Any, args: list[str]) -> AuthResult:
        """Take name and password one by one, as old clients do."""
        claim = await super().auth_LOGIN(_, args)
        return await self._log_in(claim.auth_data) if claim.success else claim

    def _authenticate(self, mechanism: str, auth_data: Any) -> AuthResult:
        # aiosmtpd would decide here, on the event loop; it only hands on what was said.
        return AuthResult(success=True, auth_data=auth_data)

    async def _log_in(self, said: Any) -> AuthResult:
        dialogue = self.dialogue
        logins = dialogue.parts.counters.logins
        try:
            name, password = said.login.decode(), said.password.decode()
        except UnicodeDecodeError:
            self.say(BAD_RESPONSE.encode(), BAD_RESPONSE.code)
            return AuthResult(success=False)
        verdict = await dialogue.parts.credentials.verify(name, password, dialogue.client)
        if isinstance(verdict, User):
            dialogue.user = verdict
            logins["ok"] += 1
            return AuthResult(success=True)
        logins["busy" if verdict is AUTH_BUSY else "refused"] += 1
        return self._refuse_login(verdict, said.login)

    def _refuse_login(self, reply: Reply, name: bytes) -> AuthResult:
        self.dialogue.reject(Stage.AUTH, reply, user=_CONTROLS.sub("?", name[:64].decode("utf-8", "replace")))
        if reply.code == 421:
            self.end(reply)
        else:
            self.say(reply.encode(), reply.code)
        return AuthResult(success=False)
