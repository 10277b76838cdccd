"""Pipeline: the order of commands and replies within one session; says what is written when, without a socket."""

from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from smarthost.delivery.transaction import Transaction
from smarthost.mail.outcome import Stage
from smarthost.mail.reply import Reply
from smarthost.policy.depth import Depth
from smarthost.spool.store import Content
from smarthost.wire.data import stuff

RSET = b"RSET\r\n"
CHUNK_LIMIT = 64 * 1024  # octets of a content that is worth sending before its recipients are known to be accepted
_END_LINE = b".\r\n"
_BAD_SEQUENCE = 503  # what BDAT gets where every recipient was refused, too
_NO_SUCH_COMMAND = frozenset({500, 501, 502, _BAD_SEQUENCE, 504})  # RFC 5321 4.2.2: said of BDAT, not of a message


class Step(NamedTuple):
    """What the next reply is about. `timeout` names the field of Timeouts; `answered` takes the reply."""

    stage: Stage
    timeout: str
    answered: "Callable[[Pipeline, Reply], None]"


class Driver(Protocol):
    """Whoever owns the connection."""

    def write(self, *octets: bytes) -> None:
        """Send octets."""

    def take(self) -> Transaction | None:
        """Give the next transaction; None when there is none, or none may be begun any more."""

    def send_file(self, transaction: Transaction) -> None:
        """Send a content that is in a file, but for its end, and call `content_sent`."""

    def settle(self, transaction: Transaction) -> None:
        """Take a transaction all of whose recipients have their outcomes; may end the session."""

    def rest(self) -> None:
        """Nothing is in flight and there is nothing to do."""

    def break_off(self, reason: str, reply: Reply | None = None) -> None:
        """End a session that cannot go on: commands and replies do not fit together any more."""


class Pipeline:
    """What is in flight: `current`, whose replies come next, and those `behind` it, written already. Mutable; `step`
    says which reply is awaited.

    Without `pipelining` each command waits for the reply to the one before (RFC 5321 4.1), and nothing is behind. With
    it, one envelope stands behind the content of `current` (RFC 2920 3.1). With `depth`, for a peer that also offers
    CHUNKING, whole transactions with small contents are written at once, and as many as the site has shown to cope
    with are in flight. Each of those that are behind begins with RSET: one whose recipients were all refused leaves
    its MAIL open.
    """

    __slots__ = ("_depth", "_driver", "_pipelining", "behind", "current", "step")

    def __init__(self, driver: Driver, pipelining: bool, depth: Depth | None = None) -> None:
        """Start idle."""
        self._driver = driver
        self._pipelining = pipelining
        self._depth = depth if pipelining else None
        self.step = IDLE
        self.current: Transaction | None = None
        self.behind: deque[Transaction] = deque()

    @property
    def has_room(self) -> bool:
        """Whether another transaction may be written behind those that are in flight."""
        if not self._pipelining or self.current is None:
            return False
        last = self.behind[-1] if self.behind else self.current
        if last.is_chunked:
            assert self._depth is not None
            return self._depth.is_usable and 1 + len(self.behind) < self._depth.depth
        return self.step is DOT and not self.behind

    @property
    def may_be_cut(self) -> bool:
        """Whether something is in flight, and none of it has been sent to its end."""
        if self.step is IDLE or self.step is DOT or self.current is None or self.behind:
            return False
        return not self.current.is_chunked

    def stop(self) -> tuple[Step, list[Transaction]]:
        """Expect nothing any more; give the step and the transactions that were in flight, the current one first."""
        step, current = self.step, self.current
        found = [] if current is None else [current, *self.behind]
        self.step, self.current = CLOSED, None
        self.behind.clear()
        if self._depth is not None and any(transaction.is_chunked for transaction in found):
            self._depth.surprised()
        return step, found

    def wake(self) -> None:
        """Begin a transaction if idle, or behind those in flight if there is room."""
        if self.step is IDLE:
            self._begin(reset=False)
        else:
            self._fill()

    def content_sent(self, *rest: bytes) -> None:
        """Write the rest of the content, its end included, and in the same write the next envelope (RFC 2920 3.1)."""
        self.step = DOT
        self._driver.write(*rest)
        self._fill()

    def _fill(self) -> None:
        """Write transactions behind those in flight while there are any, and room."""
        while self.has_room:
            transaction = self._driver.take()
            if transaction is None:
                return
            last = self.behind[-1] if self.behind else self.current
            assert last is not None
            transaction.is_chunked = self._is_chunk(transaction, 2 + len(self.behind))
            transaction.resets = transaction.is_chunked or last.is_chunked
            self.behind.append(transaction)
            if transaction.resets:
                self._driver.write(RSET)
            self._write(transaction)

    def _is_chunk(self, transaction: Transaction, number: int) -> bool:
        """Whether a transaction that is the so-manieth in flight goes out whole.

        Only at its first attempt: a peer that never answers well would get another copy at each.
        """
        depth, job = self._depth, transaction.job
        if depth is None or job.content.file or len(job.content.head) > CHUNK_LIMIT or job.entry.attempts:
            return False
        return depth.is_usable and number <= depth.depth

    def _write(self, transaction: Transaction) -> None:
        """Write an envelope with DATA, or a whole transaction with BDAT (RFC 3030 2)."""
        if not transaction.is_chunked:
            self._driver.write(*transaction.commands)
            return
        head = transaction.job.content.head
        if not head.endswith(b"\r\n"):
            head += b"\r\n"
        self._driver.write(*transaction.commands[:-1], b"BDAT %d LAST\r\n" % len(head), head)

    def _begin(self, *, reset: bool) -> None:
        """With nothing in flight: begin the next transaction, behind RSET if the last one was left open."""
        self.step = IDLE
        self.current = transaction = self._driver.take()
        if transaction is None:
            if reset:
                self.step = RESETTING
                self._driver.write(RSET)
            else:
                self._driver.rest()
            return
        self.step = RESETTING if reset else MAIL
        if not self._pipelining:
            self._driver.write(RSET if reset else transaction.commands[0])
            return
        transaction.is_chunked = self._is_chunk(transaction, 1)
        if reset:
            self._driver.write(RSET)
        self._write(transaction)
        if transaction.is_chunked:
            self._fill()

    def _end_transaction(self, transaction: Transaction, *, reset: bool = False) -> None:
        """Settle the current transaction and go on with the one behind it or a new one."""
        self.current = following = self.behind.popleft() if self.behind else None
        if following is None:
            self.step = BETWEEN
        else:
            self.step = RESETTING if following.resets else MAIL
        self._driver.settle(transaction)
        if self.step is BETWEEN:
            self._begin(reset=reset)
        elif transaction.is_chunked:
            self._fill()

    def _reset_answered(self, reply: Reply) -> None:
        if not reply.is_positive:
            self._driver.break_off(f"RSET was answered: {reply}", reply)
        elif self.current is None:
            self._begin(reset=False)
        else:
            self.step = MAIL
            if not self._pipelining:
                self._driver.write(self.current.commands[0])

    def _mail_answered(self, reply: Reply) -> None:
        transaction = self._transaction(reply)
        if transaction is None:
            return
        if reply.code >= 300:
            transaction.mail_refused(reply)
            if not self._pipelining:
                self._end_transaction(transaction)
                return
        self.step = RCPT
        if not self._pipelining:
            self._driver.write(transaction.commands[1])

    def _rcpt_answered(self, reply: Reply) -> None:
        transaction = self._transaction(reply)
        if transaction is None:
            return
        is_last = transaction.rcpt_replied(reply)
        if self._pipelining:
            if is_last:
                self.step = DOT if transaction.is_chunked else DATA
        elif is_last and not transaction.accepted:
            self._end_transaction(transaction, reset=True)
        else:
            self.step = DATA if is_last else RCPT
            self._driver.write(transaction.commands[1 + transaction.asked])

    def _data_answered(self, reply: Reply) -> None:
        transaction = self.current
        assert transaction is not None
        if reply.code >= 400:
            transaction.data_refused(reply)
            self._end_transaction(transaction, reset=not transaction.is_refused)
        elif reply.code != 354:
            self._driver.break_off(f"DATA was answered: {reply}", reply)
        elif not transaction.accepted:
            # The peer waits for content though it took no recipient: it gets none, and its reply says nothing.
            self.step = EMPTY_DOT
            self._driver.write(_END_LINE)
        else:
            self._send_content(transaction, transaction.job.content)

    def _send_content(self, transaction: Transaction, content: Content) -> None:
        head = content.head
        if content.file:
            self.step = CONTENT
            self._driver.send_file(transaction)
        elif content.is_dotted or not head.endswith(b"\r\n"):
            self.content_sent(stuff(head))
        else:
            self.content_sent(head, _END_LINE)

    def _content_answered(self, reply: Reply) -> None:
        """The peer answers before the end of the content: a refusal counts, but the session is of no more use."""
        transaction = self._transaction(reply)
        if transaction is None:
            return
        if reply.is_positive:
            self._driver.break_off(f"the content was answered before its end: {reply}", reply)
            return
        transaction.content_replied(reply)
        self.current, self.step = None, BETWEEN
        self._driver.settle(transaction)
        if self.step is BETWEEN:
            self._driver.break_off(f"the content was refused before its end: {reply}", reply)

    def _dot_answered(self, reply: Reply) -> None:
        transaction = self._transaction(reply)
        if transaction is None:
            return
        if transaction.is_chunked:
            self._chunk_answered(transaction, reply)
        else:
            transaction.content_replied(reply)
            self._end_transaction(transaction)

    def _chunk_answered(self, transaction: Transaction, reply: Reply) -> None:
        """BDAT's reply decides like that to the end of data; where no recipient was accepted it says nothing."""
        assert self._depth is not None
        if reply.code in _NO_SUCH_COMMAND and (transaction.accepted or reply.code != _BAD_SEQUENCE):
            self._chunk_not_known(transaction, reply)
        elif not transaction.accepted:
            self._end_transaction(transaction, reset=not transaction.is_refused)
        else:
            transaction.content_replied(reply)
            if reply.code < 300:
                self._depth.coped()
            self._end_transaction(transaction, reset=reply.code >= 300)

    def _chunk_not_known(self, transaction: Transaction, reply: Reply) -> None:
        """BDAT was offered and is not known: the peer takes the content for commands, and its replies mean nothing."""
        assert self._depth is not None
        self._depth.refused()
        transaction.put_off()
        self.current = self.behind.popleft() if self.behind else None
        self.step = BETWEEN
        self._driver.settle(transaction)
        if self.step is BETWEEN:
            self._driver.break_off(f"BDAT was answered: {reply}", reply)

    def _empty_dot_answered(self, reply: Reply) -> None:
        transaction = self._transaction(reply)
        if transaction is not None:
            self._end_transaction(transaction)

    def _unasked_answered(self, reply: Reply) -> None:
        self._driver.break_off(f"a reply to nothing: {reply}", reply)

    def _transaction(self, reply: Reply) -> Transaction | None:
        """Give the current transaction; a 3yz reply, which no step but DATA has, breaks off and gives None."""
        if 300 <= reply.code < 400:
            self._driver.break_off(f"{self.step.stage.upper()} was answered: {reply}", reply)
            return None
        return self.current


IDLE = Step(Stage.MAIL, "mail", Pipeline._unasked_answered)
BETWEEN = Step(Stage.MAIL, "mail", Pipeline._unasked_answered)
RESETTING = Step(Stage.MAIL, "rset", Pipeline._reset_answered)
MAIL = Step(Stage.MAIL, "mail", Pipeline._mail_answered)
RCPT = Step(Stage.RCPT, "rcpt", Pipeline._rcpt_answered)
DATA = Step(Stage.DATA, "data", Pipeline._data_answered)
EMPTY_DOT = Step(Stage.DATA, "dot", Pipeline._empty_dot_answered)
CONTENT = Step(Stage.CONTENT, "block", Pipeline._content_answered)
DOT = Step(Stage.CONTENT, "dot", Pipeline._dot_answered)
CLOSED = Step(Stage.CONTENT, "dot", Pipeline._unasked_answered)
