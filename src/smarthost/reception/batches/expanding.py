"""Expanding: makes the messages of a batch, part by part, each part and its record in one transaction."""

import asyncio
import hashlib
import logging
import secrets

import msgspec

from smarthost.compose.batch_form import BatchRecipient, read_group, rest_of
from smarthost.compose.letter import as_recipient
from smarthost.compose.mailbox import read_mailbox
from smarthost.compose.mime import Stamp, compose
from smarthost.compose.template_form import compile_form, fill_letter
from smarthost.compose.template_record import read_template
from smarthost.mail.envelope import Envelope, Recipient
from smarthost.mail.event import Event, Kind
from smarthost.mail.message import Arrival, Message
from smarthost.mail.outcome import Stage
from smarthost.mail.record import Record
from smarthost.policy.suppression import SUPPRESSED
from smarthost.queue.grouping import Grouping
from smarthost.reception.batches.filling import Filling, make_filling
from smarthost.reception.batches.parts import BatchParts
from smarthost.reception.batches.record import (
    FORM,
    PART,
    PART_SIZE,
    SENT,
    Batch,
    State,
    encode,
    envid_of,
    number_of,
    place_of,
)

log = logging.getLogger(__name__)

SLICE = 8  # messages that are made before the rest of the program has its turn: a millisecond or two
CROWD = 900  # entries in memory; with more, a queue may have to put some back on disk and read them again
LOOK = 0.02  # seconds between two looks at a crowd
AGAIN = 5.0  # seconds after which a part that could not be stored is tried again
MOST_FAILURES = 3  # of one part, after which those that fail are given up
LONGEST_PAUSE = 60.0
_FULL = 452

_ids = msgspec.json.Decoder(list[int])


class Broken(Exception):
    """A batch cannot go on as it is; the text says why."""


class Expander:
    """Puts parts of batches into the queue. One at a time."""

    def __init__(self, parts: BatchParts) -> None:
        """Join the parts."""
        self._parts = parts
        self._secret = secrets.token_bytes(32)
        self._fillings: dict[str, Filling] = {}
        self._failures: dict[str, int] = {}  # by batch, of its next part

    def forget(self, batch: Batch) -> None:
        """Forget what was made ready of a batch."""
        self._fillings.pop(batch.id, None)

    async def expand(self, batch: Batch, expires: float) -> float | None:
        """Put the next part into the queue; gives the seconds until the one after it, None when there is none.

        Nothing of a part is done while the batch is not active. What is written of it expires at a Unix time.
        """
        filling = await self._filling(batch)
        pause = self._pause(batch, filling)
        if pause > 0.0:
            return min(pause, LONGEST_PAUSE)
        prefix = f"{batch.id}-"
        page = await self._parts.spool.records.page(PART, batch.tenant, prefix, 1)
        if not page or not page[0].id.startswith(prefix):
            return None
        await self._let_others()
        return await self._put_part(batch, filling, page[0], expires)

    def _pause(self, batch: Batch, filling: Filling) -> float:
        """Give the seconds for which a batch has to wait: for space, for a rate, for a limit."""
        door, form = self._parts.door, batch.form
        if not door.has_space():
            return AGAIN
        pause = door.credentials.wait(batch.tenant, batch.key)
        if form.account_id:
            pause = max(pause, self._parts.accounts.wait(batch.tenant, form.account_id))
        if door.limits.active and door.limits.refuse_sender(batch.tenant, filling.letter.reverse_path) is not None:
            pause = max(pause, 1.0)
        return pause

    async def _let_others(self) -> None:
        """Wait while many entries wait in memory, as long as they become fewer: else these are not what is sent."""
        before = self._parts.loaded()
        while before > CROWD:
            await asyncio.sleep(LOOK)
            now = self._parts.loaded()
            if now >= before:
                return
            before = now

    async def _put_part(self, batch: Batch, filling: Filling, part: Record, expires: float) -> float:
        """Put a part into the queue, or as much of it as rates allow: the rest stays."""
        parts, number = self._parts, number_of(part)
        sent = batch.part_key(SENT, number)
        found = (await parts.spool.records.find([sent])).get(sent)
        ids = _ids.decode(found.data) if found is not None else []
        recipients, first = read_group(part.data), number * PART_SIZE + len(ids)
        group = Grouping(parts.intake)
        protocol = "HTTPS" if batch.is_secure else "HTTP"
        arrival = Arrival(parts.clock(), "http", batch.client, "", batch.tenant, protocol)
        events, count = [], 0
        for place, each in enumerate(recipients, first):
            if place % SLICE == 0:
                await asyncio.sleep(0)
            if batch.state is not State.ACTIVE or self._pause(batch, filling) > 0.0:
                break
            try:
                reason = self._put(group, batch, filling, (place, each), arrival)
            except Exception:
                # A fault in this program, which must not stop all that come behind.
                log.exception("recipient %d of batch %s has no message", place, batch.id)
                reason = "the message could not be made"
            if reason:
                events.append(self._event(batch, filling, place, each.email, reason))
            count += 1
        messages = await group.gathered()
        if not count or batch.state is not State.ACTIVE or self._is_passing(batch, group):
            group.abandon()
            return AGAIN
        self._failures.pop(batch.id, None)
        for envelope, reply in group.refused:
            known = place_of(envelope.envid)
            place = known[1] if known is not None else first
            events.append(self._event(batch, filling, place, envelope.recipients[0].address, reply.text))
        ids += _numbers(messages, first, count)
        records = [Record(*sent, encode(ids), expires=expires)]
        if count < len(recipients):
            records.append(Record(*part.key, rest_of(part.data, count)))
        if await group.write(records, [part.key] if count == len(recipients) else [], events) is not None:
            return AGAIN
        for event in events:
            parts.door.feed.publish(event)
        return 0.0

    def _is_passing(self, batch: Batch, group: Grouping) -> bool:
        """Whether a part cannot be made just now, for a reason that is ours.

        What fails again and again, but for want of space, is given up, so that it does not hold up all others.
        """
        passing = [reply for _, reply in group.refused if 400 <= reply.code < 500]
        if not passing or any(reply.code == _FULL for reply in passing):
            return bool(passing)
        log.error("a part of batch %s could not be made: %s", batch.id, passing[0].text)
        failures = self._failures[batch.id] = self._failures.get(batch.id, 0) + 1
        return failures < MOST_FAILURES

    def _put(
        self, group: Grouping, batch: Batch, filling: Filling, who: tuple[int, BatchRecipient], arrival: Arrival
    ) -> str:
        """Make one message and have the group take it; gives why it is not made, "" when it is."""
        parts, letter, (place, asked) = self._parts, filling.letter, who
        mailbox = read_mailbox(asked.email)
        if isinstance(mailbox, str):
            return mailbox
        recipient = as_recipient(mailbox)
        if parts.is_suppressed(batch.tenant, recipient):
            return SUPPRESSED.text
        refusal = parts.door.route_refusal(letter.reverse_path, recipient, batch.tenant)
        if refusal is not None:
            return refusal.text
        rendered = filling.template.render(asked.variables)
        filled = rendered if isinstance(rendered, tuple) else fill_letter(letter, mailbox, rendered, parts.limits)
        if isinstance(filled, tuple):
            return "; ".join(f"{fault.field}: {fault.message}" for fault in filled[:3])
        if (wrong := self._count(batch, letter.reverse_path, recipient)) is not None:
            return wrong
        envid = envid_of(batch.id, place)
        unique = hashlib.blake2b(envid.encode(), digest_size=16, key=self._secret).hexdigest()
        composed = compose(filled, Stamp(arrival.at, parts.hostname(), unique))
        draft = group.begin(
            arrival,
            Envelope(
                letter.reverse_path, filled.recipients, envid=envid, smtputf8=filled.utf8, priority=filling.priority
            ),
        )
        draft.keeps_return_path = filling.keeps_return_path
        if filling.wishes:
            draft.write(filling.wishes)
        for piece in composed.pieces:
            draft.write(piece)  # type: ignore[arg-type]  # without attachments there is no slot
        group.commit(draft)
        return ""

    def _count(self, batch: Batch, reverse_path: str, recipient: Recipient) -> str | None:
        """Count a message where rates and limits hold; gives the refusal of a limit."""
        door = self._parts.door
        if door.limits.active:
            refusal = door.limits.take(batch.tenant, reverse_path, (recipient,))
            if refusal is not None:
                return refusal.text
        door.credentials.take(batch.tenant, batch.key)
        if batch.form.account_id:
            self._parts.accounts.take(batch.tenant, batch.form.account_id)
        return None

    def _event(self, batch: Batch, filling: Filling, place: int, address: str, reason: str) -> Event:
        """Tell of a recipient for whom no message was made."""
        return Event(
            time=self._parts.clock(),
            event=Kind.REJECTED,
            envid=envid_of(batch.id, place),
            sender=filling.letter.reverse_path,
            recipient=address,
            code=550,
            status="5.7.1" if reason == SUPPRESSED.text else "5.6.0",
            reply=reason,
            stage=Stage.CONTENT,
            user=batch.tenant,
            client=batch.client,
            listener="http",
        )

    async def _filling(self, batch: Batch) -> Filling:
        """Give what a batch's letters are made of; raises Broken."""
        filling = self._fillings.get(batch.id)
        if filling is None:
            parts, key = self._parts, (FORM, batch.tenant, batch.id)
            record = (await parts.spool.records.find([key])).get(key)
            if record is None:
                raise Broken("its template is gone")
            user = parts.door.credentials.of_tenant(batch.tenant, batch.key)
            template = await asyncio.to_thread(compile_form, read_template(record.data).form, parts.template_limits)
            made = make_filling(template, batch.form, user, parts.postmaster(), parts.limits)
            if isinstance(made, tuple):
                raise Broken("; ".join(f"{fault.field}: {fault.message}" for fault in made))
            filling = self._fillings[batch.id] = made
        return filling


def _numbers(messages: list[Message], first: int, count: int) -> list[int]:
    """Give the ids of messages by their places, 0 where there is none."""
    numbers = [0] * count
    for message in messages:
        found = place_of(message.envelope.envid)
        if found is not None:
            numbers[found[1] - first] = message.id
    return numbers
