"""Contents kept in memory for messages that are about to be sent, within a bound."""

from smarthost.spool.store import Content

CACHE_LIMIT = 32 * 1024 * 1024  # octets; 3,200 messages of 10 KB, a second of full load


class Contents:
    """Contents by message id, oldest out first. What is not here is read from the spool when its turn comes."""

    __slots__ = ("_contents", "_limit", "_octets")

    def __init__(self, limit: int = CACHE_LIMIT) -> None:
        """Begin empty; `limit` is in octets."""
        self._contents: dict[int, Content] = {}
        self._octets = 0
        self._limit = limit

    def put(self, message: int, content: Content) -> None:
        """Keep a content, if there is room for it; what is kept already stays."""
        size = len(content.head)
        if self._octets + size <= self._limit and message not in self._contents:
            self._contents[message] = content
            self._octets += size

    def keep(self, message: int, content: Content) -> None:
        """Keep a content whose turn has come; the oldest others make room for it."""
        self.drop(message)
        size = len(content.head)
        while self._contents and self._octets + size > self._limit:
            self.drop(next(iter(self._contents)))
        self._contents[message] = content
        self._octets += size

    def get(self, message: int) -> Content | None:
        """Give a content that is kept, or None."""
        return self._contents.get(message)

    def drop(self, message: int) -> None:
        """Forget a content that is not needed any more."""
        content = self._contents.pop(message, None)
        if content is not None:
            self._octets -= len(content.head)

    def __len__(self) -> int:
        """Count the contents that are kept."""
        return len(self._contents)
