"""Reserve: disk space kept aside, so that on a full disk what was relayed can still be struck off."""

import os
from pathlib import Path

RESERVE = "reserve"
RESERVE_OCTETS = 4 * 1024 * 1024


class Reserve:
    """A preallocated file that is given up when the disk is full and made again when there is space."""

    def __init__(self, folder: Path, octets: int = RESERVE_OCTETS) -> None:
        """Make the file if there is space."""
        self._path = folder / RESERVE
        self._octets = octets
        self.held = False
        self.make()

    def make(self) -> bool:
        """Allocate the file; false when there is no space for it."""
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            os.posix_fallocate(descriptor, 0, self._octets)
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
