"""Marks of addresses: a compact set in memory that says at once whether an address is suppressed or has failed."""

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from types import MappingProxyType

from smarthost.mail.suppression import Key, Origin, Suppression

# Marks of suppressed addresses: by a person, by failures, by what a host said later. Those below count hard failures
# in a row.
BY_PERSON, BY_FAILURES, BY_REPORT = 15, 14, 13
LASTING = frozenset({BY_PERSON, BY_REPORT})  # which no message that is relayed ends: the host had taken the others, too
_BY_ORIGIN = MappingProxyType(
    {str(Origin.MANUAL): BY_PERSON, str(Origin.AUTOMATIC): BY_FAILURES, str(Origin.REPORTED): BY_REPORT}
)
_SHARDS = 1024
_SHARD_FROM = 54  # the high ten bits of an element say in which array it is, so that sorted ones lie together
_MARK = 15  # the low bits of an element are the mark
_HASH = (1 << 64) - 1 ^ _MARK


class Marks:
    """What is known of each address, 0 for nothing. Mutable.

    An element has eight octets: 60 bits of a hash of owner and address, and the mark. They lie sorted in 1024 arrays,
    so that one is found in a few microseconds, put in by moving a few kilobytes, and 100,000 addresses take 1.2 MB.
    Two addresses share a hash once in some 10^12 questions among a million: one is then taken for the other.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._shards = [array("Q") for _ in range(_SHARDS)]
        self.count = 0

    def get(self, key: Key) -> int:
        """Give an address's mark."""
        element = _element(key)
        shard = self._shards[element >> _SHARD_FROM]
        place = bisect_left(shard, element)
        if place < len(shard) and shard[place] | _MARK == element | _MARK:
            return shard[place] & _MARK
        return 0

    def is_suppressed(self, key: Key) -> bool:
        """Whether nothing is sent to an address."""
        return self.get(key) >= BY_REPORT

    def put(self, key: Key, mark: int) -> None:
        """Set an address's mark; 0 forgets it."""
        element = _element(key)
        shard = self._shards[element >> _SHARD_FROM]
        place = bisect_left(shard, element)
        is_known = place < len(shard) and shard[place] | _MARK == element | _MARK
        if not mark:
            if is_known:
                del shard[place]
                self.count -= 1
        elif is_known:
            shard[place] = element | mark
        else:
            shard.insert(place, element | mark)
            self.count += 1

    def load(self, rows: Iterable[tuple[Key, int]]) -> None:
        """Take many marks as they were stored, but for addresses that have a mark already, which is newer.

        Sorting each array once costs a tenth of putting its elements in one by one.
        """
        elements = sorted([_element(key) | mark for key, mark in rows if mark])
        begin = 0
        while begin < len(elements):
            number = elements[begin] >> _SHARD_FROM
            end = bisect_left(elements, number + 1 << _SHARD_FROM, begin)
            shard = self._shards[number]
            newer = {element | _MARK for element in shard}
            added = [element for element in elements[begin:end] if element | _MARK not in newer]
            self._shards[number] = array("Q", sorted([*shard, *added]))
            self.count += len(added)
            begin = end


def mark_of(row: Suppression) -> int:
    """Give the mark of a stored row."""
    return mark_for(row.failures, is_suppressed=row.is_suppressed, origin=row.origin)


def mark_for(failures: int, *, is_suppressed: bool, origin: str) -> int:
    """Give the mark of a row of which this is known."""
    return _BY_ORIGIN[origin] if is_suppressed else min(failures, BY_REPORT - 1)


def _element(key: Key) -> int:
    """Give an address's element without its mark."""
    # The interpreter's own hash of text (SipHash, with a secret of this process) is ten times as quick as others.
    return hash(f"{key[0]}\0{key[1]}") & _HASH
