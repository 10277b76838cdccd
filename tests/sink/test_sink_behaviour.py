"""The sink's language of addresses, its scanner for content, and its counters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smarthost.sink.behaviour import Act, choose_behaviour
from smarthost.sink.content import ContentCollector, id_of
from smarthost.sink.counts import Counts
from smarthost.sink.server import split_address
from smarthost.wire.data import stuff


@pytest.mark.parametrize(
    ("local", "act", "reply"),
    [
        ("250", Act.ACCEPT, ""),
        ("250-7", Act.ACCEPT, ""),
        ("anyone", Act.ACCEPT, ""),
        ("451x", Act.ACCEPT, ""),
        ("699", Act.ACCEPT, ""),
        ("451", Act.REFUSE, "451 4.3.0"),
        ("550", Act.REFUSE, "550 5.1.1"),
        ("550-17", Act.REFUSE, "550 5.1.1"),
        ("550.123", Act.REFUSE, "550 5.1.1"),
        ("421", Act.REFUSE, "421 4.3.2"),
        ("452.4.2.2", Act.REFUSE, "452 4.2.2"),
        ("452.4.2.2-9", Act.REFUSE, "452 4.2.2"),
        ("557", Act.REFUSE, "557 5.0.0"),
        ("451-3=Try_again_in_5_minutes", Act.REFUSE, "451 4.3.0 Try again in 5 minutes"),
        ("data-554.5.7.0=no", Act.REFUSE_CONTENT, "554 5.7.0 no"),
        ("data-451", Act.REFUSE_CONTENT, "451 4.3.0"),
        ("DATA-554-3", Act.REFUSE_CONTENT, "554 5.7.1"),
        ("drop-mail", Act.DROP_MAIL, ""),
        ("drop-data-1", Act.DROP_DATA, ""),
        ("drop-dot-3", Act.DROP_DOT, ""),
        ("slow-250", Act.SLOW, ""),
        ("slow-250-1", Act.SLOW, ""),
        ("hang", Act.HANG, ""),
        ("garbage-2", Act.GARBAGE, ""),
        ("huge", Act.HUGE, ""),
    ],
)
def test_local_part_says_what_happens(local: str, act: Act, reply: str) -> None:
    """Each form of the contract, with and without a number behind it, means what it says."""
    behaviour = choose_behaviour(f"{local}@example.org")
    assert behaviour.act is act
    assert not behaviour.once
    assert (str(behaviour.reply) if behaviour.reply else "").startswith(reply)
    assert (behaviour.delay == 0.25) == (act is Act.SLOW)


@pytest.mark.parametrize("local", ["451.once", "451.once-17", "data-554.once", "drop-dot.once-2", "hang.once"])
def test_once_is_understood(local: str) -> None:
    """The word once marks a behaviour that ends after its first time."""
    assert choose_behaviour(f"{local}@example.org").once


@given(address=st.text(max_size=40))
def test_any_address_has_a_behaviour(address: str) -> None:
    """No address is too odd: a behaviour comes back, and a refusal always has its reply."""
    behaviour = choose_behaviour(address)
    assert (behaviour.reply is not None) == (behaviour.act in (Act.REFUSE, Act.REFUSE_CONTENT))


@given(
    content=st.lists(st.sampled_from([b".", b"..", b"a", b"\r\n", b"\n", b"\r", b"\r\n.\r", b"\0"]), max_size=20),
    cuts=st.lists(st.integers(1, 7), max_size=30),
)
def test_content_is_taken_octet_for_octet(content: list[bytes], cuts: list[int]) -> None:
    """What was stuffed comes back unchanged, bare line ends too, however it is cut; what follows is given back."""
    original = b"".join(content)
    wire = stuff(original) + b"NOOP\r\n"
    collector = ContentCollector(1 << 20)
    rest = None
    while rest is None:
        size = cuts.pop() if cuts else len(wire)
        rest = collector.feed(wire[:size])
        wire = wire[size:]
    taken = collector.content()
    assert taken == original if original.endswith(b"\r\n") or not original else taken == original + b"\r\n"
    assert rest + wire == b"NOOP\r\n"
    assert collector.octets == len(stuff(original)) - 3


def test_too_much_content_is_not_kept() -> None:
    """Octets above the limit are counted but not held."""
    collector = ContentCollector(1000)
    for _ in range(100):
        assert collector.feed(b"x" * 100) is None
    assert collector.feed(b"\r\n.\r\n") == b""
    assert collector.is_too_big
    assert sum(map(len, collector._blocks)) <= 1002


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"Message-ID: <1@x>\r\n\r\nX-Test-Id: 9\r\n", "<1@x>"),
        (b"Message-ID: <1@x>\r\nx-test-ID: 42\r\n\r\n", "42"),
        (b"A: b\r\nMessage-Id:\r\n <long@x>\r\n\r\n", "<long@x>"),
        (b"Subject: x\r\n\r\nMessage-ID: <1@x>\r\n", ""),
        (b"", ""),
        (b"Message-ID:", ""),
    ],
)
def test_id_of_a_message(content: bytes, name: str) -> None:
    """X-Test-Id goes before Message-ID; only the header is looked at."""
    assert id_of(content) == name


def test_ids_are_counted_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeated ids are told apart from different ones; above the bound they are only counted as left out."""
    monkeypatch.setattr("smarthost.sink.counts.MOST_IDS", 3)
    counts = Counts()
    for name in ("a", "b", "a", "c", "d", "e", "a", ""):
        counts.add_id(name)
    assert counts.ids == {"a": 3, "b": 1, "c": 1}
    assert counts.snapshot()["ids"] == {"different": 3, "repeated": 1, "left_out": 2}


def test_addresses_to_listen_at() -> None:
    """Host and port are split with and without brackets; anything else is refused with its text."""
    assert split_address("127.0.0.1:25") == ("127.0.0.1", 25)
    assert split_address("[::1]:25") == ("::1", 25)
    for bad in ("25", "host:", "host:99999", ""):
        with pytest.raises(ValueError, match="host:port"):
            split_address(bad)
