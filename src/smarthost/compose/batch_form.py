"""The JSON form of a batch: one template, its recipients, and how it is read while it comes, with its faults named."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta, field

from smarthost.compose.fault import FieldFault
from smarthost.compose.json_cutter import JsonCutter
from smarthost.compose.letter import Letter, check_submission
from smarthost.compose.limits import SubmissionLimits
from smarthost.compose.submission import Address, Addresses, Submission, convert_fields
from smarthost.mail.envelope import Priority

MOST_RECIPIENTS = 100_000
MOST_OCTETS = 64 * 1024  # of one recipient, and of any other member
_MOST_FAULTS = 50
_RECIPIENTS = b'"recipients"'


class BatchRecipient(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One recipient with what its template is filled in with; `email` may have a name: "Ada <ada@example.net>"."""

    email: str
    variables: dict[str, Any] = {}


class BatchForm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a batch says beside its recipients; `from` is the relay's postmaster where it says nothing."""

    template_id: Annotated[str, Meta(min_length=1, max_length=200)]
    author: Address = field(name="from", default="")
    reply_to: Addresses = field(default_factory=list)
    headers: dict[str, str] = {}
    tag: str = ""
    priority: Priority | Annotated[int, Meta(ge=0, le=3)] | None = None
    send_at: Annotated[datetime, Meta(tz=True)] | None = None
    route: Annotated[str, Meta(max_length=200)] = ""
    account_id: Annotated[str, Meta(max_length=200)] = ""
    metadata: dict[str, Any] = {}
    return_path: str | None = None

    @property
    def release(self) -> float:
        """The Unix time of `send_at`, 0 where nothing was said."""
        return self.send_at.timestamp() if self.send_at is not None else 0.0


class BatchSubmission(BatchForm, frozen=True, kw_only=True):
    """A batch as a whole, for the API's document: what is read is never this at once."""

    recipients: list[BatchRecipient]


_RECIPIENT = msgspec.json.Decoder(BatchRecipient)
_GROUP = msgspec.json.Decoder(list[BatchRecipient])
_RAW_GROUP = msgspec.json.Decoder(list[msgspec.Raw])


class BatchReader:
    """Reads a batch that comes in blocks; holds no more of it than one recipient and the other members.

    `faults` are those of the recipients; `count` is how many came. What `feed` gives are recipients as they were
    written, in their order; each of them has been read once.
    """

    def __init__(self) -> None:
        """Start before the first octet."""
        self._cutter = JsonCutter("recipients", MOST_OCTETS)
        self._members: dict[str, Any] = {}
        self._octets = 0
        self.faults: list[FieldFault] = []
        self.count = 0

    @property
    def is_over(self) -> bool:
        """Whether there is a fault after which nothing more is read."""
        return bool(self._cutter.fault) or len(self.faults) >= _MOST_FAULTS or self.count > MOST_RECIPIENTS

    def feed(self, block: bytes) -> list[bytes]:
        """Take a block; gives the recipients that are whole by it."""
        found: list[bytes] = []
        for name, octets in self._cutter.feed(block):
            if name == _RECIPIENTS:
                self._take_recipient(octets)
                found.append(octets)
            else:
                self._take_member(name, octets)
            if self.is_over:
                break
        return found

    def end(self) -> BatchForm | tuple[FieldFault, ...]:
        """Give what stood beside the recipients, when all has come, or everything that is wrong."""
        faults = self.faults
        if self.count > MOST_RECIPIENTS:
            faults.append(FieldFault("recipients", f"up to {MOST_RECIPIENTS} are allowed"))
        elif len(faults) < _MOST_FAULTS and not self._cutter.is_whole:
            return (FieldFault("", f"is not JSON: {self._cutter.fault or 'it ends too early'}"),)
        elif not self.count:
            faults.append(FieldFault("recipients", "at least one is needed"))
        form = convert_fields(self._members, BatchForm)
        if isinstance(form, tuple):
            faults.extend(form)
        return tuple(faults) if faults or isinstance(form, tuple) else form

    def _take_recipient(self, octets: bytes) -> None:
        place, self.count = self.count, self.count + 1
        try:
            _RECIPIENT.decode(octets)
        except msgspec.DecodeError as error:  # of the form, too
            where, _, inside = str(error).partition(" - at `$")
            path = f"recipients[{place}]{inside.rstrip('`')}"
            self.faults.append(FieldFault(path, where[:1].lower() + where[1:]))
        except RecursionError:
            self.faults.append(FieldFault(f"recipients[{place}]", "is nested too deeply"))

    def _take_member(self, name: bytes, octets: bytes) -> None:
        self._octets += len(name) + len(octets)
        try:
            key, value = msgspec.json.decode(name, type=str), msgspec.json.decode(octets)
        except (msgspec.DecodeError, RecursionError):
            shown = name.decode("utf-8", "replace")
            self.faults.append(FieldFault(shown.strip('"')[:60], "is not JSON"))
            return
        if self._octets > MOST_OCTETS:
            self.faults.append(FieldFault("", f"what is beside the recipients is longer than {MOST_OCTETS} octets"))
            return
        self._members[key] = value


def read_group(octets: bytes) -> list[BatchRecipient]:
    """Read recipients that a `BatchReader` has read before, as a JSON array."""
    return _GROUP.decode(octets)


def rest_of(octets: bytes, count: int) -> bytes:
    """Give the JSON array of recipients without its first ones."""
    return b"[%s]" % b",".join(map(bytes, _RAW_GROUP.decode(octets)[count:]))


def make_letter(form: BatchForm, author: str, limits: SubmissionLimits) -> Letter | tuple[FieldFault, ...]:
    """Check what a batch says for all its recipients alike, and give the letter that each gets a copy of, filled in.

    `author` is the address where the batch names none.
    """
    submission = Submission(
        author=form.author or author,
        to=author,  # nobody gets it: each recipient has a letter of its own
        reply_to=form.reply_to,
        text=" ",
        headers=form.headers,
        tag=form.tag,
        priority=form.priority,
        send_at=form.send_at,
        metadata=form.metadata,
        return_path=form.return_path,
    )
    return check_submission(submission, limits)


def urgency_of(form: BatchForm) -> Priority | None:
    """Give the priority by its name, None where nothing was said."""
    return Submission(priority=form.priority).urgency
