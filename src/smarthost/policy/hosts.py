"""Decides in which order a domain's mail hosts and their addresses are tried (RFC 5321 5.1)."""

from collections.abc import Collection, Sequence
from itertools import chain, zip_longest
from typing import Any, Protocol

from smarthost.policy.classify import NetFault

MAX_ADDRESSES = 5  # that are tried for one host in one attempt (Postfix: smtp_mx_address_limit)


class Shuffler(Protocol):
    """What is needed of a random number generator; `random.Random` has it."""

    def shuffle(self, x: list[Any], /) -> None:
        """Bring a list into a random order, in place."""


def order_mx(
    records: Sequence[tuple[int, str]], own_names: Collection[str], rng: Shuffler
) -> tuple[tuple[int, str], ...] | NetFault:
    """Order MX records, (preference, exchange), for trial: by preference, at random within one (RFC 5321 5.1).

    Names come back in lower case without the final dot. NetFault.NULL_MX: the domain takes no mail (RFC 7505), a
    "." beside real hosts is left out. Our own name and all that is no better than it is left out, as we are the better
    host then; NetFault.MX_LOOP when nothing remains. No record gives (): the domain itself is the host then.
    """
    if not records:
        return ()
    best: dict[str, int] = {}
    for preference, exchange in records:
        name = exchange.rstrip(".").lower()
        if name:
            best[name] = min(preference, best.get(name, preference))
    if not best:
        return NetFault.NULL_MX
    own = {name.rstrip(".").lower() for name in own_names}
    ours = min((preference for name, preference in best.items() if name in own), default=None)
    ordered = [(preference, name) for name, preference in best.items() if ours is None or preference < ours]
    if not ordered:
        return NetFault.MX_LOOP
    rng.shuffle(ordered)
    ordered.sort(key=lambda record: record[0])
    return tuple(ordered)


def order_addresses(v4: Sequence[str], v6: Sequence[str], limit: int = MAX_ADDRESSES) -> tuple[str, ...]:
    """Take IPv4 and IPv6 addresses in turn, so that a broken family costs one try; at most `limit` of them.

    IPv4 goes first: large receivers refuse IPv6 from senders whose reverse DNS they do not like.
    """
    pairs = zip_longest(v4, v6)
    return tuple(address for address in chain.from_iterable(pairs) if address is not None)[:limit]
