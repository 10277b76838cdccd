"""DMARC: records as they are read, walks up the tree, organisational domains, policies and alignment (RFC 9989)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smarthost.policy.dmarc import (
    DmarcPolicy,
    DmarcRecord,
    find_policy,
    is_aligned,
    organisational_domain,
    parse_dmarc,
    walk,
)

NONE, QUARANTINE, REJECT = DmarcPolicy.NONE, DmarcPolicy.QUARANTINE, DmarcPolicy.REJECT


@pytest.mark.parametrize(
    ("texts", "record"),
    [
        (["v=DMARC1; p=reject"], DmarcRecord(REJECT, REJECT)),
        (["v=DMARC1;p=reject;sp=none;adkim=s;aspf=s"], DmarcRecord(REJECT, NONE, True, True)),
        ([" V = DMARC1 ; P = Quarantine ; psd=y; t=y"], DmarcRecord(QUARANTINE, QUARANTINE, suffix="y", is_test=True)),
        (["v=DMARC1; rua=mailto:a@example.org"], DmarcRecord(NONE, NONE)),
        (["v=DMARC1; p=maybe; rua=mailto:a@example.org"], DmarcRecord(NONE, NONE)),
        (["v=DMARC1; p=maybe"], None),
        (["v=DMARC1"], None),
        (["v=dmarc1; p=none"], None),
        (["p=none; v=DMARC1"], None),
        (["v=spf1 -all", "v=DMARC1; p=none"], DmarcRecord(NONE, NONE)),
        (["v=DMARC1; p=none", "v=DMARC1; p=reject"], None),
        (["v=DMARC1; p=none; psd=x; nonsense; =; pct=20"], DmarcRecord(NONE, NONE)),
        ([], None),
    ],
)
def test_records_are_read(texts: list[str], record: DmarcRecord | None) -> None:
    """What RFC 9989 4.7 and 4.10 say of records: one and no more, the version first, unknown tags ignored."""
    assert parse_dmarc(texts) == record


@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    """Whatever stands in DNS, there is a record or there is none."""
    parse_dmarc([text])
    parse_dmarc(["v=DMARC1;" + text])


def test_a_walk_asks_eight_questions_at_most() -> None:
    """Each domain above is asked; of a long name those that are seven labels long and shorter (RFC 9989 4.10)."""
    assert walk("a.example.org") == ("a.example.org", "example.org", "org")
    assert walk("org") == ("org",)
    long = "a.b.c.d.e.f.g.h.i.j.mail.example.com"
    assert walk(long)[:2] == (long, "g.h.i.j.mail.example.com") and walk(long)[-1] == "com"
    assert len(walk(long)) == 8
    assert len(walk("1.2.3.4.5.6.7.8")) == 8


OPEN = DmarcRecord(REJECT, QUARANTINE)
SUFFIX = DmarcRecord(NONE, NONE, suffix="y")
OWN = DmarcRecord(REJECT, REJECT, suffix="n")


@pytest.mark.parametrize(
    ("domain", "records", "organisation", "policy"),
    [
        ("mail.example.org", {"example.org": OPEN}, "example.org", ("example.org", QUARANTINE)),
        ("example.org", {"example.org": OPEN}, "example.org", ("example.org", REJECT)),
        (
            "mail.example.org",
            {"mail.example.org": OPEN, "example.org": OPEN},
            "example.org",
            ("mail.example.org", REJECT),
        ),
        ("a.b.example.org", {"b.example.org": OWN, "example.org": OPEN}, "b.example.org", ("b.example.org", REJECT)),
        ("www.example.gov", {"gov": SUFFIX}, "example.gov", ("gov", NONE)),
        ("www.example.gov", {"gov": SUFFIX, "example.gov": OPEN}, "example.gov", ("example.gov", QUARANTINE)),
        ("gov", {"gov": SUFFIX}, "gov", ("gov", NONE)),
        ("mail.example.org", {}, "mail.example.org", None),
    ],
)
def test_organisations_and_policies(
    domain: str, records: dict[str, DmarcRecord], organisation: str, policy: tuple[str, DmarcPolicy] | None
) -> None:
    """psd=n ends the search, psd=y is the domain below it, else the shortest name that has a policy (RFC 9989 4.10)."""
    assert organisational_domain(domain, records) == organisation
    found = find_policy(domain, records)
    assert (found[:2] if found is not None else None) == policy


@pytest.mark.parametrize(
    ("author", "domain", "strict", "aligned"),
    [
        ("example.org", "example.org", True, True),
        ("example.org", "mail.example.org", True, False),
        ("example.org", "mail.example.org", False, True),
        ("news.example.org", "mail.example.org", False, True),
        ("example.org", "example.net", False, False),
        ("unknown.example", "mail.unknown.example", False, False),
    ],
)
def test_alignment(author: str, domain: str, strict: bool, aligned: bool) -> None:
    """Strict is the same domain, relaxed the same organisation; without any policy every domain is its own."""
    assert is_aligned(author, domain, strict, {"example.org": OPEN, "example.net": OPEN}) is aligned
