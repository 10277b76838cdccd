"""Opens sessions: connects, greets, starts TLS and logs in with aiosmtplib, then takes the connection from it."""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from typing import Protocol, cast

import aiosmtplib

from smarthost.mail.outcome import Stage
from smarthost.mail.route import Host, TlsLevel
from smarthost.mail.tlsa import Tlsa
from smarthost.network.dial import dial
from smarthost.network.login import Login
from smarthost.network.oauth_answer import TokenFault
from smarthost.network.open_fault import OPENING_ERRORS, Refusal, fault_at, translate
from smarthost.network.opening import Credentials, OpenFault, SessionSettings, Timeouts, TokenGiver
from smarthost.network.peer_certificate import shown_chain
from smarthost.policy.classify import NetFault
from smarthost.policy.security import PLAIN, TRIAL, Proof, TlsPlan, TlsPolicy, plan
from smarthost.wire.extensions import Extensions

__all__ = ["Credentials", "OpenFault", "Session", "SessionSettings", "Timeouts", "TlsContexts", "open_session"]

_BAD_CREDENTIALS = 535  # RFC 4954 6


class Session:
    """A connection that is ready for its first MAIL. Mutable: `carried` counts the transactions that it has taken.

    `tls` is as "TLSv1.3 TLS_AES_256_GCM_SHA384 verified=ca", "" in plain text, and `proof` how the peer was verified;
    `opened_at` is a Unix time and `opening` the seconds that opening took. `plain_because` says which handshake failed
    before a session in plain text, `plain_fault` in a word; `trial_fault` what an MTA-STS policy in mode testing would
    have refused. `is_named` is false where nothing but DNS without proof says that this host is the right one, whatever
    its certificate proves. Where `only_for` has names, the certificate is for these domains and not for the host.
    """

    __slots__ = (
        "_waiting",
        "address",
        "carried",
        "extensions",
        "host",
        "is_named",
        "only_for",
        "opened_at",
        "opening",
        "plain_because",
        "plain_fault",
        "proof",
        "tls",
        "transport",
        "trial_fault",
    )

    def __init__(
        self,
        host: Host,
        address: str,
        transport: asyncio.Transport,
        extensions: Extensions,
        proof: Proof = Proof.NONE,
    ) -> None:
        """Take charge of the transport: what comes before `hand_over` is kept."""
        self.host = host
        self.address = address
        self.transport = transport
        self.extensions = extensions
        self.tls = describe_tls(transport, proof)
        self.proof = proof if self.tls else Proof.NONE
        self.plain_because = self.trial_fault = ""
        self.plain_fault: NetFault | None = None
        self.is_named = True
        self.only_for: tuple[str, ...] = ()
        self.opened_at = 0.0
        self.opening = 0.0
        self.carried = 0
        self._waiting = _Waiting()
        transport.set_protocol(self._waiting)

    def hand_over(self, protocol: asyncio.Protocol) -> tuple[bytes, bool]:
        """Give the transport to a protocol; returns the octets that came meanwhile, and whether the peer has closed.

        The protocol's `connection_made` is not called.
        """
        self.transport.set_protocol(protocol)
        return bytes(self._waiting.octets), self._waiting.is_closed

    def abandon(self) -> None:
        """Close a session that nobody will use; QUIT is sent and its reply not awaited."""
        if not self.transport.is_closing():
            self.transport.write(b"QUIT\r\n")
            self.transport.close()


class _Waiting(asyncio.Protocol):
    """Holds a session between its opening and its first transaction, so that nothing that the peer does is missed."""

    def __init__(self) -> None:
        self.octets = bytearray()
        self.is_closed = False

    def data_received(self, data: bytes) -> None:
        # A peer has nothing to say here but one 421: more than that is noise, and is not kept.
        if len(self.octets) < 4096:
            self.octets += data

    def eof_received(self) -> None:
        self.is_closed = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_closed = True


def describe_tls(transport: asyncio.BaseTransport, proof: Proof) -> str:
    """Give a transport's TLS version and cipher suite and how the peer was verified, "" where there is no TLS."""
    tls = transport.get_extra_info("ssl_object")
    return f"{tls.version()} {tls.cipher()[0]} verified={proof.value}" if tls is not None else ""


class TlsContexts(Protocol):
    """Where client contexts come from, each made once, and who can read certificates."""

    def for_level(self, level: TlsLevel, ca_file: str = "", client: tuple[str, str] = ("", "")) -> ssl.SSLContext:
        """Give the context of a level; raises ValueError when a file cannot be used."""

    def check_tlsa(self, chain: Sequence[bytes], records: Sequence[Tlsa], names: Sequence[str], now: float) -> str:
        """Say why no TLSA record vouches for a chain of certificates, "" when one does; `now` is a Unix time."""


async def open_session(
    host: Host,
    address: str,
    settings: SessionSettings,
    contexts: TlsContexts,
    timeouts: Timeouts,
    clock: Callable[[], float],
) -> Session | OpenFault:
    """Open a session to one address of a host; what goes wrong is a value.

    With level `may`, a handshake that fails is followed by one more connection, in plain text (RFC 7435). Where a
    login is by token and refused by 535, a fresh token is tried once, over one more connection.
    """
    began = clock()
    opened: Session | OpenFault
    opening = _Opening(host, address, settings, contexts, timeouts, clock)
    tokens = settings.credentials.tokens if settings.credentials is not None else None
    if tokens is None:
        opened = await opening.open()
    else:
        opened = await _open_by_token(opening, tokens)
    if isinstance(opened, Session):
        opened.opened_at = clock()
        opened.opening = opened.opened_at - began
    return opened


async def _open_by_token(opening: "_Opening", tokens: TokenGiver) -> Session | OpenFault:
    """Have a token before the peer is troubled; it may have been revoked before its time, which only a 535 tells."""
    token = await tokens.token()
    if isinstance(token, TokenFault):
        return fault_at(Stage.AUTH, NetFault.TOKEN_MISSING, token.reason)
    opened = await opening.open(token)
    if isinstance(opened, OpenFault) and opened.reply is not None and opened.reply.code == _BAD_CREDENTIALS:
        fresh = await tokens.token(token)
        if isinstance(fresh, TokenFault):
            return fault_at(Stage.AUTH, NetFault.TOKEN_MISSING, f"{opened.reason}, and {fresh.reason}")
        opened = await opening.open(fresh)
    return opened


class _Opening:
    """Attempts to open a session, one after another; `stage` is where the last one is."""

    def __init__(
        self,
        host: Host,
        address: str,
        settings: SessionSettings,
        contexts: TlsContexts,
        timeouts: Timeouts,
        clock: Callable[[], float],
    ) -> None:
        self._host = host
        self._address = address
        self._settings = settings
        self._policy = settings.policy or TlsPolicy(settings.tls)
        self._contexts = contexts
        self._timeouts = timeouts
        self._clock = clock
        self._stage = Stage.CONNECT
        self._extensions = Extensions()
        self._token = ""
        self._only_for: tuple[str, ...] = ()

    async def open(self, token: str = "") -> Session | OpenFault:
        """Open it as the policy wants; with `may` a second time, in plain text, after a failed handshake.

        An MTA-STS policy in mode testing is tried first as if it were enforced; what it refuses is noted.
        """
        self._token = token
        tls = plan(self._policy, self._host)
        trial_fault = plain_because = ""
        plain_fault: NetFault | None = None
        if self._policy.on_trial:
            opened = await self._run(TRIAL)
            if not (trial_fault := _trial_fault(opened)):
                return opened
        opened = await self._run(tls)
        if tls.retry_plain and isinstance(opened, OpenFault) and (plain_because := _tls_fault(opened)):
            plain_fault = opened.fault
            opened = await self._run(PLAIN)
        if isinstance(opened, Session):
            opened.trial_fault, opened.plain_because, opened.plain_fault = trial_fault, plain_because, plain_fault
            opened.only_for = self._only_for
        return opened

    async def _run(self, tls: TlsPlan) -> Session | OpenFault:
        """Go through the stages; give the session, or the fault at the stage that was reached."""
        self._stage, self._extensions = Stage.CONNECT, Extensions()
        client: aiosmtplib.SMTP | None = None
        try:
            context = self._context(tls)
            client = await self._connect(context)
            await self._greet(client)
            if context is not None and not self._host.implicit_tls:
                await self._start_tls(client, context, tls)
            elif context is not None:
                self._check_tlsa(client)
            if self._settings.credentials is not None:
                await self._log_in(client, self._settings.credentials)
            # The library lets go by being forgotten: its protocol hears nothing more once another one is set.
            transport, client = client.transport, None
            if transport is None:
                # The peer's last answer was read, and that it has gone since.
                return fault_at(self._stage, NetFault.CLOSED, "the peer closed the connection")
            return Session(self._host, self._address, cast(asyncio.Transport, transport), self._extensions, tls.proof)
        except Refusal as refusal:
            return refusal.fault
        except OPENING_ERRORS as error:
            return translate(self._stage, error)
        finally:
            if client is not None:
                _leave(client)

    def _context(self, tls: TlsPlan) -> ssl.SSLContext | None:
        if not tls.attempt:
            return None
        level = TlsLevel.VERIFY if tls.verify else TlsLevel.ENCRYPT
        try:
            return self._contexts.for_level(level, self._settings.ca_file, self._settings.client)
        except ValueError as error:
            # A file of ours that cannot be used says nothing about the peer: what is learnt of it would be wrong.
            raise Refusal(fault_at(Stage.CONNECT, NetFault.TLS_FAILED, str(error))) from error

    async def _connect(self, context: ssl.SSLContext | None) -> aiosmtplib.SMTP:
        host, settings, timeouts = self._host, self._settings, self._timeouts
        connection = await dial(self._address, host.port, settings.source_address, timeouts.connect)
        self._stage = Stage.GREETING
        client = aiosmtplib.SMTP(
            hostname=self._tls_name(),
            sock=connection,
            local_hostname=settings.hello,
            timeout=timeouts.greeting,
            use_tls=host.implicit_tls,
            start_tls=False,
            tls_context=context,
        )
        await client.connect()
        return client

    async def _greet(self, client: aiosmtplib.SMTP) -> None:
        self._stage = Stage.EHLO
        try:
            reply = await client.ehlo(timeout=self._timeouts.ehlo)
        except aiosmtplib.SMTPHeloError as refused:
            # RFC 5321 3.2: HELO for those who do not know EHLO; a 4yz or a closed connection is no such case.
            if refused.code < 500 or not client.is_connected:
                raise
            await client.helo(timeout=self._timeouts.ehlo)
            self._extensions = Extensions()
        else:
            self._extensions = Extensions.parse(reply.message.split("\n"))

    async def _start_tls(self, client: aiosmtplib.SMTP, context: ssl.SSLContext, tls: TlsPlan) -> None:
        self._stage = Stage.STARTTLS
        if not self._extensions.starttls:
            if tls.required:
                raise Refusal(fault_at(self._stage, NetFault.TLS_MISSING, "the host does not offer STARTTLS"))
            return
        try:
            await client.starttls(server_hostname=self._tls_name(), timeout=self._timeouts.starttls)
        except aiosmtplib.SMTPResponseException:
            # Refused before any handshake: where TLS is only welcome, this session goes on without it.
            if tls.required or not client.is_connected:
                raise
            return
        self._check_tlsa(client)
        await self._greet(client)

    def _check_tlsa(self, client: aiosmtplib.SMTP) -> None:
        """Demand that a TLSA record vouches for the peer, where the policy has some; before anything secret is said."""
        records, next_hops = self._policy.tlsa, self._policy.next_hops
        if not records:
            return
        self._stage = Stage.STARTTLS
        assert client.transport is not None
        chain, now, name = shown_chain(client.transport), self._clock(), self._tls_name()
        wrong = self._contexts.check_tlsa(chain, records, (name,), now)
        if wrong and next_hops and not self._contexts.check_tlsa(chain, records, next_hops, now):
            self._only_for = next_hops
        elif wrong:
            raise Refusal(fault_at(self._stage, NetFault.CERTIFICATE, f"DANE does not verify the host: {wrong}"))

    async def _log_in(self, client: aiosmtplib.SMTP, credentials: Credentials) -> None:
        self._stage = Stage.AUTH
        is_secret = client.get_transport_info("sslcontext") is not None
        if not (is_secret or self._settings.allow_plaintext_auth):
            raise Refusal(fault_at(self._stage, NetFault.AUTH_MISSING, "no login is sent over plain text"))
        login = Login(client, self._extensions, self._timeouts.auth)
        if credentials.tokens is None:
            await login.by_password(credentials, is_secret)
        else:
            await login.by_token(credentials.username, self._token, self._tls_name(), self._host.port)

    def _tls_name(self) -> str:
        """Give the name that is asked for: the TLSA base domain, the host's, or the address where it has no name."""
        return self._policy.server_name or self._host.name.rstrip(".") or self._address


def _tls_fault(opened: OpenFault) -> str:
    """Give the reason where TLS was what failed, by our own finding; else ""."""
    return opened.reason if opened.stage is Stage.STARTTLS and opened.fault is not None else ""


def _trial_fault(opened: Session | OpenFault) -> str:
    """Give the reason where TLS was what failed, by our own finding or because the peer refused it; else ""."""
    return opened.reason if isinstance(opened, OpenFault) and opened.stage is Stage.STARTTLS else ""


def _leave(client: aiosmtplib.SMTP) -> None:
    """Close a connection that led to no session; QUIT is a courtesy, its reply is not awaited."""
    if client.is_connected:
        cast(asyncio.Transport, client.transport).write(b"QUIT\r\n")
    client.close()
