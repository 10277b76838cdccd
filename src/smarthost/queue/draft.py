"""Draft: one message on its way in, from its first octet to the commit."""

import time
from collections.abc import Callable
from functools import partial

from smarthost.crypto.dkim import BodyHash, Unsigned, prepare
from smarthost.crypto.dkim_keys import SigningKey
from smarthost.mail.envelope import Envelope
from smarthost.mail.event import accepted_event
from smarthost.mail.message import Arrival, Message, format_id
from smarthost.mail.record import Record
from smarthost.mail.reply import DISK_FULL, HEADER_TOO_BIG, INTERNAL_ERROR, LONG_LINE, EnhancedStatus, Reply, make_reply
from smarthost.policy.admission import LongLines
from smarthost.queue.edit import Edited, edit_header, join_fields
from smarthost.queue.once import Once
from smarthost.queue.rework import reencoded
from smarthost.queue.signing import signature_names
from smarthost.queue.way import Way
from smarthost.spool.store import INLINE_LIMIT, Accepted, Content, ContentFile, Fault
from smarthost.wire.data import MAX_TEXT_LINE, LongLineScan
from smarthost.wire.header import Field, split_fields

SHORT = 32 * 1024  # octets; a body that is hashed on the loop, together with others, in 0.1 ms
HEADER_LIMIT = 256 * 1024  # octets of a header section; twice what Postfix keeps (header_size_limit 102400)
_QUEUED = EnhancedStatus(2, 0, 0)
# Looked up for each message: an attribute of an enum costs more than a name of the module.
_ENCODE, _REJECT = LongLines.ENCODE, LongLines.REJECT


class Draft:
    """A message on its way in. Used by one session, on the event loop.

    `refused` is set as soon as a refusal is known. `backlog` counts octets that were handed over and are not yet on
    disk (large content only); `on_drained` is called when it has fallen below a quarter of a MiB. `is_dotted` is set to
    false by who certainly knows that no line of what was written begins with a dot. `remember` gives what the door
    keeps of the message, in the same transaction; it is called once, from any thread, if there is one to be kept.
    `keeps_return_path` is set where its sender named a return path that no other may stand in for.
    """

    __slots__ = (
        "_body_hash",
        "_done",
        "_edited",
        "_eight_bit",
        "_file",
        "_intake",
        "_keys",
        "_long",
        "_name",
        "_number",
        "_once",
        "_parts",
        "_size",
        "_waiting",
        "arrival",
        "backlog",
        "envelope",
        "is_dotted",
        "keeps_return_path",
        "on_drained",
        "refused",
        "remember",
    )

    def __init__(self, intake: Way, arrival: Arrival, envelope: Envelope) -> None:
        """Begin empty."""
        self._intake, self.arrival, self.envelope = intake, arrival, envelope
        self.refused: Reply | None = None
        self.backlog = 0
        self.on_drained: Callable[[], None] | None = None
        self.remember: Callable[[Message], tuple[Record, ...]] | None = None
        self.is_dotted, self.keeps_return_path = True, False
        self._waiting = b""
        self._once: Once | None = None
        self._edited: Edited | None = None
        self._number = 0
        self._name = ""
        self._parts: list[bytes] = []
        self._size = 0  # octets of the parts, or of what goes to the file
        self._eight_bit = False
        self._long = LongLineScan()
        self._keys: tuple[SigningKey, ...] = ()
        self._file: ContentFile | None = None
        self._body_hash: BodyHash | None = None
        self._done: Callable[[Reply], None] | None = None

    def write(self, block: bytes) -> None:
        """Take a block of clean content: CRLF line ends, without transparency dots."""
        if self.refused is not None:
            return
        if self._edited is not None:
            self._push(block)
            return
        searched = len(self._waiting)
        whole = self._waiting + block if searched else block
        end, fields = split_fields(whole, searched)
        if end < 0 and len(whole) > HEADER_LIMIT:
            # A text without any header is no long header: it is mended, as a short one is at its end.
            end, fields = split_fields(whole, whole=True)
        if end < 0:
            self._waiting = whole
        else:
            self._take_header(whole, end, fields)

    def commit(self, done: Callable[[Reply], None]) -> None:
        """Make the message durable; `done` is called once, on the loop, with 250 and the id or with a refusal."""
        if self._edited is None and self.refused is None:
            self._take_header(self._waiting, *split_fields(self._waiting, whole=True))
        if self.refused is not None:
            self.abandon()
            done(self.refused)
        elif self._once is not None:
            self._once.admit(self._go_on, self.abandon, done)
        else:
            self._go_on(done)

    def _go_on(self, done: Callable[[Reply], None]) -> None:
        """On the loop: sign and store what nothing speaks against."""
        self._done = done
        assert self._edited is not None
        if self._long.found and self._intake.rules.edit.submission.long_lines is _ENCODE:
            self._intake.files.submit(self._rework)
        elif self._file is not None:
            self._intake.files.submit(self._seal)
        elif self._size > SHORT and self._keys:
            self._intake.files.submit(self._sign_from_here)
        else:
            self._sign()

    def abandon(self) -> None:
        """Forget the draft and its file; nothing of it stays."""
        self._parts.clear()
        self._waiting = b""
        if self._file is not None:
            self._intake.files.submit(self._file.discard)
            self._file = None

    def _take_header(self, whole: bytes, end: int, fields: list[Field]) -> None:
        """Edit the header section that ends at `end` and go on with what stands behind it as the body."""
        self._waiting = b""
        if end > HEADER_LIMIT:
            self.refused = HEADER_TOO_BIG
            return
        intake, arrival = self._intake, self.arrival
        rules = intake.rules
        self._number = number = intake.ids.mint(arrival.at)
        self._name = name = format_id(number)
        edited = edit_header(fields, name, arrival, self.envelope, rules.edit)
        if isinstance(edited, Reply):
            self.refused = edited
            return
        self._edited, self.envelope = edited, edited.envelope
        if edited.from_domain:
            self._keys = rules.keyring.for_domain(edited.from_domain)
        if edited.key and arrival.door != "http" and intake.recall is not None:
            self._once = Once(intake.recall, edited.key, arrival)
            self._once.take_header(edited.envelope, edited.fields)
        octets = edited.octets
        self._parts.append(octets)
        self._size = len(octets)
        if self._size > MAX_TEXT_LINE:
            # A shorter one can have no long line.
            self._look_for_long_line(octets)
        if end < len(whole):
            self._push(whole[end:])

    def _look_for_long_line(self, block: bytes) -> None:
        long = self._long
        if not long.found:
            long.feed(block)
            if long.found and self._intake.rules.edit.submission.long_lines is _REJECT:
                self.refused = LONG_LINE

    def _push(self, block: bytes) -> None:
        """Take a block of the body; beyond the inline limit it goes to a file by the content thread."""
        self._size = size = self._size + len(block)
        if not self._eight_bit and not block.isascii():
            self._eight_bit = True
        self._look_for_long_line(block)
        if self.refused is not None:
            return
        if self._once is not None:
            self._once.update(block)
        if self._file is None:
            if size <= INLINE_LIMIT:
                self._parts.append(block)
                return
            self._open_file()
        self._to_file(block)

    def _open_file(self) -> None:
        try:
            self._file = self._intake.spool.new_file(self._number)
        except OSError:
            self.refused = DISK_FULL
            return
        if self._keys:
            self._body_hash = BodyHash()
        header, *blocks = self._parts
        self._parts = [header]
        self._to_file(header, part_of_body=False)
        for block in blocks:
            self._to_file(block)

    def _to_file(self, block: bytes, part_of_body: bool = True) -> None:
        if self._file is None:
            return
        self.backlog += len(block)
        body_hash = self._body_hash if part_of_body else None
        self._intake.files.submit(partial(self._write_block, self._file, block, body_hash))

    def _write_block(self, file: ContentFile, block: bytes, body_hash: BodyHash | None) -> None:
        """Content thread: write one block, hash it, tell the loop."""
        try:
            file.write(block)
            failed = False
        except OSError:
            failed = True
        if body_hash is not None:
            body_hash.update(block)
        self._intake.loop.call_soon_threadsafe(self._written, len(block), failed)

    def _written(self, octets: int, failed: bool) -> None:
        self.backlog -= octets
        if failed and self.refused is None:
            self.refused = DISK_FULL
        if self.backlog < INLINE_LIMIT and self.on_drained is not None:
            self.on_drained()

    def _sign(self) -> None:
        """On the loop: have the message signed, if its domain has keys, and stored."""
        if self._keys:
            self._intake.signers.submit(self._unsigned, partial(self._signed, time.perf_counter()))
        else:
            self._intake.counters.unsigned()
            self._store(b"")

    def _unsigned(self) -> Unsigned:
        """Write the signatures' fields as far as it goes without the keys."""
        assert self._edited is not None
        body_hash = self._body_hash
        if body_hash is None:
            body_hash = BodyHash()
            for block in self._parts[1:]:
                body_hash.update(block)
        return prepare(self._keys, self._edited.fields, body_hash.digest(), int(self.arrival.at))

    def _signed(self, started: float, signature: bytes | None) -> None:
        """Any thread: store the message with its signatures; None is a fault of ours."""
        if signature is None:
            self._fail(INTERNAL_ERROR)
            return
        self._intake.counters.signed(time.perf_counter() - started)
        self._store_or_fail(signature)

    def _store_or_fail(self, signature: bytes) -> None:
        try:
            self._store(signature)
        except Exception:
            self._fail(INTERNAL_ERROR)
            raise

    def _sign_from_here(self) -> None:
        """Content thread: prepare the signature, which may take long here, and have the loop go on; or store."""
        if not self._keys:
            self._intake.counters.unsigned()
            self._store_or_fail(b"")
            return
        try:
            unsigned = self._unsigned()
        except Exception:
            self._fail(INTERNAL_ERROR)
            raise
        done = partial(self._signed, time.perf_counter())
        self._intake.loop.call_soon_threadsafe(self._intake.signers.submit, lambda: unsigned, done)

    def _seal(self) -> None:
        """Content thread: put the file on disk; signing and storing follow."""
        assert self._file is not None
        try:
            if self.refused is not None:
                self._file.discard()
                self._fail(self.refused)
                return
            self._file.seal()
        except OSError:
            self._file.discard()
            self._fail(DISK_FULL)
            return
        self._sign_from_here()

    def _rework(self) -> None:
        """Content thread: re-encode what has lines over 998 octets, as a new draft of the same message."""
        assert self._edited is not None
        try:
            self._replace_content()
        except OSError:
            self._fail(DISK_FULL)
            return
        except Exception:
            self._fail(INTERNAL_ERROR)
            raise
        if self._file is not None:
            self._seal()
        else:
            self._sign_from_here()

    def _replace_content(self) -> None:
        """Content thread: run the content through the re-encoder into new parts or a new file."""
        assert self._edited is not None
        old = self._file.reopen() if self._file is not None else None
        self._edited.fields, blocks = reencoded(list(self._parts), old)
        header = join_fields(self._edited.fields)
        self._parts, self._size, self._eight_bit, self.is_dotted = [header], len(header), False, True
        self._file = self._intake.spool.new_file(self._number) if old is not None else None
        self._body_hash = BodyHash() if self._keys and self._file is not None else None
        if self._file is not None:
            self._file.write(header)
        for block in blocks:
            self._size += len(block)
            self._eight_bit = self._eight_bit or not block.isascii()
            if self._file is None:
                self._parts.append(block)
                continue
            self._file.write(block)
            if self._body_hash is not None:
                self._body_hash.update(block)
        if old is not None:
            old.close()

    def _store(self, signature: bytes) -> None:
        """Any thread: hand message, content and entries to the spool as one transaction."""
        edited, intake = self._edited, self._intake
        assert edited is not None
        if self._file is None:
            head = b"".join([signature, *self._parts] if signature else self._parts)
            content = Content(head, "", len(head), self.is_dotted)
        else:
            content = Content(signature, self._file.name, len(signature) + self._size, self.is_dotted)
        message = Message(
            self._number,
            self.arrival,
            self.envelope,
            content.size,
            eight_bit=self._eight_bit,
            utf8_header=edited.utf8,
            tag=edited.tag,
            signatures=signature_names(self._keys) if self._keys else (),
            route=edited.route,
        )
        entries = intake.entries_for(message, self.keeps_return_path)
        if isinstance(entries, Reply) or not entries:
            if self._file is not None:
                self._file.discard()
            said = f"accepted as {self._name} and discarded, as its route says"
            self._fail(entries if isinstance(entries, Reply) else make_reply(250, "2.0.0", said))
            return
        records = self.remember(message) if self.remember is not None else ()
        if self._once is not None:
            records += (self._once.record(message),)
        accepted = Accepted(message, content, entries, (accepted_event(message),), records)
        intake.spool.accept(accepted, partial(self._committed, accepted))

    def _fail(self, reply: Reply) -> None:
        """Any thread: answer with a refusal."""
        assert self._done is not None
        self._intake.loop.call_soon_threadsafe(self._done, reply)

    def _committed(self, accepted: Accepted, fault: Fault | None) -> None:
        """On the loop, after the commit: answer, and let the queue know."""
        assert self._done is not None
        if fault is not None:
            if self._file is not None:
                self._intake.files.submit(self._file.discard)
            if fault is Fault.DISK_FULL:
                self._done(DISK_FULL)
            return
        self._done(Reply(250, _QUEUED, (f"queued as {self._name}",)))
        self._intake.accepted(accepted)
