"""Logs in at a peer: by password with the best mechanism that is offered, or by an OAuth 2.0 access token."""

from base64 import b64encode

import aiosmtplib

from smarthost.mail.outcome import Stage
from smarthost.network.open_fault import Refusal, fault_at
from smarthost.network.opening import Credentials
from smarthost.policy.classify import NetFault
from smarthost.wire.extensions import Extensions

# Under TLS the plainest goes first, since servers that store hashes can do no other; without it, the one that hides
# the password.
_UNDER_TLS = ("PLAIN", "LOGIN", "CRAM-MD5")
_IN_PLAIN_TEXT = ("CRAM-MD5", "PLAIN", "LOGIN")
_BY_TOKEN = ("XOAUTH2", "OAUTHBEARER")
_TRY_NEXT = (504, 534)  # mechanism not known, mechanism too weak (RFC 4954 6): the password was not looked at
_CONTINUE = 334


class Login:
    """One login at one peer."""

    def __init__(self, client: aiosmtplib.SMTP, extensions: Extensions, timeout: float) -> None:
        """Take a connection that was greeted; `timeout` is the seconds to wait for each reply."""
        self._client, self._offered, self._timeout = client, extensions.auth, timeout

    async def by_password(self, credentials: Credentials, is_secret: bool) -> None:
        """Try the usable mechanisms in order; raises Refusal, or what OPENING_ERRORS names.

        `is_secret` says that the connection hides what is sent.
        """
        wanted = (credentials.mechanism.upper(),) if credentials.mechanism else ()
        usable = self._usable(wanted or (_UNDER_TLS if is_secret else _IN_PLAIN_TEXT))
        for mechanism in usable:
            try:
                await self._by(mechanism, credentials)
                return
            except aiosmtplib.SMTPAuthenticationError as refused:
                # After a wrong password no other mechanism is tried: that would only lock the account.
                if refused.code not in _TRY_NEXT or mechanism == usable[-1]:
                    raise

    async def by_token(self, username: str, token: str, host: str, port: int) -> None:
        """Log in by XOAUTH2, or by OAUTHBEARER (RFC 7628) where only that is offered; raises as `by_password` does.

        A refusal comes as 334 with a JSON text; the answer to that is empty, or one 0x01, and what counts is the
        reply behind it.
        """
        mechanism = self._usable(_BY_TOKEN)[0]
        bearer = f"auth=Bearer {token}\x01\x01"
        if mechanism == "XOAUTH2":
            first, last = f"user={username}\x01{bearer}", b""
        else:
            name = username.replace("=", "=3D").replace(",", "=2C")  # RFC 5801 4
            first, last = f"n,a={name},\x01host={host}\x01port={port}\x01{bearer}", b"AQ=="
        encoded = b64encode(first.encode())
        reply = await self._client.execute_command(b"AUTH", mechanism.encode(), encoded, timeout=self._timeout)
        if reply.code == _CONTINUE:
            reply = await self._client.execute_command(last, timeout=self._timeout)
        if not 200 <= reply.code < 300:
            # Some peers repeat a command that they do not like, and what they say is logged.
            said = reply.message.replace(encoded.decode(), "***").replace(token, "***")
            raise aiosmtplib.SMTPAuthenticationError(reply.code, said)

    def _usable(self, ours: tuple[str, ...]) -> list[str]:
        usable = [mechanism for mechanism in ours if mechanism in self._offered]
        if not usable:
            offer = " ".join(self._offered) or "no AUTH"
            what = f"the host offers {offer}, we can use {' '.join(ours)}"
            raise Refusal(fault_at(Stage.AUTH, NetFault.AUTH_MISSING, what))
        return usable

    async def _by(self, mechanism: str, credentials: Credentials) -> None:
        client = self._client
        ways = {"PLAIN": client.auth_plain, "LOGIN": client.auth_login, "CRAM-MD5": client.auth_crammd5}
        if mechanism not in ways:
            raise Refusal(fault_at(Stage.AUTH, NetFault.AUTH_MISSING, f"{mechanism} is not a mechanism of ours"))
        await ways[mechanism](credentials.username, credentials.password, timeout=self._timeout)
