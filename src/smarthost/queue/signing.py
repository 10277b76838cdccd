"""Worker threads, for what would hold up the event loop; and the names of signatures."""

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue

from smarthost.crypto.dkim_keys import SigningKey

log = logging.getLogger(__name__)


class Workers:
    """A few threads that run what they are given, first come first served; they start with the first task.

    RSA signing releases the interpreter lock, so two threads keep two cores busy. A task must hand on its own result
    and its own failure; one that raises is a bug and is logged.
    """

    def __init__(self, count: int = 2, name: str = "signer") -> None:
        """Be ready to start `count` threads."""
        self._tasks: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = [threading.Thread(target=self._run, name=f"{name}-{n}", daemon=True) for n in range(count)]
        self._has_begun = False

    def submit(self, task: Callable[[], None]) -> None:
        """Have a task run by the next free thread."""
        if not self._has_begun:
            self._has_begun = True
            for thread in self._threads:
                thread.start()
        self._tasks.put(task)

    def close(self) -> None:
        """Run what was submitted, then end the threads."""
        if not self._has_begun:
            return
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (task := self._tasks.get()) is not None:
            try:
                task()
            except Exception:
                log.exception("a task of the signing threads failed")


def signature_names(keys: tuple[SigningKey, ...]) -> tuple[str, ...]:
    """Name the keys as a log shows them: "d=example.org s=s2026a"."""
    return tuple(f"d={key.domain} s={key.selector}" for key in keys)
