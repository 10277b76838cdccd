"""The order in which mail hosts and addresses are tried (RFC 5321 5.1, RFC 7505)."""

from random import Random

import pytest

from smarthost.policy.classify import NetFault
from smarthost.policy.hosts import order_addresses, order_mx


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([(10, "a.example"), (5, "B.Example.")], ((5, "b.example"), (10, "a.example"))),
        ([(10, "a.example"), (20, "us.example"), (30, "c.example")], ((10, "a.example"),)),
        ([(10, "a.example"), (20, "US.example."), (20, "c.example")], ((10, "a.example"),)),
        ([(20, "us.example"), (20, "c.example")], NetFault.MX_LOOP),
        ([(10, "us.example"), (20, "c.example")], NetFault.MX_LOOP),
        ([(10, "a.example"), (20, "us.example"), (5, "us.example")], NetFault.MX_LOOP),
        ([(10, "a.example"), (20, "a.example")], ((10, "a.example"),)),
        ([(0, "")], NetFault.NULL_MX),
        ([(0, ""), (10, "a.example")], ((10, "a.example"),)),
        ([], ()),
    ],
)
def test_mail_hosts(records: list[tuple[int, str]], expected: object) -> None:
    """Best first; we ourselves, and what is no better than we are, are left out: mail would go in circles."""
    assert order_mx(records, ["us.example"], Random(1)) == expected


def test_equals_come_in_any_order() -> None:
    """Of hosts of one preference each is first at times, and none before a better one."""
    records = [(10, "a"), (10, "b"), (5, "c")]
    orders = {tuple(name for _, name in order_mx(records, [], Random(seed))) for seed in range(30)}  # type: ignore[union-attr]
    assert orders == {("c", "a", "b"), ("c", "b", "a")}


@pytest.mark.parametrize(
    ("v4", "v6", "expected"),
    [
        (["4a", "4b"], ["6a", "6b"], ("4a", "6a", "4b", "6b")),
        (["4a"], ["6a", "6b", "6c"], ("4a", "6a", "6b", "6c")),
        (["4a", "4b", "4c"], [], ("4a", "4b", "4c")),
        ([], ["6a"], ("6a",)),
        (["4a", "4b", "4c", "4d", "4e"], ["6a"], ("4a", "6a", "4b", "4c", "4d")),
    ],
)
def test_families_take_turns(v4: list[str], v6: list[str], expected: tuple[str, ...]) -> None:
    """IPv4 first, then one of each; five at most, and a large family does not push the other out."""
    assert order_addresses(v4, v6) == expected
