"""Feed: tells every watcher (mail log, metrics, the demo) what happened to a message."""

import logging
from collections.abc import Callable, Sequence

from smarthost.mail.event import Event

Listener = Callable[[Event], None]

_log = logging.getLogger(__name__)


class Feed:
    """Fans an event out to its listeners at once, in their order, on the event loop.

    A listener that raises is logged and left out of this event only: a watcher never hurts the mail.
    """

    def __init__(self, listeners: Sequence[Listener] = ()) -> None:
        """Start with some listeners."""
        self._listeners = tuple(listeners)

    def publish(self, event: Event) -> None:
        """Tell every listener of an event; never raises."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:
                _log.exception("a listener of the event feed failed on %s", event.event)

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Add a listener; what is returned, when called, removes it again."""
        self._listeners = (*self._listeners, listener)

        def stop() -> None:
            self._listeners = tuple(other for other in self._listeners if other is not listener)

        return stop
