"""Restraints: which limits hold for a part of the mail, and by what name."""

import pytest

from smarthost.policy.limits import Limit, LimitMatch, OnLimit
from smarthost.policy.rate import Rate
from smarthost.policy.restraints import Facts, Restraints, suffix_of

MAIL = Facts("example.net", "example.org", "app1", "bulk", "ses")


def names(*matches: LimitMatch, facts: Facts = MAIL) -> list[str]:
    """Give the names of what holds for mail."""
    limits = [Limit(match, message_rate=("1/s",), number=number) for number, match in enumerate(matches, 1)]
    return [each.name for each in Restraints(limits).of(facts)]


@pytest.mark.parametrize(
    ("match", "name"),
    [
        (LimitMatch(user="*"), "user=app1"),
        (LimitMatch(user="app?"), "user=app1"),
        (LimitMatch(user="app2"), ""),
        (LimitMatch(destination="*.NET"), "destination=example.net"),
        (LimitMatch(sender_domain="example.org", tag="b*"), "sender_domain=example.org tag=bulk"),
        (LimitMatch(user="app1", route="ses"), "user=app1 route=ses"),
        (LimitMatch(user="app1", route="mx"), ""),
        (LimitMatch(route="ses"), ""),
        (LimitMatch(site="*"), ""),
    ],
)
def test_a_glob_gives_each_that_it_matches_a_cell(match: LimitMatch, name: str) -> None:
    """The name says what is counted together; limits of sites and routes alone are not about a part of the mail."""
    assert names(match) == ([name] if name else [])


def test_nothing_is_matched_by_no_glob() -> None:
    """Who is not logged in has no user, and a report of ours no sender: limits of them do not hold."""
    facts = Facts("example.net", "", "", "", "ses")
    assert names(LimitMatch(user="*"), LimitMatch(sender_domain="*"), LimitMatch(tag="*"), facts=facts) == []


def test_the_same_keys_compete_and_others_hold_beside() -> None:
    """Among limits of users the most specific wins, key by key; one of a destination holds as well."""
    limits = [
        Limit(LimitMatch(user="*"), message_rate=("1/h",), recipient_rate=("5/h",), number=1),
        Limit(LimitMatch(user="app1"), message_rate=("9/h", "2/s"), number=2),
        Limit(LimitMatch(destination="*"), max_connections=2, number=3),
        Limit(LimitMatch(user="app1"), message_rate=("7/h",), on_limit=OnLimit.ERROR, number=4),
    ]
    destination, user = Restraints(limits).of(MAIL)
    assert (destination.name, destination.max_connections) == ("destination=example.net", 2)
    assert user.message_rate == (Rate(9, 3600.0), Rate(2, 1.0)) and user.recipient_rate == (Rate(5, 3600.0),)
    assert user.label == "[[limit]] 1 and 2 (user app1): message_rate 9/h, 2/s; recipient_rate 5/h"
    assert suffix_of((destination, user)) == "/ destination=example.net user=app1"
    assert suffix_of(()) == ""
    (at_the_door,) = Restraints(limits, OnLimit.ERROR).of(MAIL)
    assert at_the_door.message_rate == (Rate(7, 3600.0),)


def test_what_is_remembered_is_bounded() -> None:
    """Ten thousand destinations do not stay in memory."""
    restraints = Restraints([Limit(LimitMatch(destination="*"), message_rate=("1/s",))])
    for number in range(10_000):
        assert restraints.of(MAIL._replace(destination=f"d{number}.example"))
    assert len(restraints._known) <= 4096
