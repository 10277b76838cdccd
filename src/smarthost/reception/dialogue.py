"""Dialogue: what one session has said so far, and what it may do; it knows nothing of sockets."""

import re

from smarthost.mail.envelope import Envelope, Priority, Recipient, priority_of
from smarthost.mail.event import Event, Kind
from smarthost.mail.message import Arrival
from smarthost.mail.outcome import Stage
from smarthost.mail.reply import RELAY_DENIED, STARTTLS_REQUIRED, Reply
from smarthost.policy.admission import Auth, Listener, Role, Tls, User, may_relay
from smarthost.reception.parts import Parts
from smarthost.reception.terms import Terms
from smarthost.wire.command import MailCommand

# What the Received field can carry without quoting; anything else a client calls itself is written as "?".
_UNSAFE_IN_TRACE = re.compile(r"[^\w.\-+\[\]:/]")
_LONGEST_NAME = 255  # octets, RFC 5321 4.5.3.1.2
# Looked up for each message: an attribute of an enum costs more than a name of the module.
_MEDIUM = Priority.MEDIUM


class Dialogue:
    """One session's words. It begins anew after STARTTLS (RFC 3207 4.2): nothing said in the clear is believed.

    `client` is the peer's IP address, "" for a local socket; `trusted` says that it may relay without AUTH; `tls` is
    "TLSv1.3 TLS_AES_256_GCM_SHA384" or ""; `mail` is the MAIL command of the transaction that is open, or None;
    `recipients` has the accepted ones by mailbox with the domain's A-label, so that none is kept twice;
    `mail_refused` says that the last MAIL was, so that what a client pipelined behind it is no mistake of its own.
    """

    __slots__ = (
        "_cleared",
        "client",
        "ehlo",
        "extended",
        "listener",
        "mail",
        "mail_refused",
        "parts",
        "rcpt_refused",
        "recipients",
        "reverse_path",
        "terms",
        "tls",
        "trusted",
        "user",
    )

    def __init__(self, terms: Terms, parts: Parts, listener: Listener, client: str, trusted: bool) -> None:
        """Begin with nothing said."""
        self.terms = terms
        self.parts = parts
        self.listener = listener
        self.client = client
        self.trusted = trusted
        self.tls = ""
        self.ehlo = ""
        self.extended = False
        self.user: User | None = None
        self.mail: MailCommand | None = None
        self.reverse_path = ""
        self.recipients: dict[str, Recipient] = {}
        self.mail_refused = False
        self.rcpt_refused = False
        # The user ("" for none) who may relay, as far as that was asked; of what decides, only the user changes.
        # Bounces may come from everywhere, since nothing of them goes anywhere.
        self._cleared: str | None = "" if listener.role is Role.BOUNCES else None

    def secured(self, tls: str) -> "Dialogue":
        """Give the dialogue that follows a TLS handshake: the same peer, nothing said."""
        fresh = Dialogue(self.terms, self.parts, self.listener, self.client, self.trusted)
        fresh.tls = tls
        return fresh

    def greet(self, name: str, extended: bool) -> None:
        """Take the client's name for itself, made safe for the Received field; an open transaction ends."""
        self.ehlo = _UNSAFE_IN_TRACE.sub("?", name)[:_LONGEST_NAME]
        self.extended = extended
        self.reset()

    def reset(self) -> None:
        """End the transaction, if one is open."""
        if self.mail is not None:
            self.mail = None
            self.recipients = {}
        self.mail_refused = False
        self.rcpt_refused = False

    @property
    def identity(self) -> str:
        """The authenticated user's name, or ""."""
        return self.user.name if self.user is not None else ""

    @property
    def offers_starttls(self) -> bool:
        """Whether STARTTLS is offered now."""
        return not self.tls and self.listener.tls is Tls.STARTTLS and self.parts.tls is not None

    @property
    def offers_auth(self) -> bool:
        """Whether AUTH is offered now: in the clear only to trusted peers, on local sockets, or by configuration."""
        listener = self.listener
        return listener.auth is not Auth.NONE and bool(
            self.tls or self.trusted or listener.allow_plaintext_auth or not self.client
        )

    def relay_refusal(self) -> Reply | None:
        """Say why this client may not relay, or None: never an open relay."""
        user = self.user
        identity = user.name if user is not None else ""
        if identity == self._cleared:
            return None
        refusal = may_relay(self.trusted, identity, self.listener.auth)
        if refusal is None:
            self._cleared = identity
            return None
        if refusal.code != 530 or self.offers_auth:
            return refusal
        return STARTTLS_REQUIRED if self.offers_starttls else RELAY_DENIED

    @property
    def protocol(self) -> str:
        """The Received field's `with` keyword (RFC 3848, RFC 6531 4.3)."""
        if not self.extended:
            return "SMTP"
        name = "UTF8SMTP" if self.mail is not None and self.mail.smtputf8 else "ESMTP"
        return f"{name}{'S' if self.tls else ''}{'A' if self.user is not None else ''}"

    def arrival(self) -> Arrival:
        """Give how the message of this transaction comes in."""
        user = self.user
        return Arrival(
            self.parts.clock(),
            self.listener.address,
            self.client,
            self.ehlo,
            user.name if user is not None else "",
            self.protocol,
            self.tls,
        )

    def envelope(self, mail: MailCommand) -> Envelope:
        """Give what MAIL and RCPT said; a priority that MAIL names goes before the user's own."""
        priority = self.user.priority if self.user is not None else _MEDIUM
        if mail.mt_priority is not None:
            priority = priority_of(mail.mt_priority)
        return Envelope(
            self.reverse_path,
            tuple(self.recipients.values()),
            mail.ret,
            mail.envid,
            mail.body,
            mail.smtputf8,
            mail.requiretls,
            hold_until=self.hold_until(mail),
            priority=priority,
            mt_priority=mail.mt_priority,
            hold_for=mail.hold_for,
        )

    def hold_until(self, mail: MailCommand) -> float:
        """Give the Unix time before which MAIL wants nothing sent (RFC 4865), 0 where it says nothing of that."""
        return self.parts.clock() + mail.hold_for if mail.hold_for else mail.hold_until

    def reject(self, stage: Stage, reply: Reply, recipient: str = "", user: str = "") -> Reply:
        """Publish a refusal, and give the reply back."""
        self.parts.feed.publish(
            Event(
                time=self.parts.clock(),
                event=Kind.REJECTED,
                stage=stage,
                sender=self.reverse_path if self.mail is not None or stage is Stage.MAIL else None,
                recipient=recipient,
                code=reply.code,
                status=str(reply.status),
                reply=reply.text,
                client=self.client,
                listener=self.listener.address,
                user=user or self.identity,
                tls=self.tls,
            )
        )
        return reply
