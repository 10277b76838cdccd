"""What must be true of a run: keeps the tale of each message, from the disk and from the sites, and compares them."""

from collections import Counter, deque
from collections.abc import Callable
from email import message_from_bytes

from sim_loop import Clock
from sim_measures import Measures
from sim_metrics import Metrics
from sim_patience import secured_of
from sim_plan import Mail, Plan
from sim_use import Use

from smarthost.delivery.transaction import Job
from smarthost.mail.envelope import Notify
from smarthost.mail.event import Event, Kind
from smarthost.mail.message import format_id
from smarthost.mail.route import Site
from smarthost.policy.rate import Rate

MOST_TRIES, TRIES_WITHIN = 20, 10.0  # transactions with one recipient, and seconds, that look like a loop
FINAL = (Kind.RELAYED, Kind.FAILED, Kind.EXPIRED)


def body_of(content: bytes) -> bytes:
    """Give the body of a message, decoded where it was converted on its way."""
    header, _, body = content.partition(b"\r\n\r\n")
    if b"\nContent-Transfer-Encoding: " not in header or b"\nContent-Transfer-Encoding: 8bit" in header:
        return body
    decoded = message_from_bytes(content).get_payload(decode=True)
    return decoded if isinstance(decoded, bytes) else b""


class Passing:
    """One acceptance by a site of one recipient. `read` is when the relay had the 250, `excused` after a crash."""

    __slots__ = ("at", "excused", "read")

    def __init__(self, at: float) -> None:
        """Begin with nobody having read the reply."""
        self.at, self.read, self.excused = at, 0.0, False


class Tale:
    """One message that the relay has on disk: its recipients, and the final state of those that have one."""

    def __init__(self, key: str, at: float, recipients: tuple[str, ...], mail: Mail | None) -> None:
        """Begin with all recipients waiting."""
        self.key, self.at, self.recipients, self.mail = key, at, recipients, mail
        self.final: dict[str, Kind] = {}
        self.may_vanish = self.was_held = False  # a person deleted entries of it, held them
        self.passed: dict[str, list[Passing]] = {}


class Pace:
    """Checks what was let through against rates, by its own arithmetic: a leaking bucket, and a list of times."""

    def __init__(self, rates: tuple[Rate, ...]) -> None:
        """Begin with nothing let through."""
        self._rates = rates
        self._levels = [0.0] * len(rates)
        self._last = 0.0
        self._times: deque[float] = deque()

    def take(self, now: float) -> str:
        """Count one; gives what is wrong, "" when all is well."""
        wrong = ""
        self._times.append(now)
        for index, rate in enumerate(self._rates):
            if rate.is_quota:
                while self._times and self._times[0] <= now - rate.period:
                    self._times.popleft()
                if len(self._times) > rate.count:
                    wrong = f"{len(self._times)} within {rate.period:.0f} s, {rate.count} are allowed"
                continue
            leak = (now - self._last) * rate.count / rate.period
            self._levels[index] = max(0.0, self._levels[index] - leak) + 1.0
            if self._levels[index] > rate.burst + 0.01:
                wrong = f"{self._levels[index]:.3f} at once, {rate.burst} are allowed at {rate.count}/{rate.period} s"
        self._last = now
        return wrong


class Oracle:
    """Compares what the spool keeps with what sites have seen. `faults` are sentences; none is the aim.

    `patience` gives the seconds in which mail for a recipient has to be relayed, 0 where nobody can say.
    """

    def __init__(self, clock: Clock, say: Callable[..., None], patience: Callable[[str], float], plan: Plan) -> None:
        """Begin with no message."""
        self.measures = Measures(clock, plan, self.blame)
        self.sites = self.measures.sites
        self.use = Use(plan)
        self._secured = secured_of(plan)
        self.metrics = Metrics()
        self.heard, self.look_at_measures, self.reloaded = self.measures.heard, self.measures.look, self.measures.ended
        self._clock, self._say, self._patience = clock, say, patience
        self.faults: list[str] = []
        self.tales: dict[int, Tale] = {}
        self.by_key: dict[str, Tale] = {}
        self.mails: dict[str, Mail] = {}
        self.early: dict[tuple[str, str], list[Passing]] = {}
        self.reports: dict[tuple[int, str, str], set[str]] = {}
        self.outages: list[tuple[float, float]] = []
        self.resent = self.ambiguous = self.crashes = self.excused = 0
        self.stopped: list[tuple[float, float, str]] = []  # what a person suspended, from when until when
        self.retried: set[str] = set()  # domains whose mail a person had tried at once, scheduled or not; "" for all
        self._tries: dict[tuple[int, str], deque[float]] = {}
        self.again: Counter[tuple[str, str]] = Counter()
        self.paces: dict[str, Pace] = {}
        self.taken: dict[str, list[float]] = {}

    def blame(self, fault: str) -> None:
        """Note that something is wrong."""
        if len(self.faults) < 20:
            self.faults.append(f"at {self._clock.elapsed:.3f}: {fault}")
        self._say("WRONG: %s", fault)

    def told(self, event: Event) -> None:
        """Take an event that is on disk now."""
        self.metrics.told(event, self._clock())
        if event.event is Kind.ACCEPTED:
            mail = self.mails[event.envid]
            self._begin(event.message, Tale(event.envid, self._clock(), mail.recipients, mail))
            self.use.came(mail, self._clock())
        elif event.event is Kind.REPORTED:
            key = f"r{format_id(event.message)}"
            self._begin(event.message, Tale(key, self._clock(), (event.recipient,), None))
        elif event.event in FINAL:
            self._ended(self.tales[event.message], event)
            self.measures.told(event)
        elif event.event is Kind.DELAYED:
            self.measures.told(event)
        elif event.event is Kind.DELETED:
            self.tales[event.message].may_vanish = True
        elif event.event is Kind.RELEASED and self.tales[event.message].mail is None:
            # A report that failed, and is tried again: it will be counted twice.
            self.again["recipients", "failed"] += len(self.tales[event.message].final)
            self.tales[event.message].final.clear()
        elif event.event is Kind.HELD and not event.reply:
            self.tales[event.message].was_held = True
        elif event.event is Kind.HELD:
            self.blame(f"{format_id(event.message)} is held: {event.reply}")

    def _begin(self, message: int, tale: Tale) -> None:
        self._say("%s is on disk for %s", tale.key, ", ".join(tale.recipients))
        self.tales[message] = self.by_key[tale.key] = tale

    def _ended(self, tale: Tale, event: Event) -> None:
        recipient, kind = event.recipient, event.event
        self._say("%s to %s: %s %s %s", tale.key, recipient, kind, event.code, event.reply)
        if recipient not in tale.recipients:
            self.blame(f"{tale.key} has no recipient {recipient}, but it was {kind}")
        if recipient in tale.final:
            self.blame(f"{tale.key} to {recipient} ends twice: {tale.final[recipient]}, then {kind}")
        tale.final[recipient] = kind
        self.use.ended(tale.key, recipient, self._clock())
        passed = tale.passed.get(recipient, [])
        was_read = any(each.read and not each.excused for each in passed)
        if kind is Kind.RELAYED and not was_read:
            self.blame(f"{tale.key} to {recipient} is called relayed, and no 250 was read")
        if kind is not Kind.RELAYED and was_read:
            self.blame(f"{tale.key} to {recipient} is {kind} after a 250 that was read")
        if tale.was_held or (tale.mail and tale.mail.requiretls and recipient.rpartition("@")[2] not in self._secured):
            return
        held = tale.mail.held if tale.mail else 0.0
        took, patience = self._clock() - tale.at - held, self._patience(recipient)
        if patience and took > patience + self._outage_since(tale.at):
            self.blame(f"{tale.key} to {recipient}, a healthy site, took {took:.0f} s, more than {patience:.0f} s")

    def _outage_since(self, at: float) -> float:
        """Seconds since a time that are nobody's fault: the relay was down, or its disk full."""
        return sum(
            max(0.0, min(until, self._clock()) - max(since, at)) + 5.0 for since, until in self.outages if until > at
        )

    def accepted(self, key: str, recipients: list[str], content: bytes) -> Callable[[], None]:
        """Take what a site accepted; what is returned is to be called when the relay has read the 250."""
        tale, fresh = self.by_key.get(key), []
        if tale is None:
            self.blame(f"a site was sent {key}, which is not on disk")
            return lambda: None
        if tale.mail is not None and body_of(content) != body_of(tale.mail.content):
            self.blame(f"{key} was sent with another content than it came with: {len(content)} octets")
        for recipient in recipients:
            passed = tale.passed.setdefault(recipient, [])
            if recipient not in tale.recipients:
                self.blame(f"{key} was sent to {recipient}, who is no recipient of it")
            if recipient in tale.final and tale.final[recipient] is not Kind.RELAYED:
                self._say("%s to %s arrives after its end", key, recipient)
            for earlier in passed:
                if earlier.read and not earlier.excused:
                    self.blame(f"{key} was sent again to {recipient} after a 250 that was read")
            self.resent += bool(passed) and not any(earlier.excused for earlier in passed)
            fresh.append(Passing(self._clock()))
            passed.append(fresh[-1])

        def read() -> None:
            for passing in fresh:
                passing.read = self._clock()

        return read

    def crashed(self) -> None:
        """The relay is gone: what it has read and not settled, it may send again. Rates hold as if it had not."""
        self.crashes += 1
        self.measures.ended()
        self.measures.hints.clear()
        self.stopped.clear()
        for tale in self.tales.values():
            for recipient, passed in tale.passed.items():
                if recipient not in tale.final:
                    for passing in passed:
                        passing.excused = True
                        self.excused += 1

    def tried(self, job: Job, site: Site) -> None:
        """Take a transaction that begins: nobody may be sent to again and again without a pause, nor too early."""
        now, message = self._clock(), job.entry.message
        asked = "" in self.retried or any(r.domain in self.retried for r in message.envelope.recipients)
        if message.envelope.hold_until > now and not asked:
            self.blame(f"{self.tales[message.id].key} goes {message.envelope.hold_until - now:.1f} s too early")
        names = (message.arrival.identity, *(host.name for host in site.hosts))
        for since, until, name in self.stopped:
            if since < now < until and name in names:
                self.blame(f"{self.tales[message.id].key} goes by {site.name}, though {name} is suspended")
        self.use.went(self.tales[message.id].key, [r.address for r in job.recipients], now)
        for recipient in job.recipients:
            self.measures.tried(message.id, self.tales[message.id].at, recipient.address, site.name)
            times = self._tries.setdefault((job.entry.message.id, recipient.address), deque(maxlen=MOST_TRIES))
            times.append(now)
            if len(times) == MOST_TRIES and now - times[0] < TRIES_WITHIN:
                key = self.tales[job.entry.message.id].key
                self.blame(f"{key} to {recipient.address} is tried {MOST_TRIES} times in {now - times[0]:.1f} s")
                times.clear()

    def took(self, what: str, site: str, rates: tuple[Rate, ...], count: int = 1) -> None:
        """Count transactions, recipients or connections of a site, or of what else is limited, against its rates."""
        place = f"{what} {site}"
        self.taken.setdefault(place, []).extend([self._clock()] * count)
        for _ in range(count if rates else 0):
            pace = self.paces.get(place)
            if pace is None:
                pace = self.paces[place] = Pace(rates)
            if wrong := pace.take(self._clock()):
                self.blame(f"{site}: {what} go too fast: {wrong}")

    def compare(self, waiting: dict[int, list[str]]) -> None:
        """Compare the queue on disk with the tales: whoever has not ended waits there, once."""
        for message, tale in self.tales.items():
            there = waiting.get(message, [])
            if len(tale.final) == len(tale.recipients) and not there:
                continue
            if tale.may_vanish:
                tale.final |= {r: Kind.DELETED for r in tale.recipients if r not in tale.final and r not in there}
            missing = [r for r in tale.recipients if r not in tale.final and there.count(r) != 1]
            ended = [r for r in there if r in tale.final]
            if missing:
                self.blame(f"{tale.key}: neither ended nor in the queue once: {', '.join(missing)}")
            if ended:
                self.blame(f"{tale.key}: ended and still in the queue: {', '.join(ended)}")
        for message in waiting:
            if message not in self.tales:
                self.blame(f"the queue has {format_id(message)}, which was never accepted")

    def _compare_metrics(self) -> None:
        """Compare what all lives have brought to disk, which the metrics count, with how the tales have ended."""
        ends = Counter(kind for tale in self.tales.values() for kind in tale.final.values())
        mine = sum(tale.mail is not None for tale in self.tales.values())
        truth = {
            ("accepted", ""): mine,
            ("reports", "reports"): len(self.tales) - mine,
            ("recipients", "relayed"): ends[Kind.RELAYED],
            ("recipients", "failed"): ends[Kind.FAILED] + ends[Kind.EXPIRED],
        }
        told: Counter[tuple[str, str]] = Counter()
        for (what, which), number in self.metrics.ever.items():
            told[what, "" if what == "accepted" else which] += number
        for place, number in truth.items():
            if told[place] != number + self.again[place]:
                self.blame(f"{told[place]} {' '.join(place)} were counted, and there are {number}")

    def finish(self) -> None:
        """Look at the whole, when everything has had its time."""
        self.measures.finish()
        self._compare_metrics()
        for fault in self.use.unused():
            self.blame(fault)
        untold: dict[str, str] = {}
        for tale in self.tales.values():
            for recipient in tale.recipients:
                if recipient not in tale.final:
                    self.blame(f"{tale.key} to {recipient} has not ended")
                elif wrong := self._look_at_report(tale, recipient):
                    untold[tale.key] = wrong
        lost = sum(t.mail is None and any(k is not Kind.RELAYED for k in t.final.values()) for t in self.tales.values())
        if len(untold) > lost:
            for wrong in untold.values():
                self.blame(f"{wrong}, and {lost} reports were lost on their way")
        if self.resent > self.ambiguous:
            self.blame(f"{self.resent} recipients were sent again, and {self.ambiguous} ambiguous ends were counted")

    def reported(self, key: str, numbers: list[int], content: bytes) -> None:
        """Take a report that arrived at its sender's site."""
        for block in content.split(b"\r\n\r\n"):
            lines = dict(line.split(b": ", 1) for line in block.split(b"\r\n") if b": " in line)
            if b"Final-Recipient" in lines and numbers:
                address = lines[b"Final-Recipient"].split(b";")[1].strip().decode()
                self.reports.setdefault((numbers[0], address, lines[b"Action"].decode()), set()).add(key)

    def _look_at_report(self, tale: Tale, recipient: str) -> str:
        """Whoever failed has a report with the sender, once; nobody else has one, unless it was asked for.

        Gives what is wrong if a report is missing.
        """
        mail = tale.mail
        if mail is None:
            return ""
        kind = tale.final[recipient]
        failures = len(self.reports.get((mail.number, recipient, "failed"), ()))
        successes = len(self.reports.get((mail.number, recipient, "relayed"), ()))
        notify = mail.notify or Notify.FAILURE | Notify.DELAY
        due = kind not in (Kind.RELAYED, Kind.DELETED) and bool(notify & Notify.FAILURE) and bool(mail.reverse_path)
        if failures > due:
            self.blame(f"{tale.key} to {recipient} is {kind}, and {failures} reports of failure reached the sender")
        if successes and not (kind is Kind.RELAYED and notify & Notify.SUCCESS and mail.reverse_path):
            self.blame(f"{tale.key} to {recipient} is {kind}, and the sender was told that it was relayed")
        if failures < due:
            return f"{tale.key} to {recipient} is {kind}, and 0 reports of failure reached the sender"
        return ""
