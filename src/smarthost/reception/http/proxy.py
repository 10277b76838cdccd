"""Takes messages as clients of a mail proxy send them: one (`/messages/add`) or many (`/messages/add_batch`)."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from smarthost.compose.fault import FieldFault
from smarthost.compose.proxy_form import ProxyMessage, in_proxy_words, read_proxy_message
from smarthost.compose.submission import Submission
from smarthost.mail.message import parse_id
from smarthost.mail.record import RecordKey
from smarthost.policy.admission import User
from smarthost.policy.suspension import batch_tag
from smarthost.reception.http.asking import tenant_named
from smarthost.reception.http.bodies import read_whole
from smarthost.reception.http.front import Answer, Asked
from smarthost.reception.http.parts import HttpParts
from smarthost.reception.http.problem import Refused, wrong_fields
from smarthost.reception.http.recall import NAMES
from smarthost.reception.http.submit import Named, Submit

MOST = 10_000  # messages of one request
PORTION = 128  # that are on their way to the disk together
TURN = 8  # that are begun before others have their turn
ALREADY_SENT, ALREADY_QUEUED = "already sent", "already queued"
_JSON = b"application/json"
_PASSING = 500  # from this status on a refusal says nothing of the message: it may be sent again as it is


class ProxyAdded(msgspec.Struct, frozen=True):
    """What became of a message: its id, ours as `pk`, and "pending", or "deferred" with the Unix time until when.

    "duplicate" says that the same id was taken before, and nothing is sent for it again.
    """

    id: str
    pk: str
    status: str
    ok: bool = True
    deferred_until: int | UnsetType = UNSET


class ProxyRejected(msgspec.Struct, frozen=True):
    """A message that was not taken, and why."""

    id: str | None
    reason: str


class ProxyBatch(msgspec.Struct, frozen=True):
    """How many messages were taken, and those that were not. `ok` is false when all of them are at fault."""

    ok: bool
    queued: int
    rejected: list[ProxyRejected]


class _Ours(msgspec.Struct):
    """What is read of our own answer to a message."""

    id: str


class _Read(msgspec.Struct):
    """A message that has no fault of form, and whose it is."""

    user: User
    message: ProxyMessage

    @property
    def key(self) -> RecordKey:
        """Under which its id is known once it was taken."""
        return NAMES, self.user.name, self.message.id


class Proxy:
    """Takes messages of a mail proxy's clients, on the way of all others (`submit`). One object for all requests."""

    def __init__(self, parts: HttpParts, submit: Submit) -> None:
        """Join the parts."""
        self._parts, self._submit = parts, submit

    async def add(self, asked: Asked) -> Answer:
        """Take one message; the same id again is answered without being sent again. Raises Refused."""
        value = await self._read(asked)
        read = self._check(asked, value, value.get("tenant_id"), None, {})
        recall = self._submit.recall
        await recall.begin(read.key)
        try:
            known = await recall.find(read.key)
            if known is not None:
                return _answer(ProxyAdded(read.message.id, known.data.decode(), "duplicate"))
            until = self._deferred_until(read)
            number = await self._take(asked, read)
        finally:
            recall.end(read.key)
        if until:
            return _answer(ProxyAdded(read.message.id, number, "deferred", deferred_until=until))
        return _answer(ProxyAdded(read.message.id, number, "pending"))

    async def add_batch(self, asked: Asked) -> Answer:
        """Take many messages, which are made durable together; says which were not taken. Raises Refused."""
        value = await self._read(asked)
        messages = value.get("messages")
        if not isinstance(messages, list):
            raise Refused(422, "a field is wrong", errors=[("messages", "must be a list")])
        if len(messages) > MOST:
            raise Refused(422, "a field is wrong", errors=[("messages", f"{MOST} messages are allowed in one request")])
        users: dict[str, User] = {}
        queued, rejected = 0, []
        for begin in range(0, len(messages), PORTION):
            portion = messages[begin : begin + PORTION]
            refused = await self._add_portion(asked, value, portion, users)
            queued += len(portion) - len(refused)
            rejected += refused
        at_fault = [each for each in rejected if each.reason not in (ALREADY_SENT, ALREADY_QUEUED)]
        return _answer(ProxyBatch(queued > 0 or not at_fault, queued, rejected))

    async def _read(self, asked: Asked) -> dict[str, Any]:
        self._submit.sender(asked)
        if asked.headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != _JSON:
            raise Refused(415, "messages come as application/json", headers={"Accept-Post": _JSON.decode()})
        octets = await read_whole(asked, self._parts.terms.max_request_size)
        try:
            value = msgspec.json.decode(octets)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Refused(400, f"the content is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise Refused(422, "the content is not a JSON object")
        return value

    async def _add_portion(
        self, asked: Asked, value: Mapping[str, Any], portion: Sequence[object], users: dict[str, User]
    ) -> list[ProxyRejected]:
        """Take some messages of a request; gives those that were not taken, in their order."""
        reasons: dict[int, str] = {}
        read: dict[RecordKey, tuple[int, _Read]] = {}
        for place, each in enumerate(portion):
            if place % TURN == 0:
                await asyncio.sleep(0)
            try:
                found = self._check(asked, each, value.get("tenant_id"), value.get("default_priority"), users)
            except Refused as refused:
                reasons[place] = _reason(refused)
                continue
            if found.key in read:
                reasons[place] = ALREADY_QUEUED
            else:
                read[found.key] = place, found
        recall = self._submit.recall
        begun: list[RecordKey] = []
        try:
            for key in sorted(read):  # each in the same order, so that no two requests wait for each other
                await recall.begin(key)
                begun.append(key)
            for key, record in (await recall.find_all(begun)).items():
                reasons[read.pop(key)[0]] = await self._standing(record.data.decode())
            reasons |= await self._take_all(asked, list(read.values()))
        finally:
            for key in begun:
                recall.end(key)
        return [ProxyRejected(_id_of(portion[place]), reason) for place, reason in sorted(reasons.items())]

    async def _take_all(self, asked: Asked, read: Sequence[tuple[int, _Read]]) -> dict[int, str]:
        """Take messages together; gives the reasons of those that were refused, by their places.

        Raises Refused where it is not the message's fault, so that the client comes again with all of them.
        """
        refusals: dict[int, Refused] = {}

        async def take(place: int, each: _Read) -> None:
            try:
                await self._take(asked, each)
            except Refused as refused:
                refusals[place] = refused

        async with asyncio.TaskGroup() as group:
            for count, (place, each) in enumerate(read, 1):
                group.create_task(take(place, each), name="message of a batch")
                if count % TURN == 0:
                    await asyncio.sleep(0)
        for refused in refusals.values():
            if refused.status >= _PASSING:
                raise refused
        return {place: _reason(refused) for place, refused in refusals.items()}

    def _check(
        self, asked: Asked, value: object, tenant: object, default_priority: int | str | None, users: dict[str, User]
    ) -> _Read:
        """Read one message, with the user who sends it; raises Refused."""
        found = read_proxy_message(value, default_priority)
        if isinstance(found, list):
            raise wrong_fields(found)
        assert isinstance(value, dict) and asked.caller is not None
        name = tenant_named(asked.caller, value.get("tenant_id") or tenant)
        user = users.get(name)
        if user is None:
            user = users[name] = self._submit.sender(asked, name)
        return _Read(user, found)

    async def _take(self, asked: Asked, read: _Read) -> str:
        """Take a message; gives our id of it. Raises Refused, with the names that the proxy has for fields."""
        message = read.message
        submission = _tagged(message)
        try:
            answer = await self._submit.take(asked, read.user, submission, Named(message.id, message.batch_code))
        except Refused as refused:
            raise _renamed(refused) from None
        return msgspec.json.decode(answer.body, type=_Ours).id

    def _deferred_until(self, read: _Read) -> int:
        """Give until when a message will wait, as its client or the limits of its account want it; 0 for not at all."""
        now, submission = self._parts.clock(), read.message.submission
        wait = self._parts.accounts.deferred(read.user.name, submission.account_id) if submission.account_id else 0.0
        until = max(submission.release, now + wait if wait > 0.0 else 0.0)
        return int(until + 0.999) if until > now else 0

    async def _standing(self, number: str) -> str:
        """Say what became of a message that was taken before."""
        known = parse_id(number)
        waits = known is not None and await self._parts.spool.entries_of(known)
        return ALREADY_QUEUED if waits else ALREADY_SENT


def _tagged(message: ProxyMessage) -> Submission:
    """Give a message with its batch as its tag, by which limits and suspensions mean it."""
    if not message.batch_code:
        return message.submission
    return msgspec.structs.replace(message.submission, tag=batch_tag(message.batch_code))


def _renamed(refused: Refused) -> Refused:
    """Give a refusal with the proxy's names of the fields."""
    if not refused.errors or refused.status != 422:
        return refused
    faults = tuple(FieldFault(each.field, each.message) for each in refused.errors)
    return wrong_fields(in_proxy_words(faults))


def _reason(refused: Refused) -> str:
    told = [f"{each.field}: {each.message}" if each.field else each.message for each in refused.errors[:5]]
    return "; ".join(told) or refused.detail


def _id_of(value: object) -> str | None:
    name = value.get("id") if isinstance(value, dict) else None
    return name if isinstance(name, str) else None


def _answer(told: ProxyAdded | ProxyBatch) -> Answer:
    return Answer(200, msgspec.json.encode(told))
