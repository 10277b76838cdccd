"""Control verbs: what a person may ask of the running relay, with which arguments; the one table of them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Protocol

import msgspec

from smarthost.control_template_verbs import NewTemplate, TemplateName, TemplateOperations, TemplatePreview, TemplatesOf
from smarthost.mail.message import parse_id
from smarthost.mail.suppression import Origin, Suppression
from smarthost.policy.glob import compile_globs
from smarthost.spool.store import Filter

Row = dict[str, Any]


class SuspensionOperations(Protocol):
    """What a person may suspend: a site, a route, a user or a batch. Rows have kind, name, since, until and reason."""

    def rows(self) -> AsyncIterator[Row]:
        """Give all suspensions."""

    async def suspend(self, asked: "Suspend") -> Row:
        """Suspend; give what is suspended now."""

    async def resume(self, asked: "Resume") -> Row:
        """Resume; give what was suspended. Raises Refusal where nothing was."""


class SuppressionOperations(Protocol):
    """What the relay does for a person with its suppression list. `user` "" is everybody's part of it."""

    def rows(self, chosen: "SuppressionChoice") -> AsyncIterator[Row]:
        """Give `suppression_row`s by user and address."""

    async def put(self, asked: "Suppress") -> Row:
        """Put addresses on the list; give counts of "added", "known" and "invalid", and the "problems" of the last."""

    async def remove(self, asked: "Unsuppress") -> Row:
        """Take addresses off the list; give counts of "removed" and "unknown"."""


class KeyOperations(Protocol):
    """What a person may do with the API keys of every tenant. Rows have id, tenant, name, scopes and times."""

    async def add(self, asked: "NewKey") -> Row:
        """Make a key; its row has the token as "key", which nobody can give again."""

    def rows(self, asked: "Tenant") -> AsyncIterator[Row]:
        """Give keys, oldest first."""

    async def revoke(self, asked: "KeyName") -> Row:
        """Revoke a key. Raises Refusal where there is none."""


class TrialOperations(Protocol):
    """What the relay says of its own delivery, and does to try it."""

    async def progress(self) -> Row:
        """Give what delivery has done since the start, what it does, and what is due and has not gone yet."""

    async def send_test(self, asked: "TrialMessage") -> Row:
        """Put a small message into the queue; give its id. Raises Refusal for what is no address, or is refused."""


class Operations(Protocol):
    """What the relay does for a person. Rows are plain dictionaries (see `report.rows`); `bytes` become base64.

    A message id is a number here. `None`, or no rows at all, means that nobody knows the message.
    """

    suppression: SuppressionOperations
    suspension: SuspensionOperations
    keys: KeyOperations
    trial: TrialOperations
    templates: TemplateOperations

    def queue_list(self, wanted: Filter, limit: int) -> AsyncIterator[Row]:
        """Give entries by arrival (`entry_row`), at most `limit` of them; 0 is no limit."""

    async def queue_show(self, message: int) -> Row | None:
        """Give {"message": `message_row`, "entries": [`entry_row`...], "events": [`event_row`...]}."""

    async def queue_flush(self, wanted: Filter) -> Row:
        """Make entries due now, parked ones left out; give {"entries": count, "messages": count}, and "in_delivery"
        when some could not be changed because they are in delivery just now."""

    async def queue_hold(self, wanted: Filter, dry_run: bool) -> Row:
        """Park entries until they are released; give counts as `queue_flush`."""

    async def queue_release(self, wanted: Filter, dry_run: bool) -> Row:
        """Let parked entries go on; give counts."""

    async def queue_retry(self, wanted: Filter, dry_run: bool) -> Row:
        """Route entries again, forget what hosts failed, and make them due now; give counts."""

    async def queue_fail(self, wanted: Filter, dry_run: bool) -> Row:
        """Give up entries now, with the reports that their senders asked for; give counts."""

    async def queue_delete(self, wanted: Filter, dry_run: bool) -> Row:
        """Delete entries without any report; give counts."""

    def queue_export(self, wanted: Filter) -> AsyncIterator[Row]:
        """Give whole messages, each as rows: first `message_row` with "recipients" added, then {"id", "content": bytes}
        blocks of at most 256 KiB; the message's last row has "end": True, and "problem": text if content is missing."""

    def trace(self, message: int) -> AsyncIterator[Row]:
        """Give the events of a message (`event_row`), oldest first."""

    def why(self, message: int) -> AsyncIterator[Row]:
        """Give `entry_row` with "text" (a sentence), "since" and "until" (RFC 3339 or None) for each entry."""

    async def explain(self, question: "Question") -> Row:
        """Say what would become of a message; nothing is sent. Raises Refusal for what is no address."""

    async def status(self) -> Row:
        """Give what an operator asks first: version, uptime, listeners, counts of the queue."""

    async def reload(self) -> Row:
        """Read the configuration again; give {"problems": [sentences]}, empty when the new one is in use."""


class Refusal(Exception):
    """A request that cannot be served; becomes a problem document (RFC 9457)."""

    def __init__(self, status: int, title: str, detail: str) -> None:
        """Keep HTTP's status code, a short title and a sentence."""
        super().__init__(detail)
        self.status = status
        self.title = title
        self.detail = detail


class WrittenFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A filter as it travels: like `spool.store.Filter`, with message ids as text."""

    sender: str = ""
    recipient: str = ""
    destination: str = ""
    route: str = ""
    user: str = ""
    tag: str = ""
    older: float = 0.0
    why: str = ""
    ids: tuple[str, ...] = ()

    def read(self) -> Filter:
        """Give the spool's filter; raises Refusal when an id is none."""
        return Filter(
            sender=self.sender,
            recipient=self.recipient,
            destination=self.destination,
            route=self.route,
            user=self.user,
            tag=self.tag,
            older=self.older,
            why=self.why,
            ids=tuple(read_id(text) for text in self.ids),
        )


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of a verb that takes none."""


class OneMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of a verb about one message."""

    id: str


class Selection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of a verb that reads entries; `limit` 0 is no limit."""

    filter: WrittenFilter = WrittenFilter()
    limit: int = 0


class Suspend(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A wish to suspend; `seconds` 0 is until it is resumed."""

    kind: str
    name: str
    seconds: float = 0.0
    reason: str = ""


class Resume(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A wish to resume."""

    kind: str
    name: str


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message that nobody sends: what would become of it?

    `sender` is the reverse-path, "<>" for the null one and "" for nobody in particular; `author` is the header From,
    "" for the sender; `user` is who hands it in; `address` is ours as others see it, "" for the one we connect from.
    """

    recipient: str
    sender: str = ""
    author: str = ""
    user: str = ""
    tag: str = ""
    address: str = ""


class Change(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of a verb that changes entries. `everything` must be said when the filter leaves nothing out."""

    filter: WrittenFilter = WrittenFilter()
    dry_run: bool = False
    everything: bool = False

    def read(self) -> Filter:
        """Give the spool's filter; raises Refusal when it would mean all entries by accident."""
        if self.filter == WrittenFilter() and not self.everything:
            raise Refusal(400, "No filter", "a verb that changes the queue wants a filter, ids, or `everything`")
        return self.filter.read()


class SuppressionChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which rows of the suppression list are meant: of a user (None for all), by a pattern of addresses and an origin.

    `counted` are addresses too that have failed, but are not suppressed yet; `limit` 0 is no limit.
    """

    user: str | None = None
    match: str = ""
    origin: Origin | None = None
    counted: bool = False
    limit: int = 0

    def means(self, row: Suppression, now: float) -> bool:
        """Whether a row is one of those; what expired before `now` is none."""
        return (
            (self.user is None or row.owner == self.user)
            and (not self.match or compile_globs((self.match,)).fullmatch(row.address) is not None)
            and (self.origin is None or row.origin is self.origin)
            and (self.counted or row.is_suppressed)
            and row.expires > now
        )


class Listed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An address to be put on the list, for a user or ("") everybody. `expires` is a Unix time, None for never."""

    address: str
    user: str = ""
    reason: str = ""
    expires: float | None = None


class Suppress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Addresses to be put on the list; with `keeps` one that is suppressed already stays as it is."""

    addresses: tuple[Listed, ...]
    keeps: bool = False
    dry_run: bool = False


class Unsuppress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Addresses to be taken off the list: those named, of `user`, or else those that `choice` means."""

    addresses: tuple[str, ...] = ()
    user: str = ""
    choice: SuppressionChoice | None = None
    dry_run: bool = False


class NewKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A key to be made; `expires` is a Unix time, 0 for never; `tenant` "" is the default one."""

    scopes: tuple[str, ...]
    tenant: str = ""
    name: str = ""
    expires: float = 0.0
    message_rate: tuple[str, ...] = ()


class Tenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose keys are meant; "" is everybody's."""

    tenant: str = ""


class KeyName(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which key is meant."""

    id: str


class TrialMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message of the relay's own; `sender` "" is the postmaster."""

    to: str
    sender: str = ""


class Verb(msgspec.Struct, frozen=True):
    """One verb: the type of its arguments, and either `one` answer or `rows`."""

    arguments: type[Any]
    one: Callable[[Operations, Any], Awaitable[Row]] | None = None
    rows: Callable[[Operations, Any], AsyncIterator[Row]] | None = None


def read_id(text: str) -> int:
    """Read a message id; raises Refusal when the text is none."""
    number = parse_id(text)
    if number is None:
        raise Refusal(400, "Not a message id", f"{text[:80]!r} is no message id: it has 12 letters and digits")
    return number


async def _show(relay: Operations, asked: OneMessage) -> Row:
    row = await relay.queue_show(read_id(asked.id))
    if row is None:
        raise unknown(asked.id)
    return row


async def _flush(relay: Operations, asked: Change) -> Row:
    wanted = asked.read()
    if not asked.dry_run:
        return await relay.queue_flush(wanted)
    messages: set[str] = set()
    entries = 0
    async for row in relay.queue_list(wanted, 0):
        if row["due"] is not None:
            entries += 1
            messages.add(row["id"])
    return {"entries": entries, "messages": len(messages)}


async def _at_least_one(rows: AsyncIterator[Row], asked: OneMessage) -> AsyncIterator[Row]:
    found = False
    async for row in rows:
        found = True
        yield row
    if not found:
        raise unknown(asked.id)


def unknown(written: str) -> Refusal:
    """Say that nobody knows a message; it left the queue long ago, or never came."""
    return Refusal(404, "No such message", f"{written} is neither in the queue nor in the history that is kept")


VERBS: Mapping[str, Verb] = {
    "queue.list": Verb(Selection, rows=lambda relay, asked: relay.queue_list(asked.filter.read(), asked.limit)),
    "queue.show": Verb(OneMessage, one=_show),
    "queue.flush": Verb(Change, one=_flush),
    "queue.hold": Verb(Change, one=lambda relay, asked: relay.queue_hold(asked.read(), asked.dry_run)),
    "queue.release": Verb(Change, one=lambda relay, asked: relay.queue_release(asked.read(), asked.dry_run)),
    "queue.retry": Verb(Change, one=lambda relay, asked: relay.queue_retry(asked.read(), asked.dry_run)),
    "queue.fail": Verb(Change, one=lambda relay, asked: relay.queue_fail(asked.read(), asked.dry_run)),
    "queue.delete": Verb(Change, one=lambda relay, asked: relay.queue_delete(asked.read(), asked.dry_run)),
    "queue.export": Verb(Selection, rows=lambda relay, asked: relay.queue_export(asked.filter.read())),
    "trace": Verb(OneMessage, rows=lambda relay, asked: _at_least_one(relay.trace(read_id(asked.id)), asked)),
    "why": Verb(OneMessage, rows=lambda relay, asked: _at_least_one(relay.why(read_id(asked.id)), asked)),
    "suppress.list": Verb(SuppressionChoice, rows=lambda relay, asked: relay.suppression.rows(asked)),
    "suppress.add": Verb(Suppress, one=lambda relay, asked: relay.suppression.put(asked)),
    "suppress.remove": Verb(Unsuppress, one=lambda relay, asked: relay.suppression.remove(asked)),
    "suspend": Verb(Suspend, one=lambda relay, asked: relay.suspension.suspend(asked)),
    "resume": Verb(Resume, one=lambda relay, asked: relay.suspension.resume(asked)),
    "suspensions": Verb(Nothing, rows=lambda relay, asked: relay.suspension.rows()),
    "key.add": Verb(NewKey, one=lambda relay, asked: relay.keys.add(asked)),
    "key.list": Verb(Tenant, rows=lambda relay, asked: relay.keys.rows(asked)),
    "key.revoke": Verb(KeyName, one=lambda relay, asked: relay.keys.revoke(asked)),
    "template.list": Verb(TemplatesOf, rows=lambda relay, asked: relay.templates.rows(asked)),
    "template.add": Verb(NewTemplate, one=lambda relay, asked: relay.templates.add(asked)),
    "template.show": Verb(TemplateName, one=lambda relay, asked: relay.templates.show(asked)),
    "template.preview": Verb(TemplatePreview, one=lambda relay, asked: relay.templates.preview(asked)),
    "template.remove": Verb(TemplateName, one=lambda relay, asked: relay.templates.remove(asked)),
    "progress": Verb(Nothing, one=lambda relay, asked: relay.trial.progress()),
    "test.send": Verb(TrialMessage, one=lambda relay, asked: relay.trial.send_test(asked)),
    "explain": Verb(Question, one=lambda relay, asked: relay.explain(asked)),
    "status": Verb(Nothing, one=lambda relay, asked: relay.status()),
    "reload": Verb(Nothing, one=lambda relay, asked: relay.reload()),
}
