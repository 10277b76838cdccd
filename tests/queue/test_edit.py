"""The header edit: trace, missing fields, private fields, rewriting, completed addresses, wishes."""

import msgspec
import pytest

from smarthost.mail.envelope import Envelope, Priority, Recipient
from smarthost.mail.message import Arrival, format_id
from smarthost.mail.reply import Reply
from smarthost.policy.admission import Submission, User
from smarthost.policy.rewriting import Rewrite, Rewriter
from smarthost.queue.edit import Edited, EditRules, edit_header
from smarthost.wire.header import parse_fields

ARRIVAL = Arrival(at=1_790_000_000.0, door="d", client="192.0.2.7", ehlo="app.example.org", protocol="ESMTPSA")
ID = format_id(1 << 50)
ENVELOPE = Envelope("a@example.org", (Recipient("b@example.net", "example.net"),))


def rules(**changes: object) -> EditRules:
    """Make rules with some submission settings or parts changed."""
    rewrites = changes.pop("rewrites", ())
    users, routes = changes.pop("users", {}), changes.pop("routes", frozenset())
    return EditRules(
        hostname="relay.example.org",
        default_domain="example.org",
        submission=Submission(**changes),  # type: ignore[arg-type]
        rewriter=Rewriter(rewrites),  # type: ignore[arg-type]
        users=users,  # type: ignore[arg-type]
        routes=routes,  # type: ignore[arg-type]
    )


def edit(header: bytes, envelope: Envelope = ENVELOPE, arrival: Arrival = ARRIVAL, **changes: object) -> Edited:
    """Edit a header that is expected to pass."""
    edited = edit_header(parse_fields(header), ID, arrival, envelope, rules(**changes))
    assert isinstance(edited, Edited), edited
    return edited


def names(edited: Edited) -> list[bytes]:
    """Give the field names in order."""
    return [name for name, _ in edited.fields]


def test_received_is_prepended_and_missing_fields_are_added() -> None:
    """A bare Subject gets Received in front and Date, From, Message-ID behind."""
    edited = edit(b"Subject: x\r\n")
    assert names(edited) == [b"received", b"subject", b"date", b"from", b"message-id"]
    octets = edited.octets
    assert octets.startswith(b"Received: from app.example.org ([192.0.2.7])")
    assert b"with ESMTPSA" in octets and b"for <b@example.net>" in octets
    assert b"From: <a@example.org>\r\n" in octets
    assert octets.endswith(b"\r\n\r\n")
    assert edited.from_domain == "example.org"


def test_missing_fields_are_left_out_when_asked() -> None:
    """add_missing_headers = false adds only the trace."""
    assert names(edit(b"Subject: x\r\n", add_missing_headers=False)) == [b"received", b"subject"]


@pytest.mark.parametrize("others", [0, 200])
def test_only_what_is_missing_is_added(others: int) -> None:
    """What is there in any case of letters is not added again, among few fields and among many."""
    header = b"X-Other: x\r\n" * others + b"MESSAGE-ID: <1@b.example>\r\nfrom: root@b.example\r\nCc: root\r\n"
    edited = edit(header)
    assert names(edited)[others + 1 :] == [b"message-id", b"from", b"cc", b"date"]
    assert b"Cc: root@example.org\r\n" in edited.octets
    assert edited.from_domain == "b.example"


def test_private_fields_are_removed() -> None:
    """Bcc, Return-Path and every X-Smarthost field never leave."""
    header = b"From: a@example.org\r\nBcc: secret@example.org\r\nReturn-Path: <x@y>\r\nX-Smarthost-Tag: bulk\r\n"
    edited = edit(header)
    assert names(edited) == [b"received", b"from", b"date", b"message-id"]
    assert b"Smarthost" not in edited.octets and b"secret" not in edited.octets
    assert edited.tag == "bulk"


def test_several_recipients_are_not_shown_to_each_other() -> None:
    """The FOR clause is left out with two recipients."""
    two = Envelope("a@example.org", (Recipient("b@x.net", "x.net"), Recipient("c@x.net", "x.net")))
    assert b" for <" not in edit(b"Subject: x\r\n", two).octets


def test_too_many_hops_is_refused() -> None:
    """More Received fields than max_hops is a loop: 554 5.4.6."""
    header = b"Received: by x; now\r\n" * 4 + b"From: a@b.example\r\n"
    refusal = edit_header(parse_fields(header), ID, ARRIVAL, ENVELOPE, rules(max_hops=3))
    assert isinstance(refusal, Reply) and str(refusal).startswith("554 5.4.6")
    assert isinstance(edit_header(parse_fields(header), ID, ARRIVAL, ENVELOPE, rules(max_hops=4)), Edited)


def test_root_at_host_is_rewritten_everywhere() -> None:
    """The first thing that a user of a provider meets: reverse-path and header From of root@host."""
    rewrites = (Rewrite("root@*", reverse_path="alerts@example.org", header_from="alerts@example.org"),)
    cron = Envelope("root@box.internal", ENVELOPE.recipients)
    edited = edit(b"From: root (Cron Daemon)\r\nSubject: x\r\n", cron, rewrites=rewrites)
    assert edited.envelope.reverse_path == "alerts@example.org"
    assert b"alerts@example.org" in edited.octets and b"root@" not in edited.octets
    assert edited.from_domain == "example.org"


def test_recipient_rewriting_changes_the_domain_too() -> None:
    """A rewritten recipient is routed by its new domain."""
    edited = edit(b"From: a@b.example\r\n", rewrites=(Rewrite("b@example.net", recipient="ops@corp.example"),))
    assert edited.envelope.recipients[0].address == "ops@corp.example"
    assert edited.envelope.recipients[0].domain == "corp.example"


def test_addresses_without_a_domain_are_completed() -> None:
    """From: root becomes root@default_domain."""
    assert b"root@example.org" in edit(b"From: root\r\nTo: admin\r\n").octets


def test_a_user_may_not_write_anothers_from() -> None:
    """allowed_senders binds the header From: 553 5.7.1."""
    users = {"app": User("app", "$argon2id$x", ("*@example.org",))}
    arrival = Arrival(at=1.0, identity="app")
    refusal = edit_header(parse_fields(b"From: ceo@bank.example\r\n"), ID, arrival, ENVELOPE, rules(users=users))
    assert isinstance(refusal, Reply) and str(refusal).startswith("553 5.7.1")
    edit(b"From: me@example.org\r\n", arrival=arrival, users=users)


def test_a_user_may_choose_the_routes_that_it_is_allowed() -> None:
    """X-Smarthost-Route names a route of the configuration and of the user's list; all else is refused, 554 5.7.1."""
    users = {"app": User("app", "x", allowed_routes=("bulk", "gone")), "root": User("root", "x", allowed_routes=("*",))}
    more = {"users": users, "routes": frozenset({"bulk", "mx"})}

    def choose(identity: str, route: str) -> Edited | Reply:
        fields = parse_fields(b"From: a@b.example\r\nX-Smarthost-Route: " + route.encode() + b"\r\n")
        return edit_header(fields, ID, Arrival(at=1.0, identity=identity), ENVELOPE, rules(**more))

    for identity, route in (("app", "bulk"), ("root", "bulk"), ("root", "mx")):
        chosen = choose(identity, route)
        assert isinstance(chosen, Edited) and chosen.route == route and b"Smarthost" not in chosen.octets
    for identity, route in (("app", "mx"), ("app", "gone"), ("root", "*"), ("", "bulk"), ("nobody", "bulk")):
        refusal = choose(identity, route)
        assert isinstance(refusal, Reply) and str(refusal).startswith("554 5.7.1"), (identity, route)


@pytest.mark.parametrize(
    "field",
    [
        b"X-Smarthost-Tag: two words",
        b"X-Smarthost-Priority: asap",
        b"X-Smarthost-Send-At: tomorrow",
        b"X-Smarthost-Send-At: 2026-12-01T10:00:00",
        b"X-Smarthost-Send-At: 9999-12-31T23:59:59-12:00",
    ],
)
def test_a_wish_that_cannot_be_read_is_refused(field: bytes) -> None:
    """A typing error in a private field is told, not ignored."""
    refusal = edit_header(parse_fields(field + b"\r\n"), ID, ARRIVAL, ENVELOPE, rules())
    assert isinstance(refusal, Reply) and refusal.code == 554


def test_wishes_are_read() -> None:
    """Priority and send time come out of the header."""
    edited = edit(b"X-Smarthost-Priority: High\r\nX-Smarthost-Send-At: 2026-12-01T10:00:00Z\r\n")
    assert edited.envelope.priority is Priority.HIGH
    assert edited.envelope.hold_until == 1796119200.0


def test_utf8_is_measured() -> None:
    """Raw UTF-8 in the header needs SMTPUTF8; an encoded word does not."""
    assert edit("Subject: grüße\r\n".encode()).utf8
    assert not edit(b"Subject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\n").utf8


@pytest.mark.parametrize(
    "header",
    [
        b"From: a@example.org\r\nFrom: ceo@other.example\r\n",
        b"From: a@example.org, ceo@other.example\r\n",
        b"From: us: a@example.org, ceo@other.example;\r\n",
        b'From: "a@example.org" <ceo@other.example>\r\n',
        b"From: (a@example.org) ceo@other.example\r\n",
        b"From: ceo@other.example <>\r\n",
        b"From : ceo@other.example\r\n",
        b"FROM:\r\n ceo@other.example\r\n",
    ],
)
def test_a_user_signs_for_nobody_else(header: bytes) -> None:
    """However a From is written, each author in it has to be one that the user may send as; else 553 5.7.1."""
    user = User("app1", "$argon2id$", allowed_senders=("*@example.org",))
    arrival = msgspec.structs.replace(ARRIVAL, identity="app1")
    refusal = edit_header(parse_fields(header), ID, arrival, ENVELOPE, rules(users={"app1": user}))
    assert isinstance(refusal, Reply) and (refusal.code, str(refusal.status)) == (553, "5.7.1")


def test_a_user_may_be_several_authors() -> None:
    """Several authors are fine where the user may send as each of them; "root" is completed before."""
    user = User("app1", "$argon2id$", allowed_senders=("*@example.org",))
    arrival = msgspec.structs.replace(ARRIVAL, identity="app1")
    header = b'From: "ceo@other.example" <a@example.org>, root\r\nSender: a@example.org\r\n'
    assert edit(header, arrival=arrival, users={"app1": user}).from_domain == "example.org"


@pytest.mark.parametrize(
    ("header", "requiretls", "is_optional"),
    [
        (b"TLS-Required: No\r\n", False, True),
        (b"tls-required:no\r\n", False, True),
        (b"TLS-Required:\r\n NO \r\n", False, True),
        (b"TLS-Required: Yes\r\n", False, False),
        (b"TLS-Required: No; really\r\n", False, False),
        (b"TLS-Required: No\r\nTLS-Required: Yes\r\n", False, False),
        (b"X-TLS-Required: No\r\n", False, False),
        (b"TLS-Required: No\r\n", True, False),
    ],
)
def test_tls_may_be_optional(header: bytes, requiretls: bool, is_optional: bool) -> None:
    """TLS-Required: No is kept with the envelope and stays in the header; REQUIRETLS stands above it (RFC 8689)."""
    edited = edit(header, msgspec.structs.replace(ENVELOPE, requiretls=requiretls))
    assert edited.envelope.tls_optional is is_optional
    assert b"".join(raw for name, raw in edited.fields if name.endswith(b"tls-required")) == header
