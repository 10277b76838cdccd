"""The check of the use of limits in drawn worlds: there are such worlds, and a limit that is used too little shows."""

from collections.abc import Callable

import pytest
from sim_draw import draw_world
from sim_run import Run
from sim_use import Use

from smarthost.policy.rate import Cell, Quota, Rate

SEEDS = range(200)


def first_worlds(count: int) -> list[int]:
    """Give the first seeds whose worlds have limits that may bind."""
    return [seed for seed in SEEDS if Use(draw_world(seed)).groups][:count]


def test_limits_bind_in_drawn_worlds() -> None:
    """In some of the worlds mail has waited for limits for minutes."""
    runs = [Run(seed).go() for seed in first_worlds(4)]
    assert not [fault for run in runs for fault in run.faults]
    assert max(group.waited for run in runs for group in run.oracle.use.groups.values()) > 120.0


def test_a_slow_rate_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that uses nine tenths of each rate is noticed."""
    begin = Cell.__init__

    def slow(self: Cell, rate: Rate) -> None:
        begin(self, Rate(rate.count * 9, rate.period * 10, rate.burst))

    monkeypatch.setattr(Cell, "__init__", slow)
    for seed in first_worlds(12):
        if any("its limits had room" in fault for fault in Run(seed).go().faults):
            return
    pytest.fail("nothing was noticed")


def test_a_small_quota_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that lets 94 % of each quota go is noticed."""
    wait, room = Quota.wait, Quota.room

    def less(self: Quota, ask: Callable[[Quota, float], float], now: float) -> float:
        whole, self.count = self.count, int(self.count * 0.94)
        found = ask(self, now)
        self.count = whole
        return found

    monkeypatch.setattr(Quota, "wait", lambda self, now: less(self, wait, now))
    monkeypatch.setattr(Quota, "room", lambda self, now: int(less(self, room, now)))
    for seed in first_worlds(12):
        if any("its limits had room" in fault for fault in Run(seed).go().faults):
            return
    pytest.fail("nothing was noticed")
