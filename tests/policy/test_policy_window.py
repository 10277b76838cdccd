"""The window of sessions of a site: growth, death, pause and probe, replayed second by second."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smarthost.policy.window import Window


def fill(window: Window, now: float = 0.0) -> int:
    """Open sessions while the window allows it; give how many."""
    opened = 0
    while window.may_open(now):
        window.opened()
        opened += 1
    return opened


def fail(window: Window, now: float) -> None:
    """Dial once and fail."""
    window.opened()
    window.failed(now)
    window.closed()


def test_it_starts_slowly_and_grows_with_success() -> None:
    """Five sessions first, one more for each success, up to the maximum."""
    window = Window(20)
    sizes = [fill(window)]
    for _ in range(30):
        window.succeeded()
        sizes.append(sizes[-1] + fill(window))
    assert sizes[:6] == [5, 6, 7, 8, 9, 10]
    assert sizes[-1] == 20


def test_success_without_use_does_not_grow() -> None:
    """A hundred successes of one session do not open the window to a hundred."""
    window = Window(100)
    window.opened()
    for _ in range(100):
        window.succeeded()
    assert window.limit == 6


def test_a_small_maximum_holds() -> None:
    """A maximum below the start is never exceeded, also when it is lowered later."""
    window = Window(2)
    assert fill(window) == 2
    window.succeeded()
    assert fill(window) == 0
    larger = Window(10)
    larger.maximum = 1
    assert fill(larger) == 1


def test_a_failure_beside_open_sessions_shrinks() -> None:
    """One failed dial beside healthy sessions takes one place away and throttles nothing."""
    window = Window(20)
    for _ in range(3):
        window.opened()
    fail(window, 0.0)
    assert (window.state, window.limit) == ("ready", 4)


def test_ten_failures_in_a_row_are_death() -> None:
    """A site that fails ten dials without a success between is throttled even with sessions open."""
    window = Window(20)
    window.opened()
    for number in range(9):
        fail(window, float(number))
    assert window.state == "ready"
    fail(window, 9.0)
    assert (window.state, window.until) == ("throttled", 69.0)


def test_a_success_between_failures_counts_afresh() -> None:
    """Nine failures, a success and nine failures are not ten in a row."""
    window = Window(20)
    window.opened()
    for _ in range(2):
        for _ in range(9):
            fail(window, 0.0)
        window.succeeded()
    assert window.state == "ready"


def test_pauses_double_up_to_fifteen_minutes() -> None:
    """A dead site is probed after 60 s, then after twice as long each time, 900 s at most."""
    window, now, pauses = Window(20), 0.0, []
    fail(window, now)
    for _ in range(6):
        pauses.append(window.until - now)
        assert not window.may_open(window.until - 0.001)
        now = window.until
        assert window.may_open(now)
        fail(window, now)
    assert pauses == [60.0, 120.0, 240.0, 480.0, 900.0, 900.0]


def test_only_one_session_probes() -> None:
    """After the pause one session goes; others wait for its verdict."""
    window = Window(20)
    fail(window, 0.0)
    assert fill(window, 60.0) == 1
    assert window.state == "probing"
    window.succeeded()
    assert window.state == "ready"
    assert fill(window, 61.0) == 4


def test_a_probe_without_a_verdict_may_be_repeated() -> None:
    """A probe that was cancelled leaves the site probing, and another one may go at once."""
    window = Window(20)
    fail(window, 0.0)
    window.opened()
    window.closed()
    assert fill(window, 60.0) == 1
    window.failed(61.0)
    window.closed()
    assert window.until == 181.0


def test_an_open_session_brings_a_throttled_site_back() -> None:
    """A success on a session that was open all the time leads back to ready, with the first pause again."""
    window = Window(20)
    window.opened()
    for _ in range(10):
        fail(window, 0.0)
    window.failed(1.0)
    assert window.until == 60.0
    window.succeeded()
    assert window.state == "ready"
    window.closed()
    fail(window, 5.0)
    assert window.until == 65.0


def test_a_pause_lasts_as_asked() -> None:
    """After a refused login nothing goes before the given time, and then one probe."""
    window = Window(20)
    window.pause(300.0)
    assert not window.may_open(299.0)
    assert fill(window, 300.0) == 1


@given(st.integers(1, 30), st.lists(st.sampled_from(["open", "close", "fail", "succeed", "wait"]), max_size=200))
def test_it_never_exceeds_its_maximum_and_never_sticks(maximum: int, steps: list[str]) -> None:
    """Whatever happens, the places stay within the maximum and in the end one session may be opened again."""
    window, now = Window(maximum), 0.0
    for step in steps:
        if step == "open" and window.may_open(now):
            window.opened()
        elif step in ("close", "fail") and window.open:
            if step == "fail":
                window.failed(now)
            window.closed()
        elif step == "succeed" and window.open:
            window.succeeded()
        now += 30.0
        assert 0 <= window.open <= maximum
        assert 1 <= window.limit <= maximum
    while window.open:
        window.closed()
    assert window.may_open(now + 900.0)


@pytest.mark.parametrize("maximum", [1, 5, 20])
def test_a_dead_site_costs_few_dials(maximum: int) -> None:
    """In a day a dead site is dialled about once in fifteen minutes, not more."""
    window, now, dials = Window(maximum), 0.0, 0
    while now < 86400.0:
        for _ in range(fill(window, now)):
            dials += 1
            window.failed(now)
            window.closed()
        now += 1.0
    assert dials <= 5 + 4 + 96
