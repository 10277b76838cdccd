"""Message, its arrival, and how message ids are minted and read back."""

from functools import lru_cache

import msgspec

from smarthost.mail.envelope import Envelope

# Crockford's base 32, without I, L, O and U: can be read aloud, and sorts as text in the order of the numbers.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# Two digits for each ten bits: an id is written for every message, four times quicker than digit by digit.
_PAIRS = tuple(high + low for high in _ALPHABET for low in _ALPHABET)
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
ID_LENGTH = 12
REPORTS = "report"  # the door of our own reports


class Arrival(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """How a message came in: everything that the Received field and the log need.

    `at` is a Unix time in seconds; `door` names the listener; `client` is the peer's IP address ("" where there is
    none); `ehlo` is what the client called itself; `identity` is the authenticated user or ""; `protocol` is the
    `with` keyword (RFC 3848, RFC 6531 4.3); `tls` is "TLSv1.3 TLS_AES_256_GCM_SHA384" or "".
    """

    at: float
    door: str = ""
    client: str = ""
    ehlo: str = ""
    identity: str = ""
    protocol: str = "ESMTP"
    tls: str = ""


class Message(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True, gc=False):
    """A message that we are responsible for. Its content is never in it: that is in the spool.

    `size` is the octets of the content as it will be sent, signature included, before transparency; `eight_bit` and
    `utf8_header` are measured: the body has octets above 127, the header has.
    `route` is the name of the one that its sender chose, "" where the rules choose.
    `report` is true for a report of ours, which is never reported on again (RFC 3461 5.2); `owner` is the user whose
    message it is about.
    """

    id: int
    arrival: Arrival
    envelope: Envelope
    size: int
    eight_bit: bool = False
    utf8_header: bool = False
    report: bool = False
    tag: str = ""
    signatures: tuple[str, ...] = ()
    route: str = ""
    owner: str = ""

    @property
    def user(self) -> str:
        """Whose it is: who handed it in or, of a report of ours, whose message it is about; "" for nobody's."""
        return self.arrival.identity or self.owner

    @property
    def released_at(self) -> float:
        """When it may first be sent, a Unix time: its lifetime and its delay warnings count from here."""
        return max(self.arrival.at, self.envelope.hold_until)


class MessageIds:
    """Mints message ids: microseconds since 1970 times 16, so that they sort by time; never one twice.

    `last` is the highest id that was ever made durable: a clock that went back cannot make an old id again. The four
    low bits are left for the number of a spool shard.
    """

    def __init__(self, last: int = 0) -> None:
        """Start above `last`, the highest id that may have been used before."""
        self._last = last >> 4

    def mint(self, now: float) -> int:
        """Give a new id for a message that arrives at `now` (Unix seconds)."""
        self._last = max(self._last + 1, int(now * 1_000_000))
        return self._last << 4


def format_id(number: int) -> str:
    """Write an id as 12 characters of base 32."""
    return _first_eight(number >> 20) + _PAIRS[number >> 10 & 1023] + _PAIRS[number & 1023]


# They are the same for the messages of 65 ms.
@lru_cache(maxsize=64)
def _first_eight(number: int) -> str:
    return "".join([_PAIRS[number >> shift & 1023] for shift in (30, 20, 10, 0)])


def parse_id(text: str) -> int | None:
    """Read an id back; None when the text is not one. Case does not matter; I, L and O are read as 1, 1 and 0."""
    if len(text) != ID_LENGTH:
        return None
    number = 0
    for character in text.upper().translate(str.maketrans("ILO", "110")):
        value = _VALUES.get(character)
        if value is None:
            return None
        number = number << 5 | value
    return number


def id_at(when: float) -> int:
    """Give the lowest id that could have been minted at a Unix time in seconds."""
    return int(when * 1_000_000) << 4
