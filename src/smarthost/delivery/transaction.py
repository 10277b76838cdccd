"""Transaction: one job's recipients on their way through MAIL, RCPT, DATA and content, and what became of each."""

from collections.abc import Sequence
from types import MappingProxyType

import msgspec

from smarthost.mail.address import to_ascii_mailbox
from smarthost.mail.entry import Entry
from smarthost.mail.envelope import Body, Recipient
from smarthost.mail.outcome import Action, Outcome, Scope, Stage
from smarthost.mail.reply import EnhancedStatus, Reply
from smarthost.policy.classify import NetFault, Verdict, classify_fault, classify_reply
from smarthost.policy.conversion import Form
from smarthost.policy.security import Proof
from smarthost.spool.store import Content
from smarthost.wire.command import format_mail, format_rcpt
from smarthost.wire.extensions import Extensions
from smarthost.wire.submission import add_priority

# Members of an enumeration are looked up each time they are named; these are named for every message.
_RELAYED = Action.RELAYED
_RECIPIENT = Scope.RECIPIENT
_CONTENT = Stage.CONTENT
_SEVEN_BIT = Form.SEVEN_BIT


class Job(msgspec.Struct, frozen=True, gc=False):
    """One transaction to carry. `recipients` are those of the entry that travel in it; `taken` is a Unix time; `form`
    says what `content` was converted for.
    """

    entry: Entry
    recipients: tuple[Recipient, ...]
    content: Content
    taken: float
    form: Form = Form.ORIGINAL


class Peer(msgspec.Struct, frozen=True):
    """Who is at the other end, as its outcomes name it, and how its refusals are taken."""

    host: str
    address: str
    soft_bounce: bool = False
    tls: str = ""


class Transaction:
    """Collects verdicts: each recipient of the job gets one outcome, or goes into `again`, and never a second.

    `again` are recipients that were one too many, or were not reached, and travel in another transaction; `scope` is
    the widest that a verdict touched, `pause` the seconds that came with it. `asked` counts the RCPTs that have their
    reply, `overflow` those that had been accepted when one was too many, 0 if none was. `is_chunked` says that the
    content went out with the envelope, `resets` that RSET did before it.
    """

    __slots__ = (
        "_peer",
        "accepted",
        "again",
        "asked",
        "commands",
        "is_chunked",
        "is_refused",
        "job",
        "outcomes",
        "overflow",
        "pause",
        "recipients",
        "resets",
        "scope",
        "started_at",
    )

    def __init__(self, job: Job, peer: Peer, extensions: Extensions, started_at: float) -> None:
        """Write the commands of the envelope; raises ValueError if an address cannot be written as one."""
        self.job = job
        self.started_at = started_at
        self.recipients = job.recipients
        self.again: list[Recipient] = []
        if len(self.recipients) > 1 and (extensions.max_recipients or extensions.max_domains):
            self.recipients = _within(extensions, self.recipients)
            self.again += [recipient for recipient in job.recipients if recipient not in self.recipients]
        self.commands = envelope_commands(job, self.recipients, extensions)
        self.accepted: list[Recipient] = []
        self.outcomes: list[Outcome] = []
        self.is_refused = self.is_chunked = self.resets = False
        self.scope = _RECIPIENT
        self.pause = 0.0
        self.asked = self.overflow = 0
        self._peer = peer

    @property
    def is_partly_decided(self) -> bool:
        """Whether some recipients have their outcome, or their place in the next transaction, and others wait."""
        return bool(self.outcomes) or len(self.again) > len(self.job.recipients) - len(self.recipients)

    def mail_refused(self, reply: Reply) -> None:
        """Take a refusal of MAIL, which is every recipient's outcome."""
        self.is_refused = True
        self._refuse(self.recipients, Stage.MAIL, reply)

    def rcpt_replied(self, reply: Reply) -> bool:
        """Take the next RCPT's reply; gives whether it was the last. Behind a refused MAIL it says nothing."""
        recipient = self.recipients[self.asked]
        self.asked += 1
        if not self.is_refused:
            if reply.code < 300:
                self.accepted.append(recipient)
            else:
                self._refuse((recipient,), Stage.RCPT, reply)
        return self.asked == len(self.recipients)

    def data_refused(self, reply: Reply) -> None:
        """Take a refusal of DATA: it is the outcome of the recipients that had been accepted."""
        self._refuse(self.accepted, Stage.DATA, reply)
        self.accepted = []

    def content_replied(self, reply: Reply) -> None:
        """Take the reply to the end of data, which decides on the accepted recipients."""
        if reply.code >= 300:
            self._refuse(self.accepted, Stage.CONTENT, reply)
            return
        peer, status, reason = self._peer, reply.status, str(reply)
        host, address, tls = peer.host, peer.address, peer.tls
        for recipient in self.accepted:
            self.outcomes.append(
                Outcome(recipient, _RELAYED, _RECIPIENT, _CONTENT, status, reason, reply, host, address, False, tls)
            )

    def lose(
        self, stage: Stage, verdict: Verdict, reply: Reply | None, reason: str, *, ambiguous: bool = False
    ) -> None:
        """Give every recipient without an outcome the verdict on the session's loss."""
        self._decide(self._undecided(), stage, verdict, reply, reason, ambiguous=ambiguous)

    def put_off(self) -> None:
        """Leave every recipient without an outcome to another transaction."""
        self.again += self._undecided()

    def _undecided(self) -> Sequence[Recipient]:
        return () if self.is_refused else (*self.accepted, *self.recipients[self.asked :])

    def _refuse(self, recipients: Sequence[Recipient], stage: Stage, reply: Reply) -> None:
        verdict = classify_reply(stage, reply, soft_bounce=self._peer.soft_bounce, accepted_before=bool(self.accepted))
        if verdict.next_transaction:
            self.again += recipients
            self.overflow = self.overflow or len(self.accepted)
            return
        self._decide(recipients, stage, verdict, reply, str(reply))

    def _decide(
        self,
        recipients: Sequence[Recipient],
        stage: Stage,
        verdict: Verdict,
        reply: Reply | None,
        reason: str,
        *,
        ambiguous: bool = False,
    ) -> None:
        self.scope = max(self.scope, verdict.scope)
        self.pause = max(self.pause, verdict.pause)
        action, scope, status = verdict.action, verdict.scope, verdict.status
        host, address = self._peer.host, self._peer.address
        self.outcomes += [
            Outcome(recipient, action, scope, stage, status, reason, reply, host, address, ambiguous, self._peer.tls)
            for recipient in recipients
        ]


def envelope_commands(job: Job, recipients: Sequence[Recipient], extensions: Extensions) -> list[bytes]:
    """Write MAIL, each RCPT, and DATA, with the parameters that the peer offers and the message needs."""
    message = job.entry.message
    envelope = message.envelope
    reverse_path = envelope.reverse_path
    dsn = extensions.dsn
    size = message.size
    is_8bit = (message.eight_bit or message.utf8_header) and extensions.eight_bit_mime
    if job.form:
        size = job.content.size
        is_8bit = message.eight_bit and extensions.eight_bit_mime
        if not extensions.smtputf8:
            reverse_path = to_ascii_mailbox(reverse_path) or reverse_path
            recipients = [_in_ascii(recipient) for recipient in recipients]
    # Whoever has a return path of its own travels alone (`queue.return_paths`).
    if recipients[0].return_path:
        reverse_path = recipients[0].return_path
    smtputf8 = extensions.smtputf8 and _needs_smtputf8(job)
    mail = format_mail(
        reverse_path,
        size=size if extensions.size is not None else None,
        body=Body.EIGHT_BIT_MIME if is_8bit else None,
        smtputf8=smtputf8,
        ret=envelope.ret if dsn else None,
        envid=envelope.envid if dsn else "",
    )
    if extensions.mt_priority and envelope.mt_priority is not None:
        mail = add_priority(mail, envelope.mt_priority)
    if envelope.requiretls:
        mail = mail[:-2] + b" REQUIRETLS\r\n"
    return [mail, *[format_rcpt(recipient, dsn=dsn) for recipient in recipients], b"DATA\r\n"]


def _within(extensions: Extensions, recipients: tuple[Recipient, ...]) -> tuple[Recipient, ...]:
    """Give the recipients that LIMITS allows in one transaction: RCPTMAX and RCPTDOMAINMAX (RFC 9422 4.2, 4.3)."""
    if extensions.max_domains:
        domains = list(dict.fromkeys(recipient.domain for recipient in recipients))[: extensions.max_domains]
        recipients = tuple(recipient for recipient in recipients if recipient.domain in domains)
    return recipients[: extensions.max_recipients] if extensions.max_recipients else recipients


def _in_ascii(recipient: Recipient) -> Recipient:
    address = to_ascii_mailbox(recipient.address)
    return recipient if address is None else msgspec.structs.replace(recipient, address=address)


def find_obstacle(
    job: Job, extensions: Extensions, proof: Proof = Proof.NONE, only_for: tuple[str, ...] = ()
) -> NetFault | None:
    """Say why a message cannot go to a peer that offers these extensions; None when it can.

    Where the peer has proved to take mail for some domains, and not who it is, `only_for` are these (RFC 7672 3.2.2).

    One with REQUIRETLS goes only to a peer that offers that and has shown, by `proof`, who it is (RFC 8689 4.2.1).
    A body with octets above 127 needs 8BITMIME (RFC 6152 3), a header or an address with them SMTPUTF8 (RFC 6531
    3.2), and a message over the announced SIZE would be refused (RFC 1870 6.1).
    """
    message = job.entry.message
    if only_for and job.recipients[0].domain not in only_for:
        return NetFault.CERTIFICATE
    # First, for what stands behind the others is not asked again of a message that has been adapted.
    if message.envelope.requiretls and not (extensions.requiretls and proof is not Proof.NONE):
        return NetFault.REQUIRETLS_MISSING
    if extensions.size and (message.size if not job.form else job.content.size) > extensions.size:
        return NetFault.TOO_BIG
    if message.eight_bit and not extensions.eight_bit_mime and job.form is not _SEVEN_BIT:
        return NetFault.EIGHT_BIT_MISSING
    if not extensions.smtputf8 and not job.form and _needs_smtputf8(job):
        return NetFault.SMTPUTF8_MISSING
    return None


def _needs_smtputf8(job: Job) -> bool:
    message = job.entry.message
    if (message.utf8_header and not job.form) or not message.envelope.reverse_path.isascii():
        return True
    for recipient in job.recipients:  # noqa: SIM110 - a generator would cost more than what it asks
        if not recipient.address.isascii():
            return True
    return False


_OBSTACLES = MappingProxyType(
    {
        NetFault.CERTIFICATE: "DANE does not verify the host: its certificate is for other domains that it serves",
        NetFault.TOO_BIG: "the message is larger than the host takes",
        NetFault.EIGHT_BIT_MISSING: "the message has 8-bit text and the host does not offer 8BITMIME",
        NetFault.SMTPUTF8_MISSING: "the message needs SMTPUTF8 and the host does not offer it",
        NetFault.REQUIRETLS_MISSING: "the message needs REQUIRETLS, and a host that offers it and whose certificate is "
        "proved by MTA-STS, DANE or an authority",
    }
)


def refuse_locally(job: Job, peer: Peer, fault: NetFault) -> list[Outcome]:
    """Give every recipient the outcome of an obstacle that we found ourselves: no reply, a status of ours."""
    verdict = classify_fault(Stage.MAIL, fault)
    return refuse(job, peer, verdict.action, verdict.status, _OBSTACLES[fault])


def refuse_unwritable(job: Job, peer: Peer, why: str) -> list[Outcome]:
    """Give every recipient the outcome of an address that cannot be written into a command (5.1.3, RFC 3463 3.2)."""
    return refuse(job, peer, Action.FAILED, EnhancedStatus(5, 1, 3), f"an address cannot be sent: {why}")


def refuse(job: Job, peer: Peer, action: Action, status: EnhancedStatus, reason: str) -> list[Outcome]:
    """Give every recipient an outcome that we found ourselves, before anything was sent."""
    host, address = peer.host, peer.address
    return [
        Outcome(
            recipient, action, Scope.TRANSACTION, Stage.MAIL, status, reason, host=host, address=address, tls=peer.tls
        )
        for recipient in job.recipients
    ]
