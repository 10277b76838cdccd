"""The sink's desk: settings, counts and the mail that was taken, shared by all sessions."""

import os
import ssl
import time
from collections import deque
from collections.abc import Callable, Collection
from pathlib import Path

import msgspec

from smarthost.mail.reply import DISK_FULL, OK, Reply
from smarthost.sink.behaviour import ACCEPT, Behaviour, choose_behaviour
from smarthost.sink.content import id_of
from smarthost.sink.counts import Counts
from smarthost.wire.extensions import Extensions, format_ehlo

EVERYTHING = Extensions(
    pipelining=True, size=0, eight_bit_mime=True, smtputf8=True, enhanced_status_codes=True, dsn=True, chunking=True
)
_REMEMBERED_ADDRESSES = 100_000
_REMEMBERED_REPLIES = 1000


class SinkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a sink is set up. Addresses are host:port; port 0 takes a free one; `http` "" leaves HTTP out.

    `offers` is what EHLO says, STARTTLS and AUTH aside, which follow from a TLS context and `username`. What is not
    offered is refused (555). `keep` messages stay in memory; `largest` octets are taken of one. `max_connections` and
    `max_recipients` (of a transaction) are 0 for no limit: 421 and 452 4.5.3. `tokens` are the access tokens that
    XOAUTH2 and OAUTHBEARER take, where `mechanisms` has them; it is looked into at each login.
    """

    listen: str = "127.0.0.1:0"
    http: str = ""
    hostname: str = "sink.test"
    offers: Extensions = EVERYTHING
    implicit_tls: bool = False
    username: str = ""
    password: str = ""
    tokens: Collection[str] = ()
    mechanisms: tuple[str, ...] = ("PLAIN", "LOGIN", "CRAM-MD5")
    auth_needs_tls: bool = False
    require_auth: bool = False
    maildir: Path | None = None
    keep: int = 100
    largest: int = 64 * 1024 * 1024
    max_connections: int = 0
    max_recipients: int = 0

    def __repr__(self) -> str:
        """Name where it listens; the password and the tokens stay out."""
        return f"SinkSettings(listen={self.listen!r}, http={self.http!r})"


class TakenMail(msgspec.Struct, frozen=True, gc=False):
    """One message that was answered 250. `number` counts from 1; `at` is a Unix time in seconds.

    `mail` and `rcpts` are the arguments of MAIL and RCPT as they came; `content` is octet for octet what was sent,
    without the dots of transparency; `tls` is the protocol's name or ""; `identity` is who logged in or "".
    """

    number: int
    at: float
    client: str
    reverse_path: str
    recipients: tuple[str, ...]
    content: bytes
    mail: str
    rcpts: tuple[str, ...]
    tls: str = ""
    identity: str = ""


class Desk:
    """Where sessions find what they share."""

    def __init__(self, settings: SinkSettings, tls: ssl.SSLContext | None, arrived: Callable[[], None]) -> None:
        """`arrived` is called after each message that was taken."""
        self.settings = settings
        self.tls = tls
        self.counts = Counts()
        self.messages: deque[TakenMail] = deque(maxlen=settings.keep)
        self._arrived = arrived
        self._behaviours: dict[str, Behaviour] = {}
        self._seen_once: dict[str, None] = {}
        self._encoded: dict[Reply, bytes] = {}
        self._folder = _make_maildir(settings.maildir) if settings.maildir is not None else None
        self._ehlo = {secure: self._format_ehlo(secure) for secure in (False, True)}

    def ehlo(self, secure: bool) -> bytes:
        """Give the reply to EHLO, with or without TLS."""
        return self._ehlo[secure]

    def encode(self, reply: Reply) -> bytes:
        """Write a reply, without enhanced status where that is not offered."""
        octets = self._encoded.get(reply)
        if octets is None:
            if self.settings.offers.enhanced_status_codes:
                octets = reply.encode()
            else:
                octets = f"{reply.code} {reply.text}\r\n".encode()
            if len(self._encoded) < _REMEMBERED_REPLIES:
                self._encoded[reply] = octets
        return octets

    def behaviour_of(self, address: str) -> Behaviour:
        """Give how an address is treated now; asking for a behaviour that is meant once uses it up."""
        behaviour = self._behaviours.get(address)
        if behaviour is None:
            if len(self._behaviours) >= _REMEMBERED_ADDRESSES:
                self._behaviours.clear()
            behaviour = self._behaviours[address] = choose_behaviour(address)
        if behaviour.once:
            name = address.lower()
            if name in self._seen_once:
                return ACCEPT
            if len(self._seen_once) >= _REMEMBERED_ADDRESSES:
                del self._seen_once[next(iter(self._seen_once))]
            self._seen_once[name] = None
        return behaviour

    def take(self, mail: TakenMail) -> Reply:
        """Count and keep a message; give the reply, which is 452 4.3.1 when the Maildir cannot be written."""
        if self._folder is not None:
            try:
                _store(self._folder, mail)
            except OSError:
                return DISK_FULL
        counts = self.counts
        counts.messages += 1
        counts.octets += len(mail.content)
        counts.add_id(id_of(mail.content))
        self.messages.append(mail)
        self._arrived()
        return OK

    def _format_ehlo(self, secure: bool) -> bytes:
        settings = self.settings
        has_auth = bool(settings.username) and (secure or not settings.auth_needs_tls)
        offers = msgspec.structs.replace(
            settings.offers,
            starttls=self.tls is not None and not secure,
            auth=settings.mechanisms if has_auth else (),
        )
        return format_ehlo(settings.hostname, offers)


def _make_maildir(folder: Path) -> Path:
    for name in ("tmp", "new", "cur"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return folder


def _store(folder: Path, mail: TakenMail) -> None:
    """Write a message into tmp/ and move it to new/, with the envelope in front as a final delivery shows it."""
    envelope = [f"Return-Path: <{mail.reverse_path}>", *(f"Delivered-To: {address}" for address in mail.recipients)]
    name = f"{int(mail.at)}.M{time.time_ns() // 1000 % 1_000_000}P{os.getpid()}Q{mail.number}.sink"
    draft = folder / "tmp" / name
    draft.write_bytes("".join(f"{line}\r\n" for line in envelope).encode("utf-8", "surrogateescape") + mail.content)
    draft.rename(folder / "new" / name)
