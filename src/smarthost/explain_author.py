"""Explains under whose name a message would go: signatures and their keys in DNS, SPF, and what DMARC makes of both."""

import asyncio
from collections.abc import Iterable, Sequence

import msgspec

from smarthost.control_verbs import Row
from smarthost.crypto.dkim_keys import Keyring, SigningKey
from smarthost.crypto.dkim_published import judge_records
from smarthost.mail.address import domain_of, to_a_label
from smarthost.mail.envelope import Envelope
from smarthost.mail.message import Message
from smarthost.mail.route import Source
from smarthost.network.dns import DnsFault, Resolver
from smarthost.network.spf import check_spf
from smarthost.policy.dmarc import DmarcRecord, find_policy, is_aligned, organisational_domain, parse_dmarc, walk

AUTHENTICATED_FOR = (
    "the route goes by a relayhost, and who receives the mail sees the relayhost's address: its provider says what the "
    "SPF record must include"
)
PRIVATE = "this is a private address, and others see another one: give it with --address"


class Sending(msgspec.Struct, frozen=True):
    """The message that is asked about, and the address in its header From."""

    message: Message
    author: str

    @property
    def envelope(self) -> Envelope:
        """Its envelope."""
        return self.message.envelope


async def explain_author(keyring: Keyring, resolver: Resolver, sending: Sending, sources: Sequence[Source]) -> Row:
    """Give the rows "signatures", "spf" (for each of our addresses that a session may have) and "dmarc"."""
    author = to_a_label(domain_of(sending.author)) or ""
    row: Row = {
        "signatures": list(await asyncio.gather(*(_explain_key(k, resolver) for k in keyring.for_domain(author))))
    }
    row["spf"] = list(await asyncio.gather(*(_explain_spf(resolver, sending, source) for source in sources)))
    # What passes from some addresses alone does not pass.
    has_passed = bool(row["spf"]) and all(spf["result"] == "pass" for spf in row["spf"])
    spf_domain = row["spf"][0]["domain"] if has_passed else ""
    # Only what receivers can verify counts for them.
    signed = sorted({key["domain"] for key in row["signatures"] if key["published"]})
    row["dmarc"] = await _explain_dmarc(resolver, author, signed, spf_domain)
    return row


async def _explain_key(key: SigningKey, resolver: Resolver) -> Row:
    """Say which key signs, and whether receivers can verify it."""
    found = await resolver.records(key.record_name, "TXT")
    row: Row = {"domain": key.domain, "selector": key.selector, "algorithm": str(key.algorithm)}
    if found.fault is DnsFault.TEMPORARY:
        return row | {"published": None, "text": f"DNS gives no answer about {key.record_name} now"}
    judged = judge_records(key, [text.decode("utf-8", "replace") for text in found.texts])
    return row | {"published": judged.fits, "text": judged.sentence}


async def _explain_spf(resolver: Resolver, sending: Sending, source: Source) -> Row:
    path = sending.envelope.reverse_path
    local, _, domain = path.rpartition("@")
    judged = f"{local}@{to_a_label(domain) or domain}" if path else ""
    found = await check_spf(resolver, source.address, judged, source.hello)
    row: Row = {"address": source.address, "identity": "reverse_path" if path else "ehlo"}
    row |= msgspec.structs.asdict(found)
    return row | {"notes": []}


async def _explain_dmarc(resolver: Resolver, author: str, signed: list[str], spf_domain: str) -> Row:
    """Judge alignment as receivers do: by the tree walk of RFC 9989, without a list of public suffixes."""
    records, fault = await _fetch(resolver, [author, *signed, *filter(None, (spf_domain,))])
    if fault:
        return {"policy": None, "result": "temperror", "text": fault}
    found = find_policy(author, records)
    record = found[2] if found is not None else None
    dkim = [
        domain for domain in signed if is_aligned(author, domain, record is not None and record.strict_dkim, records)
    ]
    spf = bool(spf_domain) and is_aligned(author, spf_domain, record is not None and record.strict_spf, records)
    row: Row = {
        "author_domain": author,
        "organisation": organisational_domain(author, records) if author else "",
        "dkim_aligned": dkim,
        "spf_aligned": spf,
        "result": "pass" if dkim or spf else "fail",
    }
    if found is None or record is None:
        text = f"no policy is published for {author or 'an empty From domain'}; receivers decide by themselves"
        return row | {"policy": None, "text": text}
    row |= {"policy": str(found[1]), "at": f"_dmarc.{found[0]}"}
    row |= {"adkim": "s" if record.strict_dkim else "r", "aspf": "s" if record.strict_spf else "r"}
    return row | {"text": "it passes" if dkim or spf else f"it fails, and {author} asks for: {found[1]}"}


async def _fetch(resolver: Resolver, domains: Iterable[str]) -> tuple[dict[str, DmarcRecord], str]:
    """Ask for the policies of all walks; a sentence instead when DNS gives no answer about one."""
    names = sorted({name for domain in domains if domain for name in walk(domain)})
    answers = await asyncio.gather(*(resolver.records(f"_dmarc.{name}", "TXT") for name in names))
    records = {}
    for name, answer in zip(names, answers, strict=True):
        if answer.fault is DnsFault.TEMPORARY:
            return {}, f"DNS gives no answer about _dmarc.{name} now"
        record = parse_dmarc([text.decode("utf-8", "replace") for text in answer.texts])
        if record is not None:
            records[name] = record
    return records, ""
