"""Detours: where mail goes while its queue is led elsewhere, and that no set of them is a circle."""

from hypothesis import given
from hypothesis import strategies as st

from smarthost.delivery.detours import Detours
from smarthost.mail.route import Deliver, NextHop, Route

MX = Route("mx", Deliver.MX)
NAMES = ("a", "b", "c", "d")
ROUTES = {name: Route(name, Deliver.RELAYHOST, (NextHop(f"{name}.example"),)) for name in NAMES} | {"mx": MX}


def test_a_detour_is_of_one_queue_and_for_a_time() -> None:
    """With MX delivery each domain has a queue of its own; when the time is over the mail keeps its route."""
    now = 100.0
    detours = Detours(lambda: now)
    assert not detours
    detours.lead("mx/x.example", ROUTES["a"], 200.0)
    assert detours.follow(MX, "x.example") is ROUTES["a"] and detours.leads_away("mx/x.example", "x.example")
    assert detours.follow(MX, "y.example") is MX and not detours.leads_away("mx/y.example", "y.example")
    now = 200.0
    assert detours.follow(MX, "x.example") is MX and not detours.leads_away("mx/x.example", "x.example")
    assert len(detours) == 1
    detours.tidy(now)
    assert not detours


def test_one_detour_leads_to_the_next() -> None:
    """Mail goes at once to where the last one ends; a reload ends them all."""
    detours = Detours(lambda: 0.0)
    detours.lead("a", ROUTES["b"], 1.0)
    detours.lead("b", MX, 1.0)
    assert detours.follow(ROUTES["a"], "x.example") is MX
    detours.clear()
    assert detours.follow(ROUTES["a"], "x.example") is ROUTES["a"]


@given(st.dictionaries(st.sampled_from([*NAMES, "mx/x.example"]), st.sampled_from(sorted(ROUTES))))
def test_no_mail_goes_round_for_ever(ways: dict[str, str]) -> None:
    """Whatever leads where, mail that leaves a queue ends in another one, where it stays."""
    detours = Detours(lambda: 0.0)
    for queue, route in ways.items():
        detours.lead(queue, ROUTES[route], 1.0)
    for route in ROUTES.values():
        queue = route.queue_for("x.example")
        end = detours.follow(route, "x.example")
        assert (end.queue_for("x.example") != queue) == detours.leads_away(queue, "x.example")
        if end is not route:
            assert not detours.leads_away(end.queue_for("x.example"), "x.example")
