"""Marks of addresses: a compact set in memory that says at once whether an address is suppressed or has failed."""

from array import array
from bisect import bisect_left
from collections.abc import Iterable
from hashlib import blake2b

from smarthost.mail.suppression import Key, Origin, Suppression

BY_PERSON, BY_FAILURES = 15, 14  # marks of suppressed addresses; those below count hard failures in a row
_SHARDS = 1024
_MARK = 15  # the low bits of an element are the mark


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
        shard = self._shards[element >> 4 & _SHARDS - 1]
        place = bisect_left(shard, element)
        if place < len(shard) and shard[place] | _MARK == element | _MARK:
            return shard[place] & _MARK
        return 0

    def is_suppressed(self, key: Key) -> bool:
        """Whether nothing is sent to an address."""
        return self.get(key) >= BY_FAILURES

    def put(self, key: Key, mark: int) -> None:
        """Set an address's mark; 0 forgets it."""
        element = _element(key)
        shard = self._shards[element >> 4 & _SHARDS - 1]
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

    def load(self, rows: Iterable[Suppression]) -> None:
        """Take rows as they were stored, but for addresses that have a mark already, which is newer."""
        shards = self._shards
        for row in rows:
            element = _element(row.key)
            shard = shards[element >> 4 & _SHARDS - 1]
            place = bisect_left(shard, element)
            if place == len(shard) or shard[place] | _MARK != element | _MARK:
                shard.insert(place, element | mark_of(row))
                self.count += 1


def mark_of(row: Suppression) -> int:
    """Give the mark of a stored row."""
    if row.is_suppressed:
        return BY_PERSON if row.origin is Origin.MANUAL else BY_FAILURES
    return min(row.failures, BY_FAILURES - 1)


def _element(key: Key) -> int:
    """Give an address's element without its mark."""
    digest = blake2b(f"{key[0]}\0{key[1]}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest) & ~_MARK
