"""Which TLSA records SMTP uses: usages, selectors, the form of the data, and the best digest (RFC 7671 9)."""

import pytest

from smarthost.mail.tlsa import Tlsa
from smarthost.policy.security import usable

SHORT, LONG = b"a" * 32, b"b" * 64
DER, LONG_DER = b"\x30\x03abc", b"\x30\x82\x01\x00" + b"c" * 256


@pytest.mark.parametrize(
    ("record", "is_usable"),
    [
        (Tlsa(2, 0, 1, SHORT), True),
        (Tlsa(3, 1, 2, LONG), True),
        (Tlsa(3, 1, 0, DER), True),
        (Tlsa(2, 0, 0, LONG_DER), True),
        (Tlsa(0, 0, 1, SHORT), False),
        (Tlsa(1, 1, 1, SHORT), False),
        (Tlsa(255, 1, 1, SHORT), False),
        (Tlsa(3, 2, 1, SHORT), False),
        (Tlsa(3, 1, 3, SHORT), False),
        (Tlsa(3, 1, 1, LONG), False),
        (Tlsa(3, 1, 2, SHORT), False),
        (Tlsa(3, 1, 0, b""), False),
        (Tlsa(3, 1, 0, b"\x30"), False),
        (Tlsa(3, 1, 0, SHORT), False),
        (Tlsa(3, 1, 0, DER + b"x"), False),
        (Tlsa(3, 1, 0, LONG_DER[:-1]), False),
        (Tlsa(3, 1, 0, b"\x30\x80abc"), False),
        (Tlsa(3, 1, 0, b"\x30\xff"), False),
    ],
)
def test_what_can_be_used(record: Tlsa, is_usable: bool) -> None:
    """Usages 0 and 1 need a web's authorities; what is unknown, or of a wrong form, says nothing."""
    assert usable([record]) == ((record,) if is_usable else ())


def test_of_two_digests_the_better_counts() -> None:
    """SHA-512 over SHA-256, within one usage and selector; whole certificates and keys count beside either."""
    weak, strong, whole = Tlsa(3, 1, 1, SHORT), Tlsa(3, 1, 2, LONG), Tlsa(3, 1, 0, DER)
    assert usable([weak, strong, whole]) == (strong, whole)
    others = (Tlsa(3, 0, 1, SHORT), Tlsa(2, 1, 1, SHORT))
    assert usable([weak, strong, *others]) == (strong, *others)
    assert usable([weak, whole]) == (weak, whole)
    assert usable([weak, Tlsa(3, 1, 2, SHORT)]) == (weak,), "a digest that cannot be used does not stand before another"
