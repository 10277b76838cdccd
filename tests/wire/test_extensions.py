"""EHLO keyword lines and Extensions say the same."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smarthost.wire.extensions import Extensions, format_ehlo
from smarthost.wire.reply_reader import ReplyReader

FLAGS = (
    "pipelining",
    "eight_bit_mime",
    "smtputf8",
    "enhanced_status_codes",
    "dsn",
    "chunking",
    "starttls",
    "requiretls",
    "mt_priority",
)
EXTENSIONS = st.builds(
    Extensions,
    **{flag: st.booleans() for flag in FLAGS},
    size=st.one_of(st.none(), st.integers(0, 10**12)),
    auth=st.lists(st.sampled_from(["PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2"]), unique=True).map(tuple),
    max_recipients=st.integers(0, 1000),
    max_transactions=st.integers(0, 1000),
    max_domains=st.integers(0, 1000),
)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["relay.example greets you"], Extensions()),
        (["PIPELINING"], Extensions()),
        (["x", "pipelining", "Size 100", "8bitmime"], Extensions(pipelining=True, size=100, eight_bit_mime=True)),
        (["x", "SIZE"], Extensions(size=0)),
        (["x", "SIZE 0"], Extensions(size=0)),
        (["x", "SIZE lots"], Extensions(size=0)),
        (["x", "AUTH=LOGIN PLAIN"], Extensions(auth=("LOGIN", "PLAIN"))),
        (["x", "AUTH PLAIN LOGIN", "AUTH=LOGIN PLAIN"], Extensions(auth=("PLAIN", "LOGIN"))),
        (["x", "LIMITS RCPTMAX=20 MAILMAX=5 OTHER"], Extensions(max_recipients=20, max_transactions=5)),
        (["x", "LIMITS RCPTDOMAINMAX=1"], Extensions(max_domains=1)),
        (["x", "MT-PRIORITY MIXER"], Extensions(mt_priority=True)),
        (
            ["x", "FUTURERELEASE 86400 2026-12-01T00:00:00Z"],
            Extensions(hold_for=86400, hold_until="2026-12-01T00:00:00Z"),
        ),
        (["x", "FUTURERELEASE"], Extensions()),
        (["x", "", "XFOO bar", "DSN", "DSN"], Extensions(dsn=True)),
    ],
)
def test_lines_are_read(lines: list[str], expected: Extensions) -> None:
    """Old, odd and unknown lines are read without complaint."""
    assert Extensions.parse(lines) == expected


@settings(max_examples=60)
@given(EXTENSIONS)
def test_twice_round(extensions: Extensions) -> None:
    """What our server offers, our client reads."""
    (reply,) = ReplyReader().feed(format_ehlo("relay.example.org", extensions))
    assert reply.lines[0] == "relay.example.org"
    assert Extensions.parse(reply.lines) == extensions
