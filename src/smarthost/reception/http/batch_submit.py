"""Batch submit: POST /api/v1/batches, read and stored as it comes; answered when all of it is on disk."""

import asyncio
import hashlib
from datetime import UTC, datetime
from math import ceil
from typing import Any

import msgspec

from smarthost.compose.batch_form import BatchForm, BatchReader
from smarthost.compose.fault import FieldFault
from smarthost.compose.template_form import compile_form
from smarthost.compose.template_record import StoredTemplate
from smarthost.mail.key import Scope
from smarthost.mail.message import format_id
from smarthost.mail.record import RecordKey
from smarthost.policy.admission import User, check_sender
from smarthost.reception.batches.desk import Batches, Unwritten
from smarthost.reception.batches.filling import Filling, make_filling
from smarthost.reception.batches.receiving import Checked, Receiving, Unstored
from smarthost.reception.batches.record import Batch
from smarthost.reception.http.batch_answers import BadAddress, MadeBatch, status_of
from smarthost.reception.http.bodies import read_blocks
from smarthost.reception.http.front import Answer, Asked
from smarthost.reception.http.parts import HttpParts
from smarthost.reception.http.problem import Refused, disk_full, no_caller, refusal_of
from smarthost.reception.http.recall import answer_key, answer_record, repeat
from smarthost.reception.terms import LONGEST_HOLD

PORTION = 32 * 1024  # octets that are gathered before they are read, so that a slow client costs no more than others


class BatchSubmit:
    """Takes batches. One object for all requests."""

    def __init__(self, parts: HttpParts) -> None:
        """Join the parts."""
        self._parts = parts
        self._recall = parts.recall

    async def __call__(self, asked: Asked) -> Answer:
        """Take one batch; raises Refused."""
        parts, desk = self._parts, self._parts.batches
        user = self._sender(asked)
        kind = asked.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            raise Refused(415, "a batch comes as application/json", headers={"Accept-Post": "application/json"})
        if desk is None:
            raise Refused(503, "batches are not running")
        if not parts.door.has_space():
            raise disk_full()
        shown = asked.headers.get(b"idempotency-key")
        if shown is None:
            return await self._take(desk, asked, user, None)
        key = answer_key(user.name, shown.decode("latin-1"))
        await self._recall.begin(key)
        try:
            found = await self._recall.find(key)
            if found is None:
                return await self._take(desk, asked, user, key)
            digest = hashlib.sha256()
            async for block in read_blocks(asked, parts.terms.max_request_size):
                digest.update(block)
            return repeat(found, digest.hexdigest())
        finally:
            self._recall.end(key)

    def _sender(self, asked: Asked) -> User:
        caller = asked.caller
        if caller is None:
            raise no_caller()
        if Scope.SEND not in caller.scopes:
            raise Refused(403, f"this needs a key with the scope {Scope.SEND}")
        return self._parts.door.credentials.of_tenant(caller.tenant, caller.key.id if caller.key is not None else "")

    async def _take(self, desk: Batches, asked: Asked, user: User, key: RecordKey | None) -> Answer:
        now = self._parts.clock()
        name = format_id(desk.parts.intake.ids.mint(now))
        batch = Batch(name, user.name, now, 0, BatchForm(template_id=" "), key=user.key, client=asked.client)
        batch.is_secure = asked.is_secure
        receiving = desk.receive(batch)
        is_made = False
        try:
            reader, digest = BatchReader(), hashlib.sha256()
            await self._read(asked, reader, receiving, digest)
            form = reader.end()
            if isinstance(form, tuple):
                raise wrong(form)
            template, filling = await self._fill(desk, form, user)
            self._check(form, filling, user)
            await receiving.finish()
            checked = await receiving.check(filling.template)
            if checked.faults or checked.bad == reader.count:
                raise wrong(checked.faults or [FieldFault("recipients", text) for text in map(_said, checked.rejected)])
            batch.form, batch.total, batch.template = form, reader.count, template.name
            answer = self._answer(batch, checked)
            until = now + self._parts.terms.idempotency_keep
            more = () if key is None else (answer_record(key, digest.hexdigest(), answer, until),)
            await desk.take(batch, template, receiving, more)
            is_made = True
            return answer
        except (Unstored, Unwritten):
            raise disk_full() from None
        finally:
            if not is_made:
                receiving.abandon()

    async def _read(self, asked: Asked, reader: BatchReader, receiving: Receiving, digest: Any) -> None:
        """Store the recipients as they come. After faults with which nothing is sent, the rest is read and let go."""
        held: list[bytes] = []
        size = 0
        async for block in read_blocks(asked, self._parts.terms.max_request_size):
            if reader.is_over:
                continue
            digest.update(block)
            held.append(block)
            size += len(block)
            if size >= PORTION:
                await receiving.put(reader.feed(b"".join(held)))
                held, size = [], 0
        if not reader.is_over:
            await receiving.put(reader.feed(b"".join(held)))

    async def _fill(self, desk: Batches, form: BatchForm, user: User) -> tuple[StoredTemplate, Filling]:
        template = await self._parts.templates.get(user.name, form.template_id)
        if template is None:
            raise wrong([FieldFault("template_id", "there is no such template")])
        given = desk.parts
        compiled = await asyncio.to_thread(compile_form, template.form, given.template_limits)
        filling = make_filling(compiled, form, user, given.postmaster(), given.limits)
        if isinstance(filling, tuple):
            raise wrong(filling)
        return template, filling

    def _check(self, form: BatchForm, filling: Filling, user: User) -> None:
        """Refuse what would be refused for each recipient."""
        parts = self._parts
        for address in (filling.letter.author.address, filling.letter.reverse_path):
            if (refusal := check_sender(user, address)) is not None:
                raise refusal_of(refusal)
        if form.release > parts.clock() + LONGEST_HOLD:
            raise wrong([FieldFault("send_at", f"{LONGEST_HOLD // 86400} days ahead are allowed")])
        desk = parts.batches
        rules = desk.parts.intake.rules.edit if desk is not None else None
        if form.route and rules is not None and not rules.may_choose(user.name, form.route):
            raise Refused(403, "route: this tenant has no route of that name to choose")
        if form.account_id:
            if not parts.accounts.has(user.name, form.account_id):
                raise wrong([FieldFault("account_id", "there is no such account")])
            if (wait := parts.accounts.wait(user.name, form.account_id)) > 0.0:
                detail = f"account {form.account_id} takes no more for now: its limit is reached"
                raise Refused(429, detail, headers={"Retry-After": str(ceil(wait))})

    def _answer(self, batch: Batch, checked: Checked) -> Answer:
        rejected = [BadAddress(email[:320], reason) for email, reason in checked.rejected]
        created = datetime.fromtimestamp(batch.created, UTC)
        status = status_of(batch, self._parts.clock())
        made = MadeBatch(
            id=batch.id,
            status=status,
            created_at=created,
            recipients=batch.total,
            invalid=checked.bad,
            rejected=rejected,
        )
        return Answer(201, msgspec.json.encode(made))


def _said(rejected: tuple[str, str]) -> str:
    return f"no recipient has an address that can be sent to: {rejected[1]}"


def wrong(faults: list[FieldFault] | tuple[FieldFault, ...]) -> Refused:
    """Refuse a batch with what is wrong with it; one that is no JSON at all is 400."""
    if len(faults) == 1 and not faults[0].field and faults[0].message.startswith("is not JSON"):
        return Refused(400, f"the content {faults[0].message}")
    detail = "; ".join(f"{fault.field}: {fault.message}" if fault.field else fault.message for fault in faults[:5])
    return Refused(422, detail, errors=[(fault.field, fault.message) for fault in faults])
