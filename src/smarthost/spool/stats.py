"""Stats: what the group commit did, as plain numbers that metrics read."""

from bisect import bisect_left

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Stats:
    """Counters since the start; `commit_seconds` and `batch_sizes` have one more bucket than SECONDS and SIZES.

    A batch's size is the accepts and settles in it. `wal` is the octets of the write-ahead log, about.
    """

    def __init__(self) -> None:
        """Start at zero."""
        self.commits = 0
        self.commit_seconds = [0] * (len(SECONDS) + 1)
        self.commit_seconds_sum = 0.0
        self.batch_sizes = [0] * (len(SIZES) + 1)
        self.batch_sizes_sum = 0
        self.checkpoints = 0
        self.checkpoint_seconds_sum = 0.0
        self.disk_full = 0
        self.wal = 0

    def committed(self, size: int, seconds: float) -> None:
        """Count a commit."""
        self.commits += 1
        self.commit_seconds[bisect_left(SECONDS, seconds)] += 1
        self.commit_seconds_sum += seconds
        self.batch_sizes[bisect_left(SIZES, size)] += 1
        self.batch_sizes_sum += size
