"""What tests of the transfer share: messages, a lead that hands out jobs and notes what it is told, opened sessions."""

import time
from collections.abc import Sequence

from smarthost.delivery.transfer import Ending, Job, Terms, Transfer
from smarthost.mail.entry import Entry
from smarthost.mail.envelope import Envelope, Recipient, Ret
from smarthost.mail.message import Arrival, Message
from smarthost.mail.outcome import Outcome
from smarthost.mail.route import Host, TlsLevel
from smarthost.network.session import Session, SessionSettings, Timeouts, open_session
from smarthost.spool.store import Content

CONTENT = b"Subject: x\r\n\r\n.dot\r\nend\r\n"
ON_WIRE = b"Subject: x\r\n\r\n..dot\r\nend\r\n.\r\n"
GREETED = """
<- 220 peer ESMTP
-> EHLO relay.example
<- 250-peer
<- 250-PIPELINING
<- 250-SIZE 100000
<- 250-8BITMIME
<- 250 ENHANCEDSTATUSCODES
"""
GREETED_PLAINLY = """
<- 220 peer ESMTP
-> EHLO relay.example
<- 250 peer
"""


def make_job(
    *names: str,
    content: bytes = CONTENT,
    reverse_path: str = "a@b.example",
    eight_bit: bool = False,
    utf8_header: bool = False,
    size: int | None = None,
    ret: Ret | None = None,
    envid: str = "",
    recipients: Sequence[Recipient] = (),
    file: str = "",
) -> Job:
    """Make a job for local-parts at c.example, or for whole recipients."""
    found = tuple(recipients) or tuple(Recipient(f"{name}@c.example", "c.example") for name in names)
    envelope = Envelope(reverse_path, found, ret, envid)
    octets = len(content) if size is None else size
    message = Message(16, Arrival(0.0), envelope, octets, eight_bit, utf8_header)
    entry = Entry(message, 0, "default", found, 0.0, 9e9, 9e9)
    return Job(entry, found, Content(content, file, octets), 0.0)


class Lead:
    """Hands out jobs in order, and notes what a transfer tells."""

    def __init__(self, *jobs: Job) -> None:
        """Take the jobs to hand out."""
        self.jobs = list(jobs)
        self.settled: list[tuple[Job, list[Outcome], tuple[Recipient, ...]]] = []
        self.endings: list[Ending] = []
        self.now = 0.0

    def clock(self) -> float:
        """Give the time: the real one, moved by what the test wants."""
        return time.time() + self.now

    def next_job(self, transfer: Transfer) -> Job | None:
        """Give the next job."""
        return self.jobs.pop(0) if self.jobs else None

    def finished(
        self, transfer: Transfer, job: Job, outcomes: list[Outcome], again: tuple[Recipient, ...], started_at: float
    ) -> None:
        """Note a settled job; each recipient must be there once."""
        covered = [outcome.recipient for outcome in outcomes] + list(again)
        assert sorted(r.address for r in covered) == sorted(r.address for r in job.recipients)
        assert not self.endings
        self.settled.append((job, outcomes, again))

    def lost(self, transfer: Transfer, ending: Ending) -> None:
        """Note the end, which comes once."""
        assert not self.endings
        assert transfer.lost
        self.endings.append(ending)

    @property
    def ending(self) -> Ending:
        """The end of the session."""
        return self.endings[0]

    def verdicts(self) -> list[list[str]]:
        """Give per settled job "local-part action status" of each outcome, and "local-part again"."""
        return [
            [f"{o.recipient.address.partition('@')[0]} {o.action} {o.status}" for o in outcomes]
            + [f"{recipient.address.partition('@')[0]} again" for recipient in again]
            for _, outcomes, again in self.settled
        ]


class NoContexts:
    """Stands where no TLS is wanted."""

    def for_level(self, level: TlsLevel, ca_file: str = "") -> None:  # type: ignore[override]
        """Never called."""
        raise AssertionError(level)


async def opened(port: int, lead: Lead) -> Session:
    """Open a plain-text session to a peer."""
    session = await open_session(
        Host("peer.example", ("127.0.0.1",), port),
        "127.0.0.1",
        SessionSettings("relay.example", TlsLevel.NONE),
        NoContexts(),  # type: ignore[arg-type]
        Timeouts(),
        lead.clock,
    )
    assert isinstance(session, Session), session
    return session


async def no_file(file: str, offset: int, count: int) -> bytes:
    """Stand where no content file is read."""
    raise AssertionError(file)


async def started(port: int, lead: Lead, terms: Terms | None = None) -> Transfer:
    """Open a session and start a transfer on it."""
    session = await opened(port, lead)
    transfer = Transfer(session, lead.next_job, lead.finished, lead.lost, terms or Terms(no_file), lead.clock)
    transfer.start()
    return transfer
