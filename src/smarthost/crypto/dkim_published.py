"""Compares a DKIM key with the key record that is published for it."""

from collections.abc import Sequence

import msgspec

from smarthost.crypto.dkim_keys import SigningKey, public_record


class Comparison(msgspec.Struct, frozen=True):
    """Whether receivers can verify what a key signs, and what was found, as a sentence."""

    fits: bool
    sentence: str


def judge_records(key: SigningKey, records: Sequence[str]) -> Comparison:
    """Compare a key with the texts of the TXT records at its name (RFC 6376 3.6.1, 3.6.2.2)."""
    candidates = [tags for record in records if "p" in (tags := _read_tags(record))]
    if not candidates:
        return Comparison(False, "there is no key record; smarthost dkim show prints it")
    if len(candidates) > 1:
        return Comparison(False, f"there are {len(candidates)} key records; receivers take any of them or none")
    found, wanted = candidates[0], _read_tags(public_record(key))
    if not found["p"]:
        return Comparison(False, "the record revokes this key (p= is empty)")
    if found.get("v", "DKIM1") != "DKIM1":
        return Comparison(False, f"the record has version {found['v']!r}; receivers ignore it")
    if found.get("k", "rsa") != wanted["k"]:
        return Comparison(False, f"the record is for {found.get('k', 'rsa')}, the key is {wanted['k']}")
    if found["p"] != wanted["p"]:
        return Comparison(False, "the record holds another public key")
    if "y" in found.get("t", "").split(":"):
        return Comparison(True, "the record fits the key, but says that the domain is testing (t=y)")
    return Comparison(True, "the record fits the key")


def _read_tags(record: str) -> dict[str, str]:
    """Read a tag list (RFC 6376 3.2); white space inside values does not count."""
    tags = {}
    for tag in record.split(";"):
        name, separator, value = tag.partition("=")
        if separator:
            tags[name.strip()] = "".join(value.split())
    return tags
