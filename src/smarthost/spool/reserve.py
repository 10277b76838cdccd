"""Reserve: disk space kept aside, so that on a full disk what was relayed can still be struck off."""

import os
from pathlib import Path

from smarthost.spool import schema

RESERVE = "reserve"
# Enough to empty the longest log into the database, which may grow by all of it; from then on the log starts again
# from its front, and settles need no new space.
RESERVE_OCTETS = schema.WAL_OCTETS + 4 * 1024 * 1024


class Reserve:
    """A preallocated file that is given up when the disk is full and made again when there is space."""

    def __init__(self, folder: Path) -> None:
        """Make the file if there is space."""
        self._path = folder / RESERVE
        self.held = False
        self.make()

    def make(self) -> bool:
        """Allocate the file; false when there is no space for it."""
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            os.posix_fallocate(descriptor, 0, RESERVE_OCTETS)
            self.held = True
        except OSError:
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)
        return self.held

    def release(self) -> None:
        """Give the space back to the file system."""
        self.held = False
        try:
            os.truncate(self._path, 0)
        except OSError:
            pass
