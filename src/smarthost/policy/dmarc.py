"""Decides what DMARC makes of a message: reads policies, finds organisational domains, judges alignment (RFC 9989)."""

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

MOST_QUESTIONS = 8  # of one walk up the tree (RFC 9989 4.10)


class DmarcPolicy(StrEnum):
    """What a domain asks receivers to do with mail that fails (RFC 9989 4.7)."""

    NONE = "none"
    QUARANTINE = "quarantine"
    REJECT = "reject"


class DmarcRecord(msgspec.Struct, frozen=True):
    """One policy record. `strict_dkim` and `strict_spf` ask for the same domain, not for the same organisation.

    `of_subdomains` is what holds below the domain; `suffix` is "y" for a public suffix, "n" for an organisational
    domain, "u" where the record leaves it open; `is_test` asks receivers to be one step milder.
    """

    policy: DmarcPolicy
    of_subdomains: DmarcPolicy
    strict_dkim: bool = False
    strict_spf: bool = False
    suffix: str = "u"
    is_test: bool = False


Records = Mapping[str, DmarcRecord]


def parse_dmarc(texts: Sequence[str]) -> DmarcRecord | None:
    """Read the TXT records at one name; None where there is no policy, or more than one (RFC 9989 4.10).

    Without a readable p= there is a policy only if reports are asked for, and it is none (RFC 9989 4.7).
    """
    found = [tags for text in texts if (tags := _read_tags(text)) is not None]
    if len(found) != 1:
        return None
    tags = found[0]
    policy = _read_policy(tags.get("p", ""))
    if policy is None:
        if "rua" not in tags:
            return None
        policy = DmarcPolicy.NONE
    suffix = tags.get("psd", "u").lower()
    return DmarcRecord(
        policy,
        _read_policy(tags.get("sp", "")) or policy,
        tags.get("adkim", "r").lower() == "s",
        tags.get("aspf", "r").lower() == "s",
        suffix if suffix in ("y", "n") else "u",
        tags.get("t", "n").lower() == "y",
    )


def walk(domain: str) -> tuple[str, ...]:
    """Give the domains whose policies are asked for, from a domain upwards: 8 at most, long names with a leap."""
    labels = domain.rstrip(".").split(".")
    above = labels[1:] if len(labels) < MOST_QUESTIONS else labels[-(MOST_QUESTIONS - 1) :]
    return domain.rstrip("."), *(".".join(above[index:]) for index in range(len(above)))


def organisational_domain(domain: str, records: Records) -> str:
    """Give the domain of the organisation that a domain belongs to (RFC 9989 4.10.2).

    `records` are the policies at the names of the walk. No list of public suffixes is asked: where no domain above
    publishes a policy, a domain is an organisation of its own, so that siblings do not align.
    """
    names = walk(domain)
    highest = names[0]
    for index, name in enumerate(names):
        record = records.get(name)
        if record is None:
            continue
        if record.suffix == "n":
            return name
        if record.suffix == "y":
            return names[max(index - 1, 0)] if index else name
        highest = name
    return highest


def find_policy(domain: str, records: Records) -> tuple[str, DmarcPolicy, DmarcRecord] | None:
    """Give where the policy for a From domain stands, what it asks for, and its record; None where there is none.

    The domain's own comes before its organisation's, and that before its public suffix's (RFC 9989 4.10.1).
    """
    names = walk(domain)
    suffix = next((name for name in names[1:] if name in records and records[name].suffix == "y"), "")
    for name in (names[0], organisational_domain(domain, records), suffix):
        record = records.get(name)
        if record is not None:
            return name, record.policy if name == names[0] else record.of_subdomains, record
    return None


def is_aligned(author: str, domain: str, strict: bool, records: Records) -> bool:
    """Whether a domain that was authenticated speaks for the From domain (RFC 9989 4.4); A-labels, in lower case."""
    if author == domain or strict:
        return author == domain
    return organisational_domain(author, records) == organisational_domain(domain, records)


def _read_policy(text: str) -> DmarcPolicy | None:
    text = text.lower()
    return DmarcPolicy(text) if text in tuple(DmarcPolicy) else None


def _read_tags(text: str) -> dict[str, str] | None:
    """Read a tag list; None when it is no policy record. The version stands first, in capitals (RFC 9989 4.7)."""
    version, _, rest = text.partition(";")
    name, equals, value = version.partition("=")
    if not equals or name.strip().lower() != "v" or value.strip() != "DMARC1":
        return None
    pairs = (tag.partition("=") for tag in rest.split(";"))
    return {name.strip().lower(): value.strip() for name, equals, value in pairs if equals}
