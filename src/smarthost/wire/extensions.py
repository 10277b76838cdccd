"""Turns the keyword lines of an EHLO reply into Extensions, and back (RFC 5321 4.1.1.1)."""

from collections.abc import Sequence

import msgspec


class Extensions(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a server offers in its EHLO reply.

    `size` is None where SIZE is not offered and 0 where it is offered without a limit, else octets (RFC 1870);
    `auth` are mechanism names in upper case, in the server's order; `max_recipients`, `max_transactions` and
    `max_domains` are RCPTMAX, MAILMAX and RCPTDOMAINMAX of LIMITS (RFC 9422), 0 where they are not announced.
    `hold_for` are the seconds and `hold_until` is the date-time of FUTURERELEASE (RFC 4865), 0 and "" where it is not
    offered.
    """

    pipelining: bool = False
    size: int | None = None
    eight_bit_mime: bool = False
    smtputf8: bool = False
    enhanced_status_codes: bool = False
    dsn: bool = False
    chunking: bool = False
    starttls: bool = False
    requiretls: bool = False
    mt_priority: bool = False
    auth: tuple[str, ...] = ()
    max_recipients: int = 0
    max_transactions: int = 0
    max_domains: int = 0
    hold_for: int = 0
    hold_until: str = ""

    @classmethod
    def parse(cls, lines: Sequence[str]) -> "Extensions":
        """Read the lines of a 250 reply to EHLO; the first names the server and offers nothing.

        Unknown keywords are ignored, and so are values that cannot be read. The old form "AUTH=LOGIN" counts.
        """
        found: dict[str, list[str]] = {}
        for line in lines[1:]:
            words = line.upper().split()
            if not words:
                continue
            keyword, equals, first = words[0].partition("=")
            values = [first, *words[1:]] if equals and first else words[1:]
            found.setdefault(keyword, []).extend(values)
        limits = dict(word.partition("=")[::2] for word in found.get("LIMITS", ()))
        return cls(
            pipelining="PIPELINING" in found,
            size=_number("".join(found["SIZE"][:1])) if "SIZE" in found else None,
            eight_bit_mime="8BITMIME" in found,
            smtputf8="SMTPUTF8" in found,
            enhanced_status_codes="ENHANCEDSTATUSCODES" in found,
            dsn="DSN" in found,
            chunking="CHUNKING" in found,
            starttls="STARTTLS" in found,
            requiretls="REQUIRETLS" in found,
            mt_priority="MT-PRIORITY" in found,
            auth=tuple(dict.fromkeys(found.get("AUTH", ()))),
            max_recipients=_number(limits.get("RCPTMAX", "")),
            max_transactions=_number(limits.get("MAILMAX", "")),
            max_domains=_number(limits.get("RCPTDOMAINMAX", "")),
            hold_for=_number("".join(found.get("FUTURERELEASE", ())[:1])),
            hold_until="".join(found.get("FUTURERELEASE", ())[1:2]),
        )


def format_ehlo(hostname: str, extensions: Extensions) -> bytes:
    """Write the whole reply to EHLO: one line for our name, then one a keyword, CRLF at each end."""
    offered = [
        (extensions.pipelining, "PIPELINING"),
        (extensions.size is not None, f"SIZE {extensions.size}" if extensions.size else "SIZE"),
        (extensions.eight_bit_mime, "8BITMIME"),
        (extensions.smtputf8, "SMTPUTF8"),
        (extensions.enhanced_status_codes, "ENHANCEDSTATUSCODES"),
        (extensions.dsn, "DSN"),
        (extensions.chunking, "CHUNKING"),
        (extensions.starttls, "STARTTLS"),
        (extensions.requiretls, "REQUIRETLS"),
        (extensions.mt_priority, "MT-PRIORITY"),
        (bool(extensions.hold_for), f"FUTURERELEASE {extensions.hold_for} {extensions.hold_until}"),
        (bool(extensions.auth), "AUTH " + " ".join(extensions.auth)),
        (bool(extensions.max_recipients or extensions.max_transactions or extensions.max_domains), _limits(extensions)),
    ]
    lines = [hostname, *(line for is_offered, line in offered if is_offered)]
    last = len(lines) - 1
    return "".join(f"250{' ' if number == last else '-'}{line}\r\n" for number, line in enumerate(lines)).encode()


def _limits(extensions: Extensions) -> str:
    numbers = (
        ("RCPTMAX", extensions.max_recipients),
        ("MAILMAX", extensions.max_transactions),
        ("RCPTDOMAINMAX", extensions.max_domains),
    )
    return " ".join(["LIMITS", *(f"{name}={number}" for name, number in numbers if number)])


def _number(text: str) -> int:
    """Read a number of at most 20 digits (RFC 1870 3); 0 where there is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else 0
