"""Contents in memory: bounded, and never in the way of the message whose turn has come."""

from smarthost.queue.contents import Contents
from smarthost.spool.store import Content


def content(size: int) -> Content:
    """Make a content of a size."""
    return Content(b"x" * size, "", size)


def test_what_does_not_fit_is_not_put() -> None:
    """A fresh message finds no room: it will be read from disk, and what is kept stays."""
    contents = Contents(100)
    contents.put(1, content(60))
    contents.put(2, content(60))
    assert contents.get(1) is not None and contents.get(2) is None


def test_what_is_needed_now_makes_room() -> None:
    """A content that was read for the next transaction is kept, even if it is larger than the bound."""
    contents = Contents(100)
    contents.put(1, content(60))
    contents.put(2, content(30))
    contents.keep(3, content(40))
    assert contents.get(1) is None and contents.get(2) is not None and contents.get(3) is not None
    contents.keep(4, content(500))
    assert contents.get(4) is not None and len(contents) == 1


def test_dropped_octets_are_free_again() -> None:
    """Dropping makes room, and dropping twice takes nothing else away."""
    contents = Contents(100)
    contents.put(1, content(100))
    contents.drop(1)
    contents.drop(1)
    contents.put(2, content(100))
    assert contents.get(2) is not None
