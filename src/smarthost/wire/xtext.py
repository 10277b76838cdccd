"""Encodes and decodes xtext (RFC 3461 4) and the original recipients that are written in it (RFC 6533 3)."""

import re

_PLAIN = re.compile(r"[!-*,-<>-~]*")
_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*")
_HEX = re.compile(r"\+([0-9A-F]{2})")
_PRINTABLE = re.compile(r"[ -~]*")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9!#$%&'*/?^_`{|}~.\-]+")
# QCHAR of RFC 6533 3, with the UTF-8 of unitext, and the embedded code point.
_UTF8_ADDRESS = re.compile(r"(?:[!-*,-<>-\[\]-~\u0080-\U0010ffff]|\\x\{[0-9A-F]{1,6}\})+")
_CODE_POINT = re.compile(r"\\x\{([0-9A-F]{1,6})\}")
_EMBEDDED = r"\x"
_NOT_QCHAR = re.compile(r"[^!-*,-<>-\[\]-~]")


def encode_xtext(text: str) -> str:
    """Write text as xtext: octets of its UTF-8 that are not printable, and "+" and "=", become "+HH"."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(
        chr(octet) if 33 <= octet <= 126 and octet not in b"+=" else f"+{octet:02X}" for octet in text.encode()
    )


def is_plain(text: str) -> bool:
    """Whether text is its own xtext: printable ASCII, without spaces, "+" and "="."""
    return _PLAIN.fullmatch(text) is not None


def decode_xtext(text: str) -> str | None:
    """Read xtext; None when it is none, or when it hides what is not printable ASCII (RFC 3461 4.4)."""
    if _XTEXT.fullmatch(text) is None:
        return None
    if "+" not in text:
        return text
    decoded = _HEX.sub(lambda found: chr(int(found.group(1), 16)), text)
    return decoded if _PRINTABLE.fullmatch(decoded) else None


def encode_orcpt(orcpt: str) -> str:
    """Write "type;address" as ORCPT's value: xtext, and for the type utf-8 the ASCII form of RFC 6533 3."""
    kind, _, address = orcpt.partition(";")
    if kind.lower() == "utf-8":
        return f"{kind};" + _NOT_QCHAR.sub(lambda found: f"{_EMBEDDED}{{{ord(found.group()):X}}}", address)
    return f"{kind};{encode_xtext(address)}"


def decode_orcpt(value: str) -> str | None:
    """Read ORCPT's value into "type;address"; None when it is malformed.

    Letters keep their case in the type, too: it is passed on as it is (RFC 3461 5.2.1 d).
    """
    kind, semicolon, encoded = value.partition(";")
    if not semicolon or not encoded or _ADDRESS_TYPE.fullmatch(kind) is None:
        return None
    address = _decode_utf8_address(encoded) if kind.lower() == "utf-8" else decode_xtext(encoded)
    return f"{kind};{address}" if address else None


def _decode_utf8_address(encoded: str) -> str | None:
    if _UTF8_ADDRESS.fullmatch(encoded) is None:
        return None
    points = [int(digits, 16) for digits in _CODE_POINT.findall(encoded)]
    if any(point < 0x20 or 0x7F <= point < 0xA0 or 0xD800 <= point < 0xE000 or point > 0x10FFFF for point in points):
        return None
    return _CODE_POINT.sub(lambda found: chr(int(found.group(1), 16)), encoded)
