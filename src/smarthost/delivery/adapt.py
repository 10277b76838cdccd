"""Adapts messages to hosts that lack an extension: another host may offer it, another form need none; or they fail."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol
from weakref import finalize

import msgspec

from smarthost.delivery.transaction import Job, Peer, refuse, refuse_locally
from smarthost.mail.address import to_ascii_mailbox
from smarthost.mail.outcome import Action, Outcome
from smarthost.mail.reply import EnhancedStatus
from smarthost.network.session import Session
from smarthost.policy.classify import NetFault
from smarthost.policy.conversion import Conversion, Conversions, Form
from smarthost.queue.converting import Converted, Original, convert
from smarthost.queue.intake import Intake
from smarthost.queue.ready import ReadyQueue
from smarthost.queue.signing import Workers
from smarthost.report.counters import Counters
from smarthost.spool.store import Content, Spool
from smarthost.wire.downgrade import Obstacle

log = logging.getLogger(__name__)

AT_ONCE = 16  # conversions that are under way before sessions wait
MEMORY = 16 * 1024 * 1024  # octets of converted contents that are kept for the next recipient or attempt
FILES = 4  # converted contents in files that are kept
LACKS = 3600.0  # seconds for which a host is remembered not to offer an extension
MOST_HOSTS = 1000

_BODY = EnhancedStatus(5, 6, 3)  # RFC 3463 3.7, conversion required but not supported
_ADDRESS = EnhancedStatus(5, 6, 7)  # RFC 6531 3.5
_TROUBLE = EnhancedStatus(4, 3, 0)
_NO_REQUIRETLS = "it does not offer REQUIRETLS, or its certificate proves nothing"
_NO_SMTPUTF8 = "the host does not offer SMTPUTF8, and"


class Adapted(NamedTuple):
    """What becomes of a job: it can be carried as `job`, or some of its recipients have their `outcomes`, or neither:
    it waits elsewhere. Where the session shall take no other job now, `stops` says so.
    """

    job: Job | None = None
    outcomes: Sequence[Outcome] = ()
    stops: bool = False


class Carrying(Protocol):
    """A session that carries mail, as far as adapting is concerned with it."""

    session: Session

    def take_no_more(self) -> None:
        """End the session once nothing is in flight."""


class Dispatching(Protocol):
    """A site's dispatcher, as far as adapting is concerned with it."""

    ready: ReadyQueue

    @property
    def pool(self) -> "Pooled | None":
        """The pool that its site is an upstream of."""

    def returned(self, job: Job) -> None:
        """Take a job back to the front, for any session."""

    def held_back(self, transfer: Any, job: Job) -> None:
        """Take a job back, and wake the session when there is work for it."""


class Pooled(Protocol):
    """A pool of upstreams, as far as adapting is concerned with it."""

    def passes_on(self, dispatcher: Any, reason: str) -> bool:
        """Have what waits at an upstream that cannot take mail with REQUIRETLS wait for the others, if there are."""


class _FileContent(Content, frozen=True, gc=True, weakref=True):
    """A converted content in a file: the file goes with it."""


Found = Content | Obstacle | str  # a str says what failed


class Adapter:
    """Converts at first need, off the loop, and remembers what it has converted. Mutable.

    What is remembered is in memory, with a bound, and not in the spool: a form follows from the content and the keys
    alone, to the octet, so that it is made again in a millisecond or two when it was forgotten, and a write for each
    message would cost more. Large contents are the exception: their form is in a file while it is in use. `workers` is
    a thread for this alone: a large content takes a third of a second, in which others want theirs committed.
    """

    def __init__(self, intake: Intake, spool: Spool, counters: Counters, clock: Callable[[], float]) -> None:
        """Begin with nothing converted."""
        self.conversions = Conversions()
        self.workers = Workers(1, "conversion")
        self._is_closed = False
        self._intake, self._spool, self._counters, self._clock = intake, spool, counters, clock
        self._forms: dict[tuple[int, Form], Found] = {}
        self._waiting: dict[tuple[int, Form], list[tuple[Dispatching, Job]]] = {}
        self._lacking: dict[tuple[str, NetFault], float] = {}

    def follow(self, conversions: Conversions) -> None:
        """Follow a configuration; signing keys may have changed, too."""
        self.conversions = conversions
        self._forms.clear()

    def close(self) -> None:
        """Forget what was converted, with its files; what waits to be converted is not begun any more."""
        self._is_closed = True
        self.workers.close()
        self._forms.clear()

    def adapt(self, dispatcher: Dispatching, transfer: Carrying, job: Job, obstacle: NetFault, peer: Peer) -> Adapted:
        """Say what becomes of a job that a host cannot take as it is."""
        if obstacle is NetFault.TOO_BIG:
            return Adapted(outcomes=refuse_locally(job, peer, obstacle))
        if obstacle is NetFault.CERTIFICATE:
            # A session that is opened for this job shows whether the host may have it.
            transfer.take_no_more()
            dispatcher.returned(job)
            return Adapted(stops=True)
        if self._is_elsewhere(dispatcher, job, obstacle, peer):
            job.entry.hosts_tried = (*job.entry.hosts_tried, peer.host)[-4:]
            transfer.take_no_more()
            dispatcher.returned(job)
            return Adapted(stops=True)
        if obstacle is NetFault.REQUIRETLS_MISSING:
            if dispatcher.pool is not None and dispatcher.ready.site.route.demand:
                # It is there for the others to take where it waits with the rest.
                dispatcher.ready.push_back(job.entry)
                if dispatcher.pool.passes_on(dispatcher, _NO_REQUIRETLS):
                    transfer.take_no_more()
                    return Adapted(stops=True)
                dispatcher.ready.take()
            return Adapted(outcomes=refuse_locally(job, peer, obstacle))
        extensions, message = transfer.session.extensions, job.entry.message
        needs_body = message.eight_bit and not extensions.eight_bit_mime
        needs_header = message.utf8_header and (needs_body or not extensions.smtputf8)
        is_about_utf8 = obstacle is NetFault.SMTPUTF8_MISSING or needs_header
        fails = (needs_body and self.conversions.eight_bit is Conversion.FAIL) or (
            is_about_utf8 and self.conversions.smtputf8 is Conversion.FAIL
        )
        if fails:
            return Adapted(outcomes=refuse_locally(job, peer, obstacle))
        if not extensions.smtputf8 and (unwritable := _refuse_addresses(job, peer)):
            return Adapted(outcomes=unwritable)
        form = Form.SEVEN_BIT if needs_body else Form.ASCII_HEADER
        if not (needs_body or needs_header):
            return Adapted(msgspec.structs.replace(job, form=form))
        return self._take(dispatcher, transfer, job, form, peer)

    def _take(self, dispatcher: Dispatching, transfer: Carrying, job: Job, form: Form, peer: Peer) -> Adapted:
        """Give a job in another form if that has been made, else have it made."""
        key = job.entry.message.id, form
        found = self._forms.pop(key, None)
        if isinstance(found, Content):
            self._forms[key] = found  # behind all others: used last
            return Adapted(msgspec.structs.replace(job, content=found, form=form))
        if isinstance(found, Obstacle):
            is_body = found is Obstacle.SEALED
            text = f"the host does not offer {'8BITMIME' if form is Form.SEVEN_BIT else 'SMTPUTF8'}, and {found}"
            return Adapted(outcomes=refuse(job, peer, Action.FAILED, _BODY if is_body else _ADDRESS, text))
        if isinstance(found, str):
            return Adapted(outcomes=refuse(job, peer, Action.DELAYED, _TROUBLE, found))
        if key not in self._waiting and len(self._waiting) >= AT_ONCE:
            dispatcher.held_back(transfer, job)
            return Adapted(stops=True)
        self._waiting.setdefault(key, []).append((dispatcher, job))
        if len(self._waiting[key]) == 1:
            number = self._intake.ids.mint(self._clock())
            original = Original(job.entry.message, job.content, self._intake.rules.keyring, number)
            self.workers.submit(partial(self._convert, original, form))
        return Adapted()

    def _convert(self, original: Original, form: Form) -> None:
        """Worker thread: convert, and tell the loop."""
        if self._is_closed:
            return
        try:
            found: Converted | Obstacle | str = convert(original, form, self._spool)
        except OSError as error:
            found = f"the content could not be converted: {error.strerror or error}"
        except Exception:
            log.exception("a content could not be converted")
            found = "the content could not be converted: internal error"
        self._intake.loop.call_soon_threadsafe(self._converted, (original.message.id, form), found)

    def _converted(self, key: tuple[int, Form], found: Converted | Obstacle | str) -> None:
        """Remember a form, and give the jobs that waited for it back to their sites."""
        if isinstance(found, Converted):
            self._counters.conversions[key[1].name.lower()] += 1
            self._forms[key] = self._own(found)
            self._forget()
        else:
            self._forms[key] = found
        for dispatcher, job in self._waiting.pop(key):
            dispatcher.returned(job)

    def _own(self, converted: Converted) -> Content:
        """Give a content whose file is deleted when neither we nor a session holds it any more."""
        content, file = converted.content, converted.file
        if file is None:
            return content
        owned = _FileContent(content.head, content.file, content.size)
        finalize(owned, self._intake.files.submit, file.discard).atexit = False
        return owned

    def _forget(self) -> None:
        """Forget forms that have not been used for the longest time, but never the last one."""
        octets = sum(len(form.head) for form in self._forms.values() if isinstance(form, Content))
        files = sum(1 for form in self._forms.values() if isinstance(form, Content) and form.file)
        while len(self._forms) > 1 and (octets > MEMORY or files > FILES or len(self._forms) > MOST_HOSTS):
            oldest = self._forms.pop(next(iter(self._forms)))
            if isinstance(oldest, Content):
                octets -= len(oldest.head)
                files -= bool(oldest.file)

    def _is_elsewhere(self, dispatcher: Dispatching, job: Job, obstacle: NetFault, peer: Peer) -> bool:
        """Whether another host of the site, which was not asked yet, may offer what this one lacks."""
        hosts = dispatcher.ready.site.hosts
        tried = job.entry.hosts_tried
        if len(hosts) < 2 or peer.host in tried:
            return False
        now = self._clock()
        if len(self._lacking) >= MOST_HOSTS:
            self._lacking = {place: until for place, until in self._lacking.items() if until > now}
        if len(self._lacking) < MOST_HOSTS:
            self._lacking[peer.host, obstacle] = now + LACKS
        return any(host.name not in tried and self._lacking.get((host.name, obstacle), 0.0) <= now for host in hosts)


def _refuse_addresses(job: Job, peer: Peer) -> list[Outcome]:
    """Give the outcomes of recipients that ASCII has no way to write: all of them if that is so of the reverse-path."""
    if to_ascii_mailbox(job.entry.message.envelope.reverse_path) is None:
        return refuse(job, peer, Action.FAILED, _ADDRESS, f"{_NO_SMTPUTF8} the sender's address needs it")
    doomed = tuple(r for r in job.recipients if to_ascii_mailbox(r.address) is None)
    if not doomed:
        return []
    some = msgspec.structs.replace(job, recipients=doomed)
    return refuse(some, peer, Action.FAILED, _ADDRESS, f"{_NO_SMTPUTF8} the recipient's address needs it")
