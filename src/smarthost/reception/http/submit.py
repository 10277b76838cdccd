"""Submit: POST /api/v1/messages, a message as JSON or as it is (message/rfc822); answered when it is on disk."""

import hashlib
import secrets
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from math import ceil
from urllib.parse import parse_qs

import msgspec

from smarthost.compose.fault import FieldFault
from smarthost.compose.letter import Letter, check_submission
from smarthost.compose.mime import Stamp, compose
from smarthost.compose.submission import Submission, read_submission
from smarthost.mail.envelope import Envelope
from smarthost.mail.key import Scope
from smarthost.mail.record import RecordKey
from smarthost.network.attaching import Warn
from smarthost.network.held_content import NOTHING_HELD, Held
from smarthost.network.source_fault import SourceFault
from smarthost.policy.account import route_name
from smarthost.policy.admission import User
from smarthost.reception.http.asking import tenant_of
from smarthost.reception.http.filling import fill_submission
from smarthost.reception.http.front import Answer, Asked
from smarthost.reception.http.handing import Handing, Wanted, drained
from smarthost.reception.http.large_request import read_json
from smarthost.reception.http.parts import HttpParts
from smarthost.reception.http.problem import FieldError, Refused, no_caller, wrong_fields
from smarthost.reception.http.raw import RawMessage
from smarthost.reception.http.recall import NAMES, answer_key, repeat
from smarthost.reception.parts import Draft

_RAW, _JSON = b"message/rfc822", b"application/json"
_COME_AGAIN = "60"  # seconds after which an attachment may be had that cannot now


class Named(msgspec.Struct, frozen=True):
    """How a client calls a message: its own id and batch, "" for none; and the answer that is kept under a key.

    `held` are contents of its attachments that are on the disk already.
    """

    client_id: str = ""
    batch_code: str = ""
    answer_key: RecordKey | None = None
    digest: str = ""
    held: Held = NOTHING_HELD


class Submit:
    """Takes messages. One object for all requests."""

    def __init__(self, parts: HttpParts) -> None:
        """Join the parts."""
        self._parts = parts
        self._secret, self._count = secrets.token_bytes(32), 0
        self.recall = parts.recall

    async def __call__(self, asked: Asked) -> Answer:
        """Take one message; raises Refused."""
        user = self.sender(asked)
        kind = asked.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind == _RAW:
            return await self._take_raw(asked, user)
        if kind != _JSON:
            allowed = f"{_JSON.decode()}, {_RAW.decode()}"
            raise Refused(415, f"a message comes as {allowed}", headers={"Accept-Post": allowed})
        return await self._take_json(asked, user)

    def sender(self, asked: Asked, tenant: str = "") -> User:
        """Give who sends: the caller, or the tenant that the operator names; raises Refused (401, 403)."""
        caller = asked.caller
        if caller is None:
            raise no_caller()
        if Scope.SEND not in caller.scopes:
            raise Refused(403, f"this needs a key with the scope {Scope.SEND}")
        key = caller.key.id if caller.key is not None else ""
        return self._parts.door.credentials.of_tenant(tenant_of(caller, tenant), key)

    async def _take_json(self, asked: Asked, user: User) -> Answer:
        parts, key = self._parts, self._answer_key(asked, user)
        most, folder, room = parts.terms.max_request_size, parts.attaching.folder, parts.limits.attachments
        request = await read_json(asked, most, folder, room, key is not None)
        try:
            submission = read_submission(request.octets)
            if isinstance(submission, tuple):
                raise wrong_fields(submission)
            whole, held = request.settle(submission, parts.limits)
            named = Named(whole.id, answer_key=key, digest=request.digest, held=held)
            if key is None and not whole.id:
                return await self.take(asked, user, whole, named)
            return await self._once(named, user.name, lambda: self.take(asked, user, whole, named))
        finally:
            request.let_go()

    async def take(self, asked: Asked, user: User, submission: Submission, named: Named) -> Answer:
        """Take a message that was read and was not handed in before; raises Refused."""
        if submission.template_id or submission.variables:
            submission = await fill_submission(self._parts.templates, user.name, submission, self._parts.limits)
        letter = check_submission(submission, self._parts.limits)
        if isinstance(letter, tuple):
            raise wrong_fields(letter)
        _check_names(submission)
        if submission.account_id and not self._parts.accounts.has(user.name, submission.account_id):
            raise wrong_fields([FieldFault("account_id", "there is no such account")])
        envelope = Envelope(
            letter.reverse_path,
            letter.recipients,
            smtputf8=letter.utf8,
            hold_until=submission.release,
            priority=submission.urgency or user.priority,
            pace=submission.pace,
        )
        wanted = Wanted(
            envelope=envelope,
            subject=letter.subject,
            client_id=named.client_id,
            dry_run=submission.dry_run,
            metadata=submission.metadata,
            account_id=submission.account_id,
            batch_code=named.batch_code,
            answer_key=named.answer_key,
            digest=lambda: named.digest,
            keeps_return_path=submission.return_path is not None,
        )
        wishes = _wishes(submission, user)
        handing = Handing(self._parts, asked, user, wanted)

        def warn(field: str, message: str) -> None:
            handing.warnings.append(FieldError(field, message))

        async def write(draft: Draft) -> None:
            await self._write(draft, letter, wishes, named.held, warn)

        if submission.account_id:
            self._check_limit(submission, user.name)
        if submission.dry_run:
            self._weigh(letter, named.held, warn)
        return await handing.run(write)

    def _weigh(self, letter: Letter, held: Held, warn: Warn) -> None:
        """Warn of what is large as far as that is known without fetching anything."""
        for place, attachment in enumerate(letter.attachments):
            if place in held or attachment.content is not None:
                size = held[place].size if place in held else len(attachment.content or b"")
                self._parts.attaching.measured(place, size, warn)

    def _check_limit(self, submission: Submission, tenant: str) -> None:
        """Refuse what is beyond the limits of an account that lets no mail wait, and count what is not.

        It is counted before it is on disk, as many may be on their way at once.
        """
        account, accounts = submission.account_id, self._parts.accounts
        if (wait := accounts.wait(tenant, account)) > 0.0:
            headers = {"Retry-After": str(ceil(wait))}
            raise Refused(429, f"account {account} takes no more for now: its limit is reached", headers=headers)
        if not submission.dry_run:
            accounts.take(tenant, account)

    async def _write(self, draft: Draft, letter: Letter, wishes: bytes, held: Held, warn: Warn) -> None:
        """Write a letter into a draft, behind the fields that say what is wished of the relay."""
        # Not a system call for each message; nobody who sees one can tell another.
        self._count += 1
        unique = hashlib.blake2b(b"%d" % self._count, digest_size=16, key=self._secret).hexdigest()
        stamp = Stamp(draft.arrival.at, self._parts.reception_terms().hostname, unique)
        if wishes:
            draft.write(wishes)
        if not letter.attachments:
            for piece in compose(letter, stamp).pieces:
                draft.write(piece)  # type: ignore[arg-type]  # without attachments there is no slot
            return
        attaching = self._parts.attaching
        async with aclosing(attaching.message(letter, stamp, draft.arrival.identity, warn, held)) as pieces:
            async for each in pieces:
                if isinstance(each, SourceFault):
                    raise _not_had(each)
                draft.write(each)
                if draft.refused is not None:
                    return  # the commit says why
                await drained(draft)

    async def _take_raw(self, asked: Asked, user: User) -> Answer:
        query = parse_qs(asked.query.decode("latin-1"))
        submission = self._parts.reception_terms().submission
        digest = hashlib.sha256()
        message = RawMessage(asked, submission, digest.update)
        await message.begin()
        client_id = query.get("id", [""])[-1]
        if len(client_id) > 200:
            raise Refused(422, "a field is wrong", errors=[("id", "up to 200 characters are allowed")])
        key = self._answer_key(asked, user, message.idempotency_key)
        named = Named(client_id, answer_key=key)
        wanted = Wanted(
            envelope=message.envelope(query, user.priority, self._parts.limits.recipients),
            subject=message.subject,
            client_id=client_id,
            dry_run=query.get("dry_run", [""])[-1] in ("1", "true"),
            answer_key=key,
            digest=digest.hexdigest,
            keeps_return_path=message.names_return_path(query),
        )
        handing = Handing(self._parts, asked, user, wanted)
        if key is None and not client_id:
            return await handing.run(message.write)

        async def read() -> str:
            await message.skip()
            return digest.hexdigest()

        return await self._once(named, user.name, lambda: handing.run(message.write), read)

    async def _once(
        self,
        named: Named,
        tenant: str,
        run: Callable[[], Awaitable[Answer]],
        read: Callable[[], Awaitable[str]] | None = None,
    ) -> Answer:
        """Hand in what was not handed in before under the same key or name; one at a time.

        `read` reads what is left of the content, so that it can be told from the one of before, and gives its digest.
        """
        name = (NAMES, tenant, named.client_id) if named.client_id else None
        mine = [key for key in (named.answer_key, name) if key is not None]
        begun: list[RecordKey] = []
        try:
            for key in mine:
                await self.recall.begin(key)
                begun.append(key)
            if named.answer_key is not None and (found := await self.recall.find(named.answer_key)) is not None:
                return repeat(found, named.digest if read is None else await read())
            if name is not None and (found := await self.recall.find(name)) is not None:
                known = found.data.decode()
                raise Refused(409, f"a message with this id was handed in before: it is {known}")
            return await run()
        finally:
            for key in begun:
                self.recall.end(key)

    def _answer_key(self, asked: Asked, user: User, otherwise: str | None = None) -> RecordKey | None:
        """Give the key that the request has, else the one that the message itself has."""
        header = asked.headers.get(b"idempotency-key")
        shown = otherwise if header is None else header.decode("latin-1")
        return None if shown is None else answer_key(user.name, shown)


def _wishes(submission: Submission, user: User) -> bytes:
    """Write the fields by which a message asks something of the relay; they are taken out before it is signed."""
    fields = b""
    if submission.tag:
        fields = b"X-Smarthost-Tag: %s\r\n" % submission.tag.encode()
    route = route_name(user.name, submission.account_id) if submission.account_id else submission.route
    if route:
        fields += b"X-Smarthost-Route: %s\r\n" % route.encode()
    return fields


def _check_names(submission: Submission) -> None:
    """Refuse what can be no name of a route or an account."""
    faults = []
    for name in ("route", "account_id"):
        text = getattr(submission, name)
        if text and (len(text) > 200 or not text.isascii() or not text.isprintable()):
            faults.append(FieldFault(name, "is not a name"))
    if faults:
        raise wrong_fields(faults)


def _not_had(fault: SourceFault) -> Refused:
    """Say why an attachment cannot be had, and whether it may be later."""
    status = 503 if fault.passing else 422
    headers = {"Retry-After": _COME_AGAIN} if fault.passing else {}
    return Refused(status, f"{fault.field}: {fault.message}", errors=[(fault.field, fault.message)], headers=headers)
