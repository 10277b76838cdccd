"""Operations that try the relay itself: how far its delivery is, and a message of its own that goes the usual way."""

import asyncio
from email.utils import formatdate

from smarthost.assembly import Relay
from smarthost.control_verbs import Refusal, Row, TrialMessage
from smarthost.mail.address import domain_of, split_mailbox, to_a_label
from smarthost.mail.entry import Entry, Why
from smarthost.mail.envelope import Envelope, Notify, Recipient
from smarthost.mail.message import Arrival, format_id
from smarthost.mail.reply import Reply
from smarthost.report.timestamp import format_end, format_time

LATE = 5.0  # seconds after its time from which on an entry has to have a reason to wait
MOST_LATE = 20  # lanes that are looked at, those that wait longest first
DOOR = "test"  # the door by which a message of ours comes, in the log


class TrialOperations:
    """Implements `control_verbs.TrialOperations`."""

    def __init__(self, relay: Relay) -> None:
        """Look at the parts of a relay."""
        self._relay = relay

    async def progress(self) -> Row:
        """Give what delivery has done since the start, what it does, and what is due and has not gone yet."""
        relay, now = self._relay, self._relay.clock()
        late = sorted((head for head in await relay.spool.heads() if head.due < now - LATE), key=lambda head: head.due)
        rows: list[Row] = []
        for head in late[:MOST_LATE]:
            rows += [self._late(entry) for entry in await relay.spool.due(head.queue, head.lane, now - LATE, 1)]
        counters, dispatchers = relay.counters, list(relay.dispatchers.values())
        return {
            "time": format_time(now),
            "attempts": sum(counters.attempts.values()),
            "relayed": sum(count for (_, action), count in counters.recipients.items() if action == "relayed"),
            "in_delivery": sum(len(each.transfers) - each.idle_sessions + each.opening for each in dispatchers),
            "stopped": "results cannot be written to the disk" if relay.settler.is_stuck else "",
            "queue": await relay.spool.count(),
            "late_lanes": len(late),
            "late": rows,
        }

    def _late(self, entry: Entry) -> Row:
        reason = self._relay.reasons.of(entry)
        is_explained = reason.why not in (Why.NEW, Why.RETRY) or reason.until is not None
        return {
            "id": format_id(entry.message.id),
            "queue": entry.queue,
            "due": format_time(entry.due),
            "why": str(reason.why),
            "text": reason.text,
            "until": format_end(reason.until),
            "is_explained": is_explained,
        }

    async def send_test(self, asked: TrialMessage) -> Row:
        """Put a small message into the queue; give its id. Raises Refusal for what is no address, or is refused."""
        relay = self._relay
        config, now = relay.config, relay.clock()
        to = _read(asked.to, config.default_domain)
        sender = _read(asked.sender or config.postmaster, config.default_domain)
        domain = to_a_label(domain_of(to))
        if domain is None:
            raise Refusal(400, "No such domain", f"{to}: this domain cannot exist in DNS")
        refusal = relay.door.parts.route_refusal(sender, Recipient(to, domain), "")
        if refusal is not None:
            raise Refusal(400, "Refused", f"the relay would refuse this: {refusal}")
        envelope = Envelope(sender, (Recipient(to, domain, int(Notify.NEVER)),), smtputf8=not (to + sender).isascii())
        draft = relay.intake.begin(Arrival(now, DOOR), envelope)
        committed: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        try:
            draft.write(_content(sender, to, config.hostname, now).encode())
        except BaseException:
            draft.abandon()
            raise
        draft.commit(committed.set_result)
        reply = await asyncio.shield(committed)
        if not reply.is_positive:
            raise Refusal(503, "Refused", f"the message was not taken: {reply}")
        return {"id": reply.text.split()[2], "to": to, "sender": sender}


def _read(text: str, default_domain: str) -> str:
    split = split_mailbox(text.strip().removeprefix("<").removesuffix(">"))
    if split is None:
        raise Refusal(400, "No address", f"{text[:80]!r} is no address")
    return f"{split[0]}@{split[1] or default_domain}"


def _content(sender: str, to: str, hostname: str, now: float) -> str:
    fields = (
        f"From: {sender}",
        f"To: {to}",
        f"Subject: Test message of {hostname}",
        f"Date: {formatdate(now)}",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=utf-8",
    )
    text = f"This message was sent by smarthost test-dispatch on {hostname}, to see whether its mail arrives."
    return "\r\n".join((*fields, "", text, ""))
