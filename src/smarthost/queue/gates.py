"""Gates: hold back what a limit of its user, sender, destination or tag does not let go yet, and nothing else."""

import asyncio
from collections.abc import Callable
from heapq import heappop, heappush

from smarthost.mail.entry import Entry, Why
from smarthost.policy.ledger import Ledger
from smarthost.policy.restraints import Restraint, Restraints
from smarthost.queue.gate import Gate, Line
from smarthost.queue.rules import facts_of
from smarthost.queue.scheduler import Scheduler
from smarthost.queue.waiting import Key

LINE_HELD = 256  # entries that wait in one line; the rest of its queue stays on disk
GATE_HELD = 2048  # entries that wait at one gate, in all lines; the queues of others stay on disk
LINE_OUT = 16  # entries of a line that may be on their way to a session at least; a slow site shall not have them all
ANOTHER_LOOK = 0.02  # seconds until more are let in where those that were have not come to a session
CUT = 300.0  # seconds for which a queue is left on disk at the most before it is asked again


class Gates:
    """All gates. `admit` takes an entry that may go; `active` is false where nothing is restrained.

    An entry waits in its queue's line; is let in, while its gates have room; is counted when a session takes it, where
    all gates are asked once more; and has left when it is settled or back on disk. So no more goes than the limits
    allow, whatever becomes of those on their way, and no other mail waits behind what is held here.
    """

    def __init__(
        self, scheduler: Scheduler, ledger: Ledger, clock: Callable[[], float], loop: asyncio.AbstractEventLoop
    ) -> None:
        """Join the parts; the caller sets `admit`."""
        self._scheduler, self._ledger, self._clock, self._loop = scheduler, ledger, clock, loop
        self.admit: Callable[[Entry], None] = lambda entry: None
        self.active = False
        self._restraints = Restraints()
        self._gates: dict[str, Gate] = {}
        self._lines: dict[str, Line] = {}
        self._out: dict[Key, Line] = {}  # let in, in no session yet
        self._flying: dict[Key, Line] = {}
        self._serial = 0

    def follow(self, restraints: Restraints) -> None:
        """Follow other restraints; whatever waits here goes back to disk, to be routed again."""
        self.drain(list(self._lines))
        self._restraints = restraints
        self._lines = {}
        # Who was let in and is in no session yet is asked again there, for what is restrained otherwise now.
        for line in self._out.values():
            self._came_in(line)
        self._out = {}
        # What is in delivery still counts at its gate.
        self._gates = {name: gate for name, gate in self._gates.items() if gate.flying}
        self._set_active()

    def holds(self, entry: Entry) -> bool:
        """Take an entry that is due, if it has to wait; False if it may go on its way."""
        line = self._line(entry)
        if not line.gates or entry.key in self._out:
            return False
        now = self._clock()
        if not line:
            closed = self._closed(line, now)
            if closed is None and all(gate.out < gate.room(now) for gate in line.gates):
                self._let_out(line, entry)
                return False
            if closed is not None and (closed.held >= GATE_HELD or _is_behind(closed, entry)):
                if not line.is_cut:
                    heappush(closed.on_disk, (entry.due, line.name))
                self._cut(line, closed, entry, now)
                return True
            line.is_cut = False
        elif len(line) >= LINE_HELD:
            self._cut(line, line.place or line.gates[0], entry, now)
            return True
        line.push(entry)
        self._queue_up(line, now)
        return True

    def may_go(self, entry: Entry, most: int) -> int:
        """Say how many recipients of an entry, `most` at the most, a session may take now; they count as gone."""
        line = self._out.get(entry.key)
        if line is None:  # it was carried already, and goes on with another transaction
            self.landed(entry)
            line = self._line(entry)
            if not line.gates:
                return most
            self._let_out(line, entry)
        now = self._clock()
        for gate in line.gates:
            if gate.room(now) < 1:
                return 0
            most = min(most, gate.recipients.room(now))
        del self._out[entry.key]
        self._flying[entry.key] = line
        self._came_in(line)
        for gate in line.gates:
            gate.flying += 1
            gate.cells.take(now)
            gate.recipients.take(now, most)
        self._queue_up(line, now)
        return most

    def turn_back(self, entry: Entry) -> None:
        """Take back an entry that was let in and may not go after all; it is the next of its line."""
        line = self._out.pop(entry.key)
        self._came_in(line)
        line.push_back(entry)
        self._queue_up(line, self._clock())

    def landed(self, entry: Entry) -> None:
        """Note that an entry's transaction is over."""
        line = self._flying.pop(entry.key, None)
        if line is not None:
            self._free(line)

    def left(self, key: Key) -> None:
        """Note that an entry has left memory, settled or as it was."""
        line = self._out.pop(key, None)
        if line is not None:
            self._came_in(line)
            self._queue_up(line, self._clock())
        line = self._flying.pop(key, None)
        if line is not None:
            self._free(line)

    def withdraw(self, key: Key, queue: str) -> bool:
        """Take a waiting entry out by its key; False when it does not wait here."""
        line = self._lines.get(queue)
        return line is not None and line.withdraw(key)

    def drain(self, queues: "list[str] | set[str]") -> None:
        """Give what waits of queues back to disk, as when their site is away."""
        for name in sorted(queues) if self._lines else ():
            line = self._lines.get(name)
            if line is not None and line:
                # Its queue is not left on disk by its gate any more, which may have to do that again, and call it.
                line.is_cut = False
                self._scheduler.unload(line.drain())

    def reason_of(self, entry: Entry) -> tuple[Gate, float] | None:
        """Give the gate that holds an entry longest, and when it lets one go; None when none does just now."""
        if not self.active or entry.key in self._flying:
            return None
        now, line = self._clock(), self._line(entry)
        shut = [gate for gate in line.gates if gate.room(now) < 1]
        if not shut and line.place is not None and entry.key not in self._out:
            shut = [line.place]
        if not shut:
            return None
        gate = max(shut, key=lambda each: each.wait(now))
        return gate, now + gate.wait(now)

    def close(self) -> None:
        """Let nothing in any more, at a shutdown."""
        for gate in self._gates.values():
            if gate.timer is not None:
                gate.timer.cancel()
            gate.waiting.clear()
            gate.on_disk.clear()

    def tidy(self) -> None:
        """Forget lines and gates that nobody waits at, and that count nothing that the ledger does not keep."""
        kept = {id(line) for line in (*self._out.values(), *self._flying.values())}
        self._lines = {name: line for name, line in self._lines.items() if line or line.is_cut or id(line) in kept}
        self._set_active()
        used = {id(gate) for line in self._lines.values() for gate in line.gates}
        self._gates = {name: gate for name, gate in self._gates.items() if gate.flying or id(gate) in used}

    def _set_active(self) -> None:
        self.active = bool(self._restraints or self._flying or self._out)
        self._scheduler.left = self.left if self.active else None

    def _line(self, entry: Entry) -> Line:
        line = self._lines.get(entry.queue)
        if line is None:
            facts = facts_of(entry.message, entry.recipients[0].domain, entry.queue.partition("/")[0])
            gates = tuple(self._gate(restraint) for restraint in self._restraints.of(facts))
            line = self._lines[entry.queue] = Line(entry.queue, gates)
        return line

    def _gate(self, restraint: Restraint) -> Gate:
        gate = self._gates.get(restraint.name)
        if gate is None:
            gate = self._gates[restraint.name] = Gate(restraint, self._ledger)
        elif gate.restraint != restraint:
            gate.follow(restraint, self._ledger)
        return gate

    def _closed(self, line: Line, now: float, opened: Gate | None = None) -> Gate | None:
        """Give the first gate that does not let a line in; at the one that opens for it nobody is before it."""
        for gate in line.gates:
            if gate.room(now) < 1 or (gate is not opened and (gate.waiting or gate.on_disk)):
                return gate
        return None

    def _queue_up(self, line: Line, now: float) -> None:
        """Have a line wait at a gate, if it has entries and may have more of them out."""
        if line and line.place is None and not _is_full(line, now):
            self._join(line, self._closed(line, now) or line.gates[0], now)

    def _let_in(self, line: Line) -> None:
        entry = line.pop()
        self._let_out(line, entry)
        self.admit(entry)
        if line.is_cut and len(line) <= LINE_HELD // 4:
            self._uncut(line)

    def _let_out(self, line: Line, entry: Entry) -> None:
        self._out[entry.key] = line
        line.out += 1
        for gate in line.gates:
            gate.out += 1

    def _came_in(self, line: Line) -> None:
        """Note that an entry which was let in has come to a session, or has gone."""
        line.out -= 1
        for gate in line.gates:
            gate.out -= 1

    def _join(self, line: Line, gate: Gate, now: float) -> None:
        """Have a line wait at a gate, in the order in which what it begins with was due."""
        self._serial += 1
        line.place = gate
        gate.held += len(line)
        heappush(gate.waiting, (line.front.due, self._serial, line))
        self._arm(gate, now)

    def _arm(self, gate: Gate, now: float) -> None:
        if gate.timer is None and (gate.waiting or gate.on_disk):
            wait = min(max(gate.wait(now), ANOTHER_LOOK if gate.room(now) > 0 else 0.0), 60.0)
            if gate.room(now) < 1 and not wait:
                return  # all it may have are in delivery: the first that lands opens it
            gate.timer = self._loop.call_later(wait, self._on_timer, gate)

    def _on_timer(self, gate: Gate) -> None:
        gate.timer = None
        self._open(gate)

    def _open(self, gate: Gate) -> None:
        """Let in as many as there is room for, from the lines in their order; then see when to look again."""
        now = self._clock()
        # One more than there is room for, each time: those that were let in may be slow to come to a session.
        many = max(gate.room(now) - gate.out, 1)
        while many > 0 and gate.waiting and gate.room(now) > 0:
            _, _, line = heappop(gate.waiting)
            if line.place is not gate:
                continue
            gate.held -= len(line)
            line.place = None
            if not line or _is_full(line, now):
                continue
            closed = self._closed(line, now, gate)
            if closed is None:
                self._let_in(line)
                many -= 1
            if line and line.place is None and not _is_full(line, now):
                self._join(line, closed or gate, now)
        self._call(gate)
        self._arm(gate, now)

    def _free(self, line: Line) -> None:
        """Note that a place in delivery is free at each gate of a line."""
        for gate in line.gates:
            gate.flying -= 1
            if gate.restraint.max_connections is not None and gate.waiting:
                self._open(gate)

    def _cut(self, line: Line, gate: Gate, entry: Entry, now: float) -> None:
        """Leave the rest of a queue on disk until there is room here."""
        line.is_cut = True
        self._scheduler.block(line.name, now + max(gate.wait(now), 1.0) + CUT, gate.restraint.label, Why.RATE_LIMITED)
        self._scheduler.unload((entry,))

    def _uncut(self, line: Line) -> None:
        line.is_cut = False
        queue = self._scheduler.queues.get(line.name)
        if queue is not None and queue.blocked_why is Why.RATE_LIMITED:
            self._scheduler.unblock(line.name)

    def _call(self, gate: Gate) -> None:
        """Have queues that were left on disk read again, those that are due first first."""
        wanted = GATE_HELD // 2 - gate.held
        while wanted > 0 and gate.on_disk:
            _, name = heappop(gate.on_disk)
            line = self._lines.get(name)
            if line is not None and line.is_cut:
                self._uncut(line)
                wanted -= 1


def _is_full(line: Line, now: float) -> bool:
    """Whether a line has as many out as it may: more only where the limits are far away."""
    return line.out >= LINE_OUT and line.out >= min(gate.room(now) for gate in line.gates)


def _is_behind(gate: Gate, entry: Entry) -> bool:
    """Whether somebody who waits for a gate on disk was due before an entry."""
    return bool(gate.on_disk) and gate.on_disk[0][0] < entry.due
