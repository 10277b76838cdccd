"""A simulated mail host: speaks SMTP, and misbehaves as its site's temper says."""

import re
from collections.abc import Callable
from typing import Any

from sim_wire import Wire

_ADDRESS = re.compile(rb"<([^>]*)>")
_SUBJECT = re.compile(rb"^Subject: sim (\d+)\r$", re.MULTILINE)
_ENVID = re.compile(rb"^Original-Envelope-Id: m(\d+)\r$", re.MULTILINE)
_REPORT = re.compile(rb"^Message-ID: <([0-9a-z]{12})\.report@", re.MULTILINE | re.IGNORECASE)


class Temper:
    """How a site behaves. Chances are of one event; times are seconds since the run's beginning, or lengths.

    `down` and `storms` are spans of time: no connection, and 421 to everything. `modes` says by address "ok",
    "refuse", "timeout", "busy" (421 at the greeting) or "rude" (554 there). `chunking` is how a site that offers it
    deals with a chunk that it refuses: "reads" it; "keeps" the transaction open as well, until RSET; "closes" behind
    its reply, the chunk unread; a "liar" knows no BDAT at all and takes the content for commands. "" offers none.
    `tls` is how STARTTLS ends where it is offered: "trusted", "strange" (a certificate that proves nothing), "broken"
    (no handshake comes about), "hangs" or "refused" (454). `hint` is what greylisting says of the time to come back.
    """

    def __init__(self) -> None:
        """Begin without any fault."""
        self.latency, self.think, self.split = 0.01, 0.001, 0.1
        self.pipelining, self.dsn, self.old = True, True, False
        self.chunking = ""
        self.wants_login = self.by_token = False
        self.eight_bit_mime = self.smtputf8 = self.requiretls = True
        self.tls = ""
        self.hint = ""
        self.login_refused: list[tuple[float, float]] = []
        self.greylist = 0.0
        self.down: list[tuple[float, float]] = []
        self.storms: list[tuple[float, float]] = []
        self.modes: dict[str, str] = {}
        self.cuts = self.deaths = self.tarpits = self.dismissals = self.refusals = 0.0
        self.delay = 0.0  # of a tarpit
        self.max_recipients = 0
        self.max_transactions = 0
        self.patience = 0.0  # seconds after which an idle session is closed


class Site:
    """The hosts of one mail exchanger set, which share a temper. `open` counts connections, dialling included."""

    def __init__(self, name: str, temper: Temper) -> None:
        """Begin with nobody connected."""
        self.name, self.temper = name, temper
        self.open = 0
        self.limits: Any = None
        self.refusals: list[tuple[float, bytes]] = []  # that it has given: when, and what
        self.seen: dict[tuple[str, str], float] = {}  # for greylisting: reverse-path and recipient, and when first


class Session:
    """The host's end of one connection. `world` is told what was accepted, and asked about recipients."""

    def __init__(self, world: Any, site: Site, address: str, wire: Wire) -> None:
        """Greet, or refuse to."""
        self._world, self._site, self._address, self._wire = world, site, address, wire
        self._temper, self._rng = site.temper, world.rng
        self._octets = b""
        self._in_content = self._is_over = False
        self._chunk = -1  # octets of the chunk that comes
        self._chunk_reply = b""
        self._lied = False
        self._is_known = not self._temper.wants_login
        self._is_asked = False  # for what follows 334
        self._reply_at = 0.0
        self._transactions = 0
        self._reset()
        self._heard_at = world.clock()
        if not self._temper.pipelining:
            wire.blame = lambda: world.blame(f"{address} was sent a command before it had answered the last one")
        mode = self._temper.modes.get(address, "ok")
        if mode == "busy" or self._is_storm():
            self._end(b"421 4.3.2 too busy\r\n")
        elif mode == "rude":
            self._end(b"554 5.7.1 go away\r\n")
        else:
            self._say(b"220 sim ESMTP\r\n")
        if self._temper.patience:
            wire.loop.call_later(self._temper.patience, self._look)

    def hear(self, octets: bytes) -> None:
        """Take octets as they come."""
        if self._is_over:
            return
        self._heard_at = self._world.clock()
        self._octets += octets
        while not self._is_over:
            if self._in_content:
                if not self._take_content():
                    return
                continue
            if self._chunk >= 0:
                if len(self._octets) < self._chunk:
                    return
                content, self._octets = self._octets[: self._chunk], self._octets[self._chunk :]
                self._chunk = -1
                self._take_chunk(content)
                continue
            line, end, rest = self._octets.partition(b"\r\n")
            if not end:
                return
            self._octets = rest
            self._take_command(line)

    def gone(self) -> None:
        """The relay has closed."""
        self._is_over = True

    def _reset(self) -> None:
        self._reverse_path: str | None = None
        self._recipients: list[str] = []
        self._asked = 0

    def _look(self) -> None:
        left = self._temper.patience - (self._world.clock() - self._heard_at)
        if self._is_over:
            return
        if left > 0:
            self._wire.loop.call_later(left, self._look)
        else:
            self._world.say("%s closes an idle session", self._address)
            self._end(b"421 4.4.2 idle\r\n" if self._rng.random() < 0.5 else b"")

    def _is_storm(self) -> bool:
        return self._world.is_within(self._temper.storms)

    def _say(self, octets: bytes, read: Callable[[], None] | None = None) -> float:
        """Answer, in the order of the commands; gives the seconds until the answer goes out."""
        temper, rng, now = self._temper, self._rng, self._world.clock()
        if octets[:1] in (b"4", b"5"):
            self._site.refusals.append((now, octets))
        delay = rng.uniform(0.0, 2 * temper.think)
        if rng.random() < temper.tarpits:
            delay += rng.uniform(0.0, temper.delay)
        self._reply_at = max(self._reply_at, now) + delay
        self._wire.send(octets, self._reply_at - now, read or _nothing)
        return self._reply_at - now

    def _end(self, octets: bytes = b"", *, reset: bool = False) -> None:
        after = self._say(octets) if octets else 0.0
        self._is_over = True
        self._wire.hang_up(reset=reset, after=after)

    def _take_command(self, line: bytes) -> None:
        verb, temper, rng = line[:4].upper(), self._temper, self._rng
        if self._is_asked:
            self._is_asked = False
            self._say(b"535 5.7.8 who are you\r\n")
            return
        if not temper.pipelining and self._octets and verb != b"QUIT":
            self._world.blame(f"{self._address} was sent commands together without PIPELINING: {line!r}")
        if rng.random() < temper.dismissals or (verb != b"QUIT" and self._is_storm()):
            self._end(b"421 4.3.2 closing\r\n")
            return
        if rng.random() < temper.deaths / 8:
            self._world.say("%s dies at %s", self._address, line)
            self._end(reset=rng.random() < 0.5)
            return
        if verb == b"EHLO":
            self._greet()
        elif verb == b"HELO":
            self._say(b"250 sim\r\n")
        elif verb == b"MAIL":
            self._take_mail(line)
        elif verb == b"RCPT":
            self._take_recipient(_address(line))
        elif verb == b"DATA":
            self._take_data()
        elif verb == b"BDAT":
            self._begin_chunk(line)
        elif verb == b"AUTH":
            self._take_login(line)
        elif verb == b"STAR":
            self._take_start_tls()
        elif verb == b"RSET":
            self._reset()
            self._say(b"250 2.0.0 Ok\r\n")
        elif verb == b"QUIT":
            self._end(b"221 2.0.0 Bye\r\n")
        elif self._lied:
            self._say(b"500 5.5.2 what\r\n")
        else:
            self._world.blame(f"{self._address} heard a command that there is not: {line!r}")
            self._say(b"500 5.5.2 what\r\n")

    def _greet(self) -> None:
        temper = self._temper
        if temper.old:
            self._say(b"502 5.5.1 what\r\n")
            return
        words = [b"sim", b"SIZE 0", b"ENHANCEDSTATUSCODES"]
        words += [b"8BITMIME"] if temper.eight_bit_mime else []
        words += [b"SMTPUTF8"] if temper.smtputf8 and temper.eight_bit_mime else []
        words += [b"STARTTLS"] if temper.tls and self._wire.tls is None else []
        words += [b"REQUIRETLS"] if temper.requiretls and self._wire.tls is not None else []
        words += [b"PIPELINING"] if temper.pipelining else []
        words += [b"DSN"] if temper.dsn else []
        words += [b"AUTH XOAUTH2" if temper.by_token else b"AUTH PLAIN"] if temper.wants_login else []
        words += [b"CHUNKING"] if temper.chunking else []
        self._say(b"".join(b"250-" + word + b"\r\n" for word in words[:-1]) + b"250 " + words[-1] + b"\r\n")

    def _take_start_tls(self) -> None:
        """Say that the handshake may begin: what follows from here on was not said before it (RFC 3207 4.2)."""
        if not self._temper.tls or self._wire.tls is not None or self._octets:
            self._world.blame(f"{self._address}: STARTTLS at a wrong time")
        if self._temper.tls == "refused":
            self._say(b"454 4.7.0 no TLS just now\r\n")
            return
        self._reset()
        self._is_known = not self._temper.wants_login
        self._say(b"220 2.0.0 go\r\n")

    def _take_login(self, line: bytes) -> None:
        if not self._temper.wants_login or self._is_known:
            self._world.blame(f"{self._address}: AUTH that is not wanted")
        is_good = not self._temper.by_token or self._world.tokens.is_good(line)
        if not is_good or (self._temper.by_token and self._world.is_within(self._temper.login_refused)):
            self._is_asked = True
            self._say(b"334 eyJzdGF0dXMiOiI0MDEifQ==\r\n")
            return
        if self._world.is_within(self._temper.login_refused):
            self._say(b"535 5.7.8 who are you\r\n")
            return
        self._is_known = True
        self._say(b"235 2.7.0 welcome\r\n")

    def _refused(self) -> bytes:
        """Draw a refusal of a whole transaction, or b""; reports, with the null reverse-path, never get 5yz."""
        if self._rng.random() >= self._temper.refusals:
            return b""
        last = b"450 4.7.1 no" if self._reverse_path == "" else b"550 5.7.1 no"
        return self._rng.choice((b"451 4.3.0 later", b"452 4.3.1 full", b"450 4.7.1 no", last))

    def _take_mail(self, line: bytes) -> None:
        if self._reverse_path is not None:
            self._world.blame(f"{self._address}: MAIL inside a transaction")
        if not self._is_known:
            self._world.blame(f"{self._address}: MAIL without a login")
        self._transactions += 1
        self._asked = 0
        limits = self._site.limits
        if limits and self._transactions > limits.max_messages_per_connection:
            self._world.blame(f"{self._site.name}: {self._transactions} messages on one connection")
        self._reverse_path = _address(line)
        if self._temper.tls or b" REQUIRETLS" in line:
            self._world.tls.look_at_mail(self._site, self._wire, line)
        refused = self._refused()
        if self._temper.max_transactions and self._transactions > self._temper.max_transactions:
            refused = b"451 4.5.3 enough for one session"
        if refused:
            self._reverse_path = None
            self._say(refused + b"\r\n")
            return
        self._say(b"250 2.1.0 Ok\r\n")

    def _take_recipient(self, address: str) -> None:
        self._asked += 1
        self._world.say("%s is asked for %s", self._address, address)
        limits = self._site.limits
        if self._world.plan.sts:
            self._world.tls.look_at_recipient(self._site, self._address, self._wire, address)
        if limits and self._asked > limits.max_recipients_per_transaction:
            self._world.blame(f"{self._site.name}: {self._asked} recipients in one transaction")
        if self._reverse_path is None:
            self._say(b"503 5.5.1 MAIL first\r\n")
            return
        temper, now = self._temper, self._world.clock.elapsed
        if temper.max_recipients and len(self._recipients) >= temper.max_recipients:
            self._say(b"452 4.5.3 Too many recipients\r\n")
            return
        first = self._site.seen.setdefault((self._reverse_path, address), now)
        if now < first + temper.greylist:
            self._say(b"451 4.7.1 greylisted%b\r\n" % temper.hint.encode())
            return
        refused = self._world.refusal_of(address)
        if refused:
            self._say(refused + b"\r\n")
            return
        self._recipients.append(address)
        self._say(b"250 2.1.5 Ok\r\n")

    def _take_data(self) -> None:
        refused = self._refused()
        if not self._recipients:
            self._reset()
            self._say(b"503 5.5.1 no valid recipients\r\n")
        elif refused:
            self._reset()
            self._say(refused + b"\r\n")
        else:
            self._in_content = True
            self._say(b"354 go\r\n")

    def _begin_chunk(self, line: bytes) -> None:
        """Take BDAT; its octets follow, whatever the reply will be (RFC 3030 2)."""
        size, last = line.split()[1:]
        if last != b"LAST" or not self._temper.chunking:
            self._world.blame(f"{self._address}: {line!r}")
        if self._temper.chunking == "liar":
            self._lied = True
            self._say(b"502 5.5.1 what\r\n")
            return
        self._chunk = int(size)
        self._chunk_reply = self._refused()
        if not self._recipients:
            self._chunk_reply = b"503 5.5.1 no valid recipients"
        if self._chunk_reply and self._temper.chunking == "closes":
            self._end(self._chunk_reply + b"\r\n")

    def _take_chunk(self, content: bytes) -> None:
        """Take a whole chunk, which is the whole content."""
        if self._chunk_reply:
            if self._temper.chunking == "reads" and self._recipients:
                self._reset()
            self._say(self._chunk_reply + b"\r\n")
            return
        self._accept(content)

    def _take_content(self) -> bool:
        """Look for the end of data; gives whether it was there."""
        if self._octets.startswith(b".\r\n"):
            content, self._octets = b"", self._octets[3:]
        else:
            content, end, rest = self._octets.partition(b"\r\n.\r\n")
            if not end:
                return False
            self._octets = rest
        self._in_content = False
        refused = self._refused()
        if refused:
            self._reset()
            self._say(refused + b"\r\n")
        else:
            self._accept(content.replace(b"\r\n..", b"\r\n.") + b"\r\n")
        return True

    def _accept(self, content: bytes) -> None:
        """Take a message, and perhaps die before anybody hears of it."""
        recipients, reverse_path = self._recipients, self._reverse_path or ""
        self._reset()
        if not self._temper.eight_bit_mime and not content.isascii():
            self._world.blame(f"{self._address} does not offer 8BITMIME, and was sent octets above 127")
        read = self._world.accepted(self._site, key_of(content), reverse_path, recipients, content)
        if self._rng.random() < self._temper.deaths:
            self._world.say("%s accepts and dies", self._address)
            self._end(reset=self._rng.random() < 0.5)
        else:
            self._say(b"250 2.0.0 Ok queued\r\n", read)


def key_of(content: bytes) -> str:
    """Name a message by its content: "m17" is the 17th that arrived, "r" and an id a report of the relay's."""
    report = _REPORT.search(content)
    if report:
        return f"r{report.group(1).decode().upper()}"
    found = _SUBJECT.search(content)
    return f"m{found.group(1).decode()}" if found else "?"


def numbers_in(content: bytes) -> list[int]:
    """Give the numbers of the messages that a content is, or tells of."""
    return [int(found) for found in _ENVID.findall(content) or _SUBJECT.findall(content)]


def _address(line: bytes) -> str:
    found = _ADDRESS.search(line)
    return found.group(1).decode() if found else "?"


def _nothing() -> None:
    """Nobody waits for this reply."""
