"""Room: how many entries may be in memory, of one lane and in all."""

from smarthost.queue.waiting import Key, Lane, Waiting

QUEUE_BOUND = 1024  # entries of one queue in memory; KumoMTA's max_ready
TOTAL_BOUND = 20_000  # entries in memory in all; Postfix's qmgr_message_active_limit
CROWDED_BOUND = 64  # entries of one queue in memory while the total is over its half; 32 cost half more to read
SURE = 1  # entries of one lane in memory whatever the others have there, up to twice the total
MOVING = 20  # memory that was full has room again when one part in so many has left it
STUCK = 2.0  # seconds of full memory after which those that wait for room are not made to wait for the others any more
URGENT = "2"  # lanes before this one, of the two higher priorities, never wait for the others


class Room:
    """Counts what is in memory. Mutable; times are Unix seconds.

    While memory is full nothing more is read but what is new or urgent: a queue waits in line until others have moved
    on, and is read in one go then. If they do not move, because they are for places that are dead or slow, each lane
    has one entry in memory nevertheless; those are counted by themselves, so that they cannot fill it.
    """

    def __init__(self) -> None:
        """Begin with nothing in memory."""
        self.total = 0
        self._sure: set[Key] = set()
        self._full_since: float | None = None

    def enter(self, lane: Lane, key: Key) -> None:
        """Count an entry that comes into memory."""
        self.total += 1
        lane.count += 1
        if self._full_since is not None:
            self._sure.add(key)

    def leave(self, key: Key) -> None:
        """Count an entry no more."""
        self.total -= 1
        self._sure.discard(key)

    @property
    def is_crowded(self) -> bool:
        """Whether queues get the smaller share."""
        return self.total > TOTAL_BOUND // 2

    def is_full(self, now: float) -> bool:
        """Whether others have to move on before more is read."""
        taken = self.total - len(self._sure)
        if taken > TOTAL_BOUND - CROWDED_BOUND:  # a queue that is read in a crowd shall get its whole share
            if self._full_since is None or self._full_since > now:  # the clock may be set back
                self._full_since = now
        elif taken <= TOTAL_BOUND - max(TOTAL_BOUND // MOVING, CROWDED_BOUND):
            self._full_since = None
        return self._full_since is not None

    def is_stuck(self, now: float) -> bool:
        """Whether memory has been full for so long that nobody waits for others to move any more."""
        return self.is_full(now) and now - (self._full_since or now) >= STUCK

    def of(self, queue: Waiting, lane: Lane, now: float, *, is_new: bool = False) -> int:
        """Say how many more entries of a lane may come into memory; 0 or less is none."""
        if self.is_full(now):
            is_sure = is_new or lane.name < URGENT or self.is_stuck(now)
            return SURE - lane.count if is_sure and self.total < 2 * TOTAL_BOUND else 0
        bound = CROWDED_BOUND if self.is_crowded else QUEUE_BOUND
        share = max(bound // len(queue.lanes), SURE) - lane.count
        return min(share, TOTAL_BOUND - self.total + len(self._sure))
