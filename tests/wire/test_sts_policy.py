"""MTA-STS records and policies: RFC 8461's own examples, what senders may meet, and which hosts are listed."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smarthost.mail.route import StsMode
from smarthost.wire.sts_policy import MAX_AGE_MOST, StsPolicy, format_policy, read_policy, read_record

# RFC 8461 3.2 and A.1
EXAMPLE = """version: STSv1
mode: enforce
mx: mail.example.com
mx: *.example.net
mx: backupmx.example.com
max_age: 604800
"""


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([b"v=STSv1; id=20160831085700Z;"], "20160831085700Z"),
        ([b"v=STSv1;id=1"], "1"),
        ([b"v=STSv1 ; id = 1 ; more=x"], "1"),
        ([b"v=spf1 -all", b"v=STSv1; id=a"], "a"),
        ([b"v=STSv1; id=a", b"v=STSv1; id=a"], ""),
        ([b"v=STSv1"], ""),
        ([b"v=STSv1; id="], ""),
        ([b"v=STSv1; id=" + b"x" * 33], ""),
        ([b"v=STSv1; id=a-b"], ""),
        ([b"v=STSv1; id=a; id=b"], ""),
        ([b"v=STSv2; id=a"], ""),
        ([b" v=STSv1; id=a"], ""),
        ([b"v=STSv1; id=\xff"], ""),
        ([], ""),
    ],
)
def test_records(texts: list[bytes], found: str) -> None:
    """One record announces a policy by its id; none, two, or one that is malformed announces none."""
    assert read_record(texts) == found


def test_blanks_cost_nothing() -> None:
    """A stranger's policy of 64 KiB of blanks is read in no time: the event loop stands still meanwhile."""
    blanks = " \t" * 32_000
    began = time.process_time()
    policy = read_policy(f"version{blanks}: {blanks}STSv1\nx: a{blanks}b{blanks}\nmode: none\nmax_age: 1\n")
    assert policy == StsPolicy(StsMode.NONE, (), 1)
    assert time.process_time() - began < 1.0  # it took half a minute


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_example_of_the_rfc(end: str) -> None:
    """The policy of RFC 8461 3.2, with either line end, and without the last one."""
    found = read_policy(EXAMPLE.replace("\n", end))
    assert found == StsPolicy(StsMode.ENFORCE, ("mail.example.com", "*.example.net", "backupmx.example.com"), 604800)
    assert read_policy(EXAMPLE.rstrip("\n")) == found


@pytest.mark.parametrize(
    ("host", "listed"),
    [
        ("mail.example.com", True),
        ("MAIL.example.com.", True),
        ("mail2.example.com", False),
        ("mx.example.net", True),
        ("deep.mx.example.net", False),
        ("example.net", False),
        ("mx.example.net.attacker.example", False),
        ("backupmx.example.com", True),
    ],
)
def test_which_hosts_are_listed(host: str, listed: bool) -> None:
    """A wildcard stands for exactly one label (RFC 8461 4.1)."""
    assert read_policy(EXAMPLE).lists(host) is listed


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (EXAMPLE.replace("STSv1", "STSv2"), "version"),
        (EXAMPLE.replace("version: STSv1\n", ""), "version"),
        (EXAMPLE.replace("enforce", "always"), "mode"),
        (EXAMPLE.replace("mode: enforce\n", ""), "mode"),
        (EXAMPLE.replace("604800", "-1"), "max_age"),
        (EXAMPLE.replace("604800", "12345678901"), "max_age"),
        (EXAMPLE.replace("max_age: 604800\n", ""), "max_age"),
        (EXAMPLE.replace("*.example.net", "mx.*.net"), "mail host"),
        (EXAMPLE.replace("*.example.net", "*"), "mail host"),
        (EXAMPLE.replace("*.example.net", "a b"), "mail host"),
        ("version: STSv1\nmode: enforce\nmax_age: 1\n", "listed"),
        ("<html>\n" + EXAMPLE, "field"),
        ("", "version"),
    ],
)
def test_policies_that_are_none(text: str, wrong: str) -> None:
    """What is missing or malformed is said in a sentence."""
    with pytest.raises(ValueError, match=wrong):
        read_policy(text)


def test_what_is_tolerated() -> None:
    """Unknown fields, empty lines, and a max_age beyond the year that is allowed; a repeated field counts once."""
    found = read_policy("\n\nversion: STSv1\nmode:none\nmode: enforce\nfuture_1: x: y\nmax_age: 9999999999\n\n")
    assert found == StsPolicy(StsMode.NONE, (), MAX_AGE_MOST)


_label = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=12)
_names = st.lists(_label, min_size=1, max_size=4).map(".".join)
_pattern = st.tuples(st.sampled_from(("", "*.")), _names).map("".join)


@given(st.sampled_from(StsMode), st.lists(_pattern, min_size=1, max_size=5), st.integers(0, MAX_AGE_MOST))
def test_twice_round(mode: StsMode, mx: list[str], max_age: int) -> None:
    """What is written is read back as it was."""
    policy = StsPolicy(mode, tuple(mx), max_age)
    assert read_policy(format_policy(policy)) == policy


@given(st.text())
def test_any_text_is_a_policy_or_a_sentence(text: str) -> None:
    """Nothing that a server may send does more than raise ValueError."""
    try:
        read_policy(text)
    except ValueError as error:
        assert str(error)


@given(st.binary())
def test_any_octets_are_a_record_or_none(octets: bytes) -> None:
    """Nothing in a TXT record does harm."""
    assert read_record([octets]).isalnum() or not read_record([octets])
