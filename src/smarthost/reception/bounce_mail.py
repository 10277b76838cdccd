"""The reception of bounces: mail to return paths of ours and to nobody else, of which nothing goes anywhere."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

from smarthost.mail.envelope import Envelope, Recipient
from smarthost.mail.message import Arrival, Message
from smarthost.mail.record import Record
from smarthost.mail.reply import INTERNAL_ERROR, Reply, make_reply
from smarthost.policy.rate import Cells, parse_rate
from smarthost.queue.return_paths import ReturnPaths

log = logging.getLogger(__name__)

MOST_KEPT = 256 * 1024  # octets of a mail that are read: what it reports stands before the message that it returns
MOST_RECIPIENTS = 10  # of a mail: a bounce is about one message

NO_SUCH_RETURN_PATH = make_reply(550, "5.1.1", "No such return path here")
TAKES_NO_MORE = make_reply(450, "4.7.1", "Too many bounces, try again later")
TAKEN = make_reply(250, "2.0.0", "taken")

TakeMail = Callable[[bytes, str], Awaitable[int]]


class BounceMail:
    """A mail that is coming in: a draft (`reception.parts.Draft`) that becomes no message. Its beginning is kept."""

    def __init__(self, desk: "BounceDesk", arrival: Arrival, envelope: Envelope) -> None:
        """Begin empty."""
        self.arrival, self.envelope = arrival, envelope
        self.refused: Reply | None = None
        self.backlog = 0
        self.is_dotted = True
        self.keeps_return_path = False
        self.on_drained: Callable[[], None] | None = None
        self.remember: Callable[[Message], tuple[Record, ...]] | None = None
        self._desk = desk
        self._kept = b""

    def write(self, block: bytes) -> None:
        """Take content; what is beyond the bound is dropped."""
        room = MOST_KEPT - len(self._kept)
        if room > 0:
            self._kept += block[:room]

    def commit(self, done: Callable[[Reply], None]) -> None:
        """Have it read; `done` is called when what it says is durable."""
        self._desk.read(self._kept, [recipient.address for recipient in self.envelope.recipients], done)

    def abandon(self) -> None:
        """Forget it."""
        self._kept = b""


class BounceDesk:
    """Takes mail to return paths, at a bounded rate; an intake and the limits of its own listeners.

    `paths` are the return paths that are good, None while there are none; a reload replaces them, and the rate.
    """

    active = True

    def __init__(self, take: TakeMail, clock: Callable[[], float]) -> None:
        """Take nothing yet; `take` makes events of a mail's content and the return path to which it came."""
        self.paths: ReturnPaths | None = None
        self._take, self._clock = take, clock
        self._cells = Cells()
        self._rates: tuple[str, ...] = ()
        self._reading: set[asyncio.Task[None]] = set()

    def follow(self, paths: ReturnPaths | None) -> None:
        """Follow other return paths; what was counted against the same rates stands."""
        self.paths = paths
        rates = paths.terms.message_rate if paths is not None else ()
        if rates != self._rates:
            self._rates, self._cells = rates, Cells(map(parse_rate, rates))

    # As an intake.

    def begin(self, arrival: Arrival, envelope: Envelope) -> BounceMail:
        """Begin a mail."""
        return BounceMail(self, arrival, envelope)

    def read(self, content: bytes, return_paths: list[str], done: Callable[[Reply], None]) -> None:
        """Read a mail; `done` is called with the reply when what it says is durable."""
        task = asyncio.get_running_loop().create_task(self._read(content, return_paths, done), name="bounce")
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def _read(self, content: bytes, return_paths: list[str], done: Callable[[Reply], None]) -> None:
        try:
            for return_path in return_paths:
                await self._take(content, return_path)
        except Exception:
            log.exception("a bounce could not be taken")
            done(INTERNAL_ERROR)
            return
        done(TAKEN)

    # As who decides whether a recipient is one.

    def refuse(self, reverse_path: str, recipient: Recipient, identity: str) -> Reply | None:
        """Refuse whatever is no return path that we have made lately."""
        path = self.paths.read(recipient.address) if self.paths is not None else None
        if path is None or self.paths is None or self.paths.is_over(path, self._clock()):
            return NO_SUCH_RETURN_PATH
        return None

    # As the door's limits.

    def refuse_sender(self, user: str, reverse_path: str) -> Reply | None:
        """Say whether a mail may come now."""
        return TAKES_NO_MORE if self._cells.wait(self._clock()) > 0.0 else None

    def refuse_recipient(self, user: str, reverse_path: str, destination: str, count: int) -> Reply | None:
        """Say whether a recipient may be added."""
        return None

    def take(self, user: str, reverse_path: str, recipients: Iterable[Recipient]) -> Reply | None:
        """Count a mail whose content begins, unless others were let in together with it and there is no room."""
        refusal = self.refuse_sender(user, reverse_path)
        if refusal is None:
            self._cells.take(self._clock())
        return refusal
