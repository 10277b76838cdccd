"""Ledger: the rates that go on counting over a restart, by name, and what of them has to be on disk."""

from collections.abc import Callable, Iterable
from math import inf
from weakref import WeakValueDictionary

import msgspec

from smarthost.policy.rate import Cell, Cells, Quota, Rate

SHORT = 5.0  # seconds; a pacing cell that remembers no longer is not written: at a start it waits for as long
BLOCKS = 32  # parts of a count that are reserved on disk one after the other: what a crash may cost of it
GRANT_WAIT = 0.02  # seconds until a reservation is on disk, about


class LimitState(msgspec.Struct, frozen=True, gc=False):
    """A row on disk: a rate's name and what is remembered of it. Without `state` the row shall go."""

    name: str
    state: bytes


class _State(msgspec.Struct, omit_defaults=True, gc=False):
    """`counted` of a quota or `arrival` of a cell; `reserved` more may have gone; it matters for `reach` seconds."""

    reach: float
    reserved: int = 0
    counted: tuple[tuple[int, int], ...] = ()
    arrival: float = 0.0


class Account:
    """One rate that is kept. No more goes than the disk says may have gone, so that a crash forgets nothing.

    The disk is told ahead: of a block that may go. A new block is asked for when half of one is used. Where it is
    not on disk yet, a strict account waits; a lenient one goes on, for what it counts is on its way to disk itself.
    Mutable.
    """

    __slots__ = ("__weakref__", "_asked", "_block", "_covered", "_low", "_taken", "is_strict", "meter", "name")

    def __init__(self, name: str, meter: Cell | Quota, rate: Rate, *, low: Callable[["Account"], None]) -> None:
        """Begin with nothing covered by the disk; `low` is called when a block is wanted."""
        self.name, self.meter, self._low = name, meter, low
        self.is_strict = True
        self._block = max((rate.count if rate.is_quota else rate.burst) // BLOCKS, 1)
        if not rate.is_quota:
            self._block = max(self._block, int(SHORT * rate.count / rate.period))
        self._taken = self._covered = self._asked = 0

    def wait(self, now: float) -> float:
        """Give the seconds until one may go; 0.0 means at once."""
        wait = self.meter.wait(now)
        if self._taken >= self._covered and self.is_strict and wait < GRANT_WAIT:
            return GRANT_WAIT
        return wait

    def room(self, now: float) -> int:
        """Give how many may go at once."""
        room = self.meter.room(now)
        return min(room, max(self._covered - self._taken, 0)) if self.is_strict else room

    def take(self, now: float, count: int = 1) -> None:
        """Count what goes at `now`."""
        self.meter.take(now, count)
        self._taken += count
        if self._taken + self._block // 2 >= self._asked:
            self._low(self)

    def write(self, now: float, is_last: bool) -> tuple[LimitState, Callable[[], None]]:
        """Give the row to be kept and what is to be called once it is on disk; the last one reserves nothing."""
        meter, reserved = self.meter, 0 if is_last else self._block
        state = _State(meter.reach, reserved)
        if isinstance(meter, Quota):
            state.counted = meter.counted(now)
        else:
            state.arrival = max(meter.arrival, 0.0)
        self._asked = asked = self._taken + reserved

        def kept() -> None:
            self._covered = max(self._covered, asked)

        return LimitState(self.name, msgspec.json.encode(state)), kept


class Ledger:
    """All rates of the relay that outlive its configuration and its life. Mutable, pure; times are Unix seconds.

    Whoever limits something asks for the `cells` of a name and gets the same ones whenever it asks with the same
    rates, counting on from what was restored. A quota of the same period goes on counting when its number changes.
    `ask` is called when rows are to be written; `write` then gives them.
    """

    def __init__(self) -> None:
        """Begin with nothing to remember."""
        self.ask: Callable[[], None] = lambda: None
        self.damaged: list[str] = []  # names of rows that could not be read; what they counted is forgotten
        self._started = -inf
        self._restored: dict[str, _State] = {}
        self._known: WeakValueDictionary[str, Account | Cell] = WeakValueDictionary()
        self._held: dict[str, Account | Cell] = {}
        self._wanting: dict[str, Account] = {}
        self._rows: set[str] = set()  # names of rows that this life has written
        self._gone: set[str] = set()

    def restore(self, rows: Iterable[LimitState], now: float) -> None:
        """Take what a life before has kept, before anything is sent; short cells, which were not kept, begin empty."""
        self._started = now
        for row in rows:
            try:
                self._restored[row.name] = msgspec.json.decode(row.state, type=_State)
            except (msgspec.DecodeError, ValueError):
                self.damaged.append(row.name)
                self._gone.add(row.name)
        for name, known in self._known.items():
            self._recall(name, _meter(known))

    def cells(self, name: str, rates: Iterable[Rate], *, is_strict: bool = True) -> Cells:
        """Give the cells of a name, made if they are not there; rates of one name need not be in the same order.

        Cells that are not strict never wait for the disk: a crash may forget what they let through in the time of one
        commit, beyond the block that the disk knows of.
        """
        meters = []
        for rate in rates:
            account = self._account(name, rate)
            if isinstance(account, Account):
                account.is_strict = is_strict
            meters.append(account)
        return Cells((), meters)

    def write(self, now: float, *, is_last: bool = False) -> tuple[list[LimitState], Callable[[], None]]:
        """Give the rows that are to be written now, and what is to be called once they are on disk.

        At the end of a life all that is remembered is written, exactly.
        """
        accounts = list(self._wanting.values())
        if is_last:
            every = [each for each in self._known.values() if isinstance(each, Account)]
            accounts = [each for each in every if not each.meter.is_fresh(now)]
            self._gone.update(each.name for each in every if each.meter.is_fresh(now))
        written = [account.write(now, is_last) for account in accounts]
        rows = [LimitState(name, b"") for name in self._gone] + [row for row, _ in written]
        self._rows.update(account.name for account in accounts)
        self._rows -= self._gone
        self._wanting, self._gone = {}, set()

        def kept() -> None:
            for _, tell in written:
                tell()

        return rows, kept

    def tidy(self, now: float) -> None:
        """Hold what remembers something, though nobody uses it just now; let go what remembers nothing."""
        self._held = {name: each for name, each in self._known.items() if not _meter(each).is_fresh(now)}
        self._gone.update(name for name in self._rows if name not in self._known)
        for name, state in list(self._restored.items()):
            if self._started + state.reach <= now:
                del self._restored[name]
                self._gone.add(name)
        if self._gone:
            self.ask()

    def _account(self, name: str, rate: Rate) -> Account | Cell:
        period = f"{rate.period:g}"
        key = f"{name} /{period}" if rate.is_quota else f"{name} {rate.count}/{period},{rate.burst}"
        known = self._known.get(key)
        if known is None:
            known = self._made(key, rate)
            self._known[key] = self._held[key] = known
        meter = _meter(known)
        if isinstance(meter, Quota):
            meter.count = rate.count
        return known

    def _made(self, key: str, rate: Rate) -> Account | Cell:
        meter = Quota(rate) if rate.is_quota else Cell(rate)
        self._recall(key, meter)
        if isinstance(meter, Cell) and meter.reach <= SHORT:
            return meter
        account = Account(key, meter, rate, low=self._low)
        self._low(account)
        return account

    def _recall(self, key: str, meter: Cell | Quota) -> None:
        state = self._restored.pop(key, None)
        if isinstance(meter, Cell) and meter.reach <= SHORT:
            meter.restore(self._started + meter.reach, 0, self._started)
        elif state is not None and isinstance(meter, Quota):
            meter.restore(state.counted, state.reserved, self._started)
        elif state is not None and isinstance(meter, Cell):
            meter.restore(state.arrival, state.reserved, self._started)

    def _low(self, account: Account) -> None:
        self._gone.discard(account.name)
        self._held[account.name] = account
        if not self._wanting:
            self.ask()
        self._wanting[account.name] = account


def _meter(each: Account | Cell) -> Cell | Quota:
    return each.meter if isinstance(each, Account) else each
