"""Pipeline: the order of commands and replies within one session; says what is written when, without a socket."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

from smarthost.delivery.transaction import Transaction
from smarthost.mail.outcome import Stage
from smarthost.mail.reply import Reply
from smarthost.spool.store import Content
from smarthost.wire.data import stuff

RSET = b"RSET\r\n"
_END_LINE = b".\r\n"


class Step(NamedTuple):
    """What the next reply is about. `timeout` names the field of Timeouts; `answered` takes the reply."""

    stage: Stage
    timeout: str
    answered: "Callable[[Pipeline, Reply], None]"


class Driver(Protocol):
    """Whoever owns the connection."""

    def write(self, data: bytes) -> None:
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
    """At most two transactions are in flight: `current`, whose replies come next, and `following`, whose envelope
    was written behind the content of `current`. Mutable; `step` says which reply is awaited.

    Without `pipelining` each command waits for the reply to the one before (RFC 5321 4.1), and nothing follows.
    """

    __slots__ = ("_driver", "_pipelining", "current", "following", "step")

    def __init__(self, driver: Driver, pipelining: bool) -> None:
        """Start idle."""
        self._driver = driver
        self._pipelining = pipelining
        self.step = IDLE
        self.current: Transaction | None = None
        self.following: Transaction | None = None

    def stop(self) -> tuple[Step, Transaction | None, Transaction | None]:
        """Expect nothing any more; give the step and the transactions that were in flight."""
        found = self.step, self.current, self.following
        self.step, self.current, self.following = CLOSED, None, None
        return found

    def wake(self) -> None:
        """Begin a transaction if idle, or behind a content whose reply has not come yet."""
        if self.step is IDLE:
            self._begin(reset=False)
        elif self.step is DOT and self._pipelining and self.following is None:
            self.following = self._driver.take()
            if self.following is not None:
                self._driver.write(b"".join(self.following.commands))

    def content_sent(self, *rest: bytes) -> None:
        """Write the rest of the content, its end included, and in the same write the next envelope (RFC 2920 3.1)."""
        self.step = DOT
        if self._pipelining:
            self.following = following = self._driver.take()
            if following is not None:
                rest = (*rest, *following.commands)
        self._driver.write(b"".join(rest))

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
        if self._pipelining:
            self._driver.write(b"".join([RSET, *transaction.commands] if reset else transaction.commands))
        else:
            self._driver.write(RSET if reset else transaction.commands[0])

    def _end_transaction(self, transaction: Transaction, *, reset: bool = False) -> None:
        """Settle the current transaction and go on with the following or a new one."""
        self.current, self.following = self.following, None
        self.step = BETWEEN if self.current is None else MAIL
        self._driver.settle(transaction)
        if self.step is BETWEEN:
            self._begin(reset=reset)

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
                self.step = DATA
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
        if transaction is not None:
            transaction.content_replied(reply)
            self._end_transaction(transaction)

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
