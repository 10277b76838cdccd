"""The rates of a host hold for all mail to it, whatever is demanded of its sessions."""

import pytest

from smarthost.mail.route import Deliver, Route, Site
from smarthost.policy.ledger import Ledger
from smarthost.policy.limits import SiteLimits
from smarthost.policy.rate import parse_rate
from smarthost.queue.ready import ReadyQueue

ROUTE = Route("mx", Deliver.MX)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("mx.example", "mx.example"),
        ("mx.example+sts", "mx.example"),
        ("mx.example+partly-dane+requiretls", "mx.example"),
        ("[smtp.example]:587 (u+sts@x.example)", "[smtp.example]:587 (u+sts@x.example)"),
    ],
)
def test_demands_are_no_part_of_the_place(name: str, place: str) -> None:
    """Only what we write behind a name is taken off, and nothing of the name itself."""
    assert Site(name, (), ROUTE, 0.0).place == place


def test_sites_of_one_place_share_their_rates() -> None:
    """What goes to a host under MTA-STS counts for what goes there without, and another host has its own."""
    ledger, limits = Ledger(), SiteLimits(message_rate=(parse_rate("1/min"),))
    names = ("mx.example", "mx.example+sts", "other")
    plain, strict, other = (ReadyQueue(Site(name, (), ROUTE, 0.0), limits, ledger) for name in names)
    before = [ready.wait(1000.0) for ready in (plain, strict, other)]
    strict.cells.take(1000.0)
    assert plain.wait(1000.0) >= 59.0 and strict.wait(1000.0) >= 59.0
    assert other.wait(1000.0) == before[2] < 1.0
