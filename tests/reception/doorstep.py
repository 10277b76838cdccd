"""What every test of the door needs: a fake intake that keeps drafts, a door on loopback, and a client that talks."""

import asyncio
import inspect
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trustme

from smarthost.crypto.password import hash_password
from smarthost.crypto.tls import ServerTls
from smarthost.mail.envelope import Envelope
from smarthost.mail.event import Event
from smarthost.mail.message import Arrival
from smarthost.mail.reply import Reply, make_reply
from smarthost.policy.admission import Auth, Listener, Submission, Tls, User
from smarthost.policy.ledger import Ledger
from smarthost.reception.accept import Door
from smarthost.reception.credentials import Credentials
from smarthost.reception.door_limits import DoorLimits
from smarthost.reception.parts import Parts
from smarthost.reception.terms import Terms
from smarthost.report.counters import Counters
from smarthost.report.feed import Feed

QUEUED = make_reply(250, "2.0.0", "queued as TEST")
PASSWORD = "correct horse"
HASH = hash_password(PASSWORD)
ADA = User("ada", HASH)


class FakeDraft:
    """Keeps what the door hands over; answers a commit at once, or when the test says."""

    def __init__(self, intake: "FakeIntake", arrival: Arrival, envelope: Envelope) -> None:
        self.intake, self.arrival, self.envelope = intake, arrival, envelope
        self.refused: Reply | None = intake.refuses_at_once
        self.backlog = 0
        self.is_dotted = True
        self.on_drained: Callable[[], None] | None = None
        self.blocks: list[bytes] = []
        self.fate = "open"
        self.done: Callable[[Reply], None] | None = None

    @property
    def content(self) -> bytes:
        """What was written so far."""
        return b"".join(self.blocks)

    def write(self, block: bytes) -> None:
        """Keep a block."""
        assert self.fate == "open"
        self.intake.on_write(self)
        self.blocks.append(block)
        if self.intake.counts_backlog:
            self.backlog += len(block)

    def commit(self, done: Callable[[Reply], None]) -> None:
        """Answer as the intake says."""
        assert self.fate == "open"
        self.fate = "committing"
        self.done = done
        if self.intake.delay is None:
            return
        if self.intake.delay == 0:
            self.finish()
        else:
            asyncio.get_running_loop().call_later(self.intake.delay, self.finish)

    def finish(self) -> None:
        """Answer the commit."""
        assert self.done is not None
        self.fate = "committed"
        self.done(self.intake.reply)

    def abandon(self) -> None:
        """Forget the draft; twice is a mistake of the door."""
        assert self.fate == "open"
        self.fate = "abandoned"


class FakeIntake:
    """Begins fake drafts. `delay` is seconds until a commit answers, 0 for at once, None for when the test says."""

    def __init__(self) -> None:
        self.drafts: list[FakeDraft] = []
        self.delay: float | None = 0
        self.reply = QUEUED
        self.refuses_at_once: Reply | None = None
        self.counts_backlog = False
        self.on_write: Callable[[FakeDraft], None] = lambda draft: None

    def begin(self, arrival: Arrival, envelope: Envelope) -> FakeDraft:
        """Begin a draft."""
        draft = FakeDraft(self, arrival, envelope)
        self.drafts.append(draft)
        return draft

    @property
    def accepted(self) -> list[FakeDraft]:
        """The drafts whose commit was answered."""
        return [draft for draft in self.drafts if draft.fate == "committed"]


class Client:
    """A client that says exactly the octets it is given."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def reply(self) -> str:
        """Read one reply, all its lines."""
        lines = []
        while True:
            line = await asyncio.wait_for(self.reader.readline(), 10)
            lines.append(line.decode())
            if not line or line[3:4] != b"-":
                return "".join(lines)

    async def say(self, *lines: str) -> str:
        """Send lines in one write and give the reply to the last."""
        self.writer.write("".join(f"{line}\r\n" for line in lines).encode())
        answer = ""
        for _ in lines:
            answer = await self.reply()
        return answer

    async def send(self, octets: bytes) -> None:
        """Send octets as they are."""
        self.writer.write(octets)
        await self.writer.drain()

    async def rest(self) -> bytes:
        """Read to the end of the connection."""
        return await asyncio.wait_for(self.reader.read(), 10)

    async def starttls(self, context: ssl.SSLContext) -> None:
        """Say STARTTLS and shake hands."""
        assert (await self.say("STARTTLS")).startswith("220")
        loop = asyncio.get_running_loop()
        transport = self.writer.transport
        protocol = transport.get_protocol()
        self.reader._transport = None  # type: ignore[attr-defined]
        secure = await loop.start_tls(transport, protocol, context, server_hostname="localhost")
        self.reader._transport = secure  # type: ignore[attr-defined]
        self.writer._transport = secure  # type: ignore[attr-defined]

    def close(self) -> None:
        """Close the connection."""
        self.writer.close()


class Doorstep:
    """A door with its parts in reach, and clients."""

    def __init__(
        self, door: Door, intake: FakeIntake, events: list[Event], authority: trustme.CA, now: list[float]
    ) -> None:
        self.door, self.intake, self.events, self.now = door, intake, events, now
        self.addresses: list[str] = []
        self.trust = ssl.create_default_context()
        authority.configure_trust(self.trust)
        self._clients: list[Client] = []

    @property
    def port(self) -> int:
        """The first listener's port."""
        return int(self.addresses[0].rpartition(":")[2])

    async def connect(self, greeting: bool = True, **options: Any) -> Client:
        """Connect; by default the greeting is read."""
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port, **options))
        self._clients.append(client)
        if greeting:
            assert (await client.reply()).startswith("220 ")
        return client

    async def greeted(self) -> Client:
        """Connect and say EHLO."""
        client = await self.connect()
        assert (await client.say("EHLO client.example")).startswith("250")
        return client

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds, for five seconds at most."""
        for _ in range(1000):
            if condition():
                return
            await asyncio.sleep(0.005)
        raise AssertionError("it never came true")


def on_both_loops(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a test of a coroutine: it runs on asyncio's loop, and once more on uvloop's."""

    def run(*, loop_factory: Callable[[], asyncio.AbstractEventLoop], **arguments: Any) -> None:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(test(**arguments))

    given = inspect.signature(test)
    asked = inspect.Parameter("loop_factory", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = given.replace(parameters=[*given.parameters.values(), asked])  # type: ignore[attr-defined]
    run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
    return run


_AUTHORITY = trustme.CA(key_type=trustme.KeyType.ECDSA)


def issue() -> trustme.LeafCert:
    """Make a new certificate for localhost."""
    return _AUTHORITY.issue_cert("localhost", "127.0.0.1", key_type=trustme.KeyType.ECDSA)


_ISSUED = issue()


def write_certificate(folder: Path, issued: trustme.LeafCert) -> tuple[Path, Path]:
    """Write a certificate and its key where a relay would have them."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    return certificate, key


@asynccontextmanager
async def doorstep(
    folder: Path,
    *,
    tls: Tls = Tls.STARTTLS,
    auth: Auth = Auth.OPTIONAL,
    allow_plaintext_auth: bool = False,
    users: tuple[User, ...] = (ADA,),
    trusted: tuple[str, ...] = ("127.0.0.0/8",),
    address: str = "127.0.0.1:0",
    environment: dict[str, str] | None = None,
    terms: dict[str, Any] | None = None,
    parts: dict[str, Any] | None = None,
    **submission: Any,
) -> AsyncIterator[Doorstep]:
    """Open a door on loopback with a fake intake behind it."""
    loop = asyncio.get_running_loop()
    intake, events, now = FakeIntake(), [], [1_790_000_000.0]
    given: dict[str, Any] = {
        "intake": intake,
        "limits": DoorLimits(Ledger(), lambda: now[0]),
        "credentials": Credentials(users, lambda: now[0], Ledger()),
        "feed": Feed([events.append]),
        "counters": Counters(),
        "clock": lambda: now[0],
        "route_refusal": lambda reverse_path, recipient, identity: None,
        "has_space": lambda: True,
        "tls": ServerTls(*write_certificate(folder, _ISSUED)),
    }
    given.update(parts or {})
    rules = Terms(
        "relay.example", "default.example", Submission(trusted_networks=trusted, **submission), **(terms or {})
    )
    door = Door(rules, Parts(**given), loop)
    step = Doorstep(door, intake, events, _AUTHORITY, now)
    listener = Listener(address, tls=tls, auth=auth, allow_plaintext_auth=allow_plaintext_auth)
    step.addresses = await door.open(listener, environment or {})
    try:
        yield step
    finally:
        for client in step._clients:
            client.close()
        await door.drain(0.2)
        given["credentials"].close()
        await asyncio.sleep(0)
