"""Compares a DKIM key with the key record that DNS has for it."""

import asyncio
import os

import msgspec

from smarthost.crypto.dkim_keys import SigningKey, public_record
from smarthost.network.dns_query import make_stub


class Comparison(msgspec.Struct, frozen=True):
    """What was found, as a sentence, and the exit code that it means: 0, 75 (DNS did not answer) or 78."""

    exit_code: int
    sentence: str


def compare_record(key: SigningKey, servers: tuple[str, ...] = ()) -> Comparison:
    """Ask DNS for a key's record and compare; raises ValueError when a server is no address."""
    try:
        records = asyncio.run(_fetch(key.record_name, servers))
    except LookupError as fault:
        return Comparison(os.EX_TEMPFAIL, f"DNS did not answer: {fault}")
    return judge_records(key, records)


def judge_records(key: SigningKey, records: list[str]) -> Comparison:
    """Compare a key with the texts of the TXT records at its name (RFC 6376 3.6.1, 3.6.2.2)."""
    candidates = [tags for record in records if "p" in (tags := _read_tags(record))]
    if not candidates:
        return Comparison(os.EX_CONFIG, "there is no key record; smarthost dkim show prints it")
    if len(candidates) > 1:
        return Comparison(os.EX_CONFIG, f"there are {len(candidates)} key records; receivers take any of them or none")
    found, wanted = candidates[0], _read_tags(public_record(key))
    if not found["p"]:
        return Comparison(os.EX_CONFIG, "the record revokes this key (p= is empty)")
    if found.get("v", "DKIM1") != "DKIM1":
        return Comparison(os.EX_CONFIG, f"the record has version {found['v']!r}; receivers ignore it")
    if found.get("k", "rsa") != wanted["k"]:
        return Comparison(os.EX_CONFIG, f"the record is for {found.get('k', 'rsa')}, the key is {wanted['k']}")
    if found["p"] != wanted["p"]:
        return Comparison(os.EX_CONFIG, "the record holds another public key")
    if "y" in found.get("t", "").split(":"):
        return Comparison(os.EX_OK, "the record fits the key, but says that the domain is testing (t=y)")
    return Comparison(os.EX_OK, "the record fits the key")


def _read_tags(record: str) -> dict[str, str]:
    """Read a tag list (RFC 6376 3.2); white space inside values does not count."""
    tags = {}
    for tag in record.split(";"):
        name, separator, value = tag.partition("=")
        if separator:
            tags[name.strip()] = "".join(value.split())
    return tags


async def _fetch(name: str, servers: tuple[str, ...]) -> list[str]:
    """Give the texts of the TXT records at a name, [] when there are none; raises LookupError when DNS is no help."""
    stub = make_stub(servers)
    try:
        answer = await stub.resolve(f"{name}.", "TXT", raise_on_no_answer=False, search=False)
    except Exception as fault:  # the resolver library's exceptions are known by name in network/ alone
        if type(fault).__name__ == "NXDOMAIN":
            return []
        raise LookupError(str(fault) or type(fault).__name__) from None
    return [b"".join(record.strings).decode("utf-8", "replace") for record in answer.rrset or ()]
