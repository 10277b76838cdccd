"""Reads MTA-STS: the TXT record that announces a policy, and the policy's text (RFC 8461)."""

import re
from collections.abc import Sequence

import msgspec

from smarthost.mail.route import StsMode

MAX_AGE_MOST = 31_557_600  # seconds, RFC 8461 3.2
_ID = re.compile(r"[A-Za-z0-9]{1,32}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
_PATTERN = re.compile(r"(?:\*\.)?[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?)*")
_AGE = re.compile(r"[0-9]{1,10}")


class StsPolicy(msgspec.Struct, frozen=True):
    """A domain's policy: its mode, the patterns of its mail hosts in lower case, and for how many seconds it holds."""

    mode: StsMode
    mx: tuple[str, ...]
    max_age: int

    def lists(self, host: str) -> bool:
        """Whether a mail host is one of the policy's; "*." stands for exactly one label (RFC 8461 4.1)."""
        name = host.rstrip(".").lower()
        above = name.partition(".")[2]
        return any(above == mx[2:] if mx.startswith("*.") else name == mx for mx in self.mx)


def read_record(texts: Sequence[bytes]) -> str:
    """Give the id of the one record among TXT records that begins with v=STSv1; "" where no policy is announced.

    Two of them count as none (RFC 8461 3.1).
    """
    records = [text.decode("ascii", "replace") for text in texts if re.match(rb"v=STSv1[ \t]*(?:;|$)", text)]
    if len(records) != 1:
        return ""
    fields = [field.strip(" \t").partition("=") for field in records[0].split(";")[1:]]
    ids = [value.strip(" \t") for name, _, value in fields if name.strip(" \t") == "id"]
    return ids[0] if len(ids) == 1 and _ID.fullmatch(ids[0]) else ""


def read_policy(text: str) -> StsPolicy:
    """Read a policy's text; unknown fields are skipped, and of a repeated one the first counts (RFC 8461 3.2).

    Lines may end in LF or CRLF. Raises ValueError with a sentence about what is wrong.
    """
    fields: dict[str, list[str]] = {}
    for line in text.replace("\r\n", "\n").split("\n"):
        if not line.strip(" \t"):
            continue
        # No expression for the whole line, which a stranger writes: many blanks would cost the square of their number.
        name, colon, value = line.partition(":")
        name = name.rstrip(" \t")
        if not colon or not _NAME.fullmatch(name):
            raise ValueError("a line is no field")
        fields.setdefault(name, []).append(value.strip(" \t"))
    if fields.get("version", [""])[0] != "STSv1":
        raise ValueError("the version is not STSv1")
    mode, age = fields.get("mode", [""])[0], fields.get("max_age", [""])[0]
    if mode not in StsMode.__members__.values():
        raise ValueError("the mode is none of enforce, testing and none")
    if not _AGE.fullmatch(age):
        raise ValueError("max_age is missing, or no number")
    mx = tuple(pattern.rstrip(".").lower() for pattern in fields.get("mx", ()))
    if wrong := next((pattern for pattern in mx if not _PATTERN.fullmatch(pattern)), ""):
        raise ValueError(f"{wrong[:80]!r} is no name of a mail host")
    if not mx and mode != StsMode.NONE:
        raise ValueError("no mail host is listed")
    return StsPolicy(StsMode(mode), mx, min(int(age), MAX_AGE_MOST))


def format_policy(policy: StsPolicy) -> str:
    """Write a policy's text, as it is kept on disk."""
    hosts = "".join(f"mx: {mx}\n" for mx in policy.mx)
    return f"version: STSv1\nmode: {policy.mode.value}\n{hosts}max_age: {policy.max_age}\n"
