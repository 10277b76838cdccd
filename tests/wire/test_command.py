"""MAIL and RCPT are read as the RFCs write them, refused with the right codes, and read back equal."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smarthost.mail.envelope import Body, Notify, Recipient, Ret
from smarthost.mail.reply import Reply
from smarthost.wire.command import MailCommand, RcptCommand, format_mail, format_rcpt, parse_mail, parse_rcpt
from smarthost.wire.submission import add_priority
from smarthost.wire.xtext import decode_orcpt, decode_xtext, encode_orcpt, encode_xtext

ADDRESS = st.sampled_from(
    [
        "a@b.example",
        "first.last@sub.example.org",
        "a+b=c@x.example",
        '"a b"@x.example',
        "jö@exämple.org",
        "x@[192.0.2.1]",
    ]
)
PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)


@pytest.mark.parametrize(
    ("argument", "command"),
    [
        ("FROM:<a@b.c>", MailCommand("a@b.c")),
        ("from:<a@b.c>", MailCommand("a@b.c")),
        ("FROM: <a@b.c>", MailCommand("a@b.c")),
        ("FROM:   <a@b.c>  ", MailCommand("a@b.c")),
        ("FROM:<>", MailCommand("")),
        ("FROM:<root>", MailCommand("root")),
        ("FROM:<@x,@y:a@b>", MailCommand("a@b")),
        ('FROM:<"a > b"@c>', MailCommand('"a > b"@c')),
        ("FROM:<a@b> SIZE=12", MailCommand("a@b", 12)),
        ("FROM:<a@b> size=12 body=8bitmime", MailCommand("a@b", 12, Body.EIGHT_BIT_MIME)),
        ("FROM:<a@b> BODY=7BIT SIZE=12", MailCommand("a@b", 12)),
        ("FROM:<ä@b> SMTPUTF8", MailCommand("ä@b", smtputf8=True)),
        ("FROM:<a@b> SIZE=1 BODY=8BITMIME SMTPUTF8", MailCommand("a@b", 1, Body.EIGHT_BIT_MIME, True)),
        ("FROM:<a@b> RET=hdrs ENVID=Q+2BQ+20x", MailCommand("a@b", ret=Ret.HDRS, envid="Q+Q x")),
        ("FROM:<a@b>  RET=FULL", MailCommand("a@b", ret=Ret.FULL)),
        ("FROM:<> AUTH=<>", MailCommand("", auth="")),
        ("FROM:<a@b> AUTH=e+3Dmc2@example.com", MailCommand("a@b", auth="e=mc2@example.com")),
        ("FROM:<a@b> SIZE=9 requiretls", MailCommand("a@b", 9, requiretls=True)),
        ("FROM:<a@b> HOLDFOR=999999999", MailCommand("a@b", hold_for=999999999)),
        ("FROM:<a@b> holduntil=2026-12-01T10:00:00z", MailCommand("a@b", hold_until=1796119200.0)),
        ("FROM:<a@b> HOLDUNTIL=2026-12-01T12:00:00.5+02:00", MailCommand("a@b", hold_until=1796119200.5)),
        ("FROM:<a@b> HOLDUNTIL=2026-12-01T09:59:60Z", MailCommand("a@b", hold_until=1796119199.0)),
        ("FROM:<a@b> HOLDUNTIL=0001-01-01T00:00:00Z", MailCommand("a@b")),
        ("FROM:<a@b> HOLDUNTIL=1969-01-01T00:00:00Z", MailCommand("a@b")),
        ("FROM:<a@b> MT-PRIORITY=-9", MailCommand("a@b", mt_priority=-9)),
        ("FROM:<a@b> MT-PRIORITY=0 SIZE=7", MailCommand("a@b", 7, mt_priority=0)),
    ],
)
def test_mail_is_read(argument: str, command: MailCommand) -> None:
    """Each legal form gives its command."""
    assert parse_mail(argument) == command


@pytest.mark.parametrize(
    ("argument", "code", "status"),
    [
        ("", 501, "5.5.4"),
        ("<a@b>", 501, "5.5.4"),
        ("TO:<a@b>", 501, "5.5.4"),
        ("FROM", 501, "5.5.4"),
        ("FROM:", 501, "5.1.7"),
        ("FROM:a@b", 501, "5.1.7"),
        ("FROM:<a@b", 501, "5.1.7"),
        ("FROM:<a b@c>", 501, "5.1.7"),
        ("FROM:<a@b@c>", 501, "5.1.7"),
        ("FROM:<a..b@c>", 501, "5.1.7"),
        ("FROM:<a@b\r\nRCPT TO:<x@y>", 501, "5.1.7"),
        ("FROM:<a\0@b>", 501, "5.1.7"),
        ("FROM:<" + "a" * 65 + "@b>", 501, "5.1.7"),
        ("FROM:<a@" + "b" * 300 + ">", 501, "5.1.7"),
        ("FROM:<a@b>SIZE=1", 501, "5.1.7"),
        ("FROM:<a@b> SIZE", 501, "5.5.4"),
        ("FROM:<a@b> SIZE=", 501, "5.5.4"),
        ("FROM:<a@b> SIZE=x", 501, "5.5.4"),
        ("FROM:<a@b> SIZE=-1", 501, "5.5.4"),
        ("FROM:<a@b> SIZE=" + "1" * 21, 501, "5.5.4"),
        ("FROM:<a@b> SIZE=1 SIZE=1", 501, "5.5.4"),
        ("FROM:<a@b> BODY=BINARYMIME", 501, "5.5.4"),
        ("FROM:<a@b> SMTPUTF8=1", 501, "5.5.4"),
        ("FROM:<a@b> RET=SOME", 501, "5.5.4"),
        ("FROM:<a@b> RET=FULL RET=FULL", 501, "5.5.4"),
        ("FROM:<a@b> ENVID=" + "x" * 101, 501, "5.5.4"),
        ("FROM:<a@b> ENVID=a+0D+0Ab", 501, "5.5.4"),
        ("FROM:<a@b> ENVID=a+2", 501, "5.5.4"),
        ("FROM:<a@b> ENVID=a=b", 501, "5.5.4"),
        ("FROM:<a@b> -X=1", 501, "5.5.4"),
        ("FROM:<a@b> MT-PRIORITY=10", 501, "5.5.4"),
        ("FROM:<a@b> MT-PRIORITY=-0", 501, "5.5.4"),
        ("FROM:<a@b> MT-PRIORITY=+1", 501, "5.5.4"),
        ("FROM:<a@b> MT-PRIORITY", 501, "5.5.4"),
        ("FROM:<a@b> MT-PRIORITY=1 MT-PRIORITY=1", 501, "5.5.4"),
        ("FROM:<a@b> HOLDFOR", 501, "5.5.4"),
        ("FROM:<a@b> HOLDFOR=-1", 501, "5.5.4"),
        ("FROM:<a@b> HOLDFOR=1234567890", 501, "5.5.4"),
        ("FROM:<a@b> HOLDFOR=1.5", 501, "5.5.4"),
        ("FROM:<a@b> HOLDFOR=0", 501, "5.5.4"),
        ("FROM:<a@b> HOLDFOR=01", 501, "5.5.4"),
        ("FROM:<a@b> RET=FULL RET=HDRS", 501, "5.5.4"),
        ("FROM:<a@b> ENVID=a ENVID=a", 501, "5.5.4"),
        ("FROM:<a@b> HOLDUNTIL=tomorrow", 501, "5.5.4"),
        ("FROM:<a@b> HOLDUNTIL=2026-02-30T00:00:00Z", 501, "5.5.4"),
        ("FROM:<a@b> HOLDUNTIL=2026-12-01T00:00:00", 501, "5.5.4"),
        ("FROM:<a@b> HOLDUNTIL=2026-12-01 00:00:00Z", 501, "5.5.4"),
        ("FROM:<a@b> HOLDFOR=1 HOLDUNTIL=2026-12-01T00:00:00Z", 501, "5.5.4"),
        ("FROM:<a@b> NOTIFY=NEVER", 555, "5.5.4"),
        ("FROM:<ä@b>", 553, "5.6.7"),
        ("FROM:<a@\u212a.example>", 553, "5.6.7"),
        ("FROM:<\udcff@b> SMTPUTF8", 501, "5.5.2"),
    ],
)
def test_mail_is_refused(argument: str, code: int, status: str) -> None:
    """Each fault gives its own reply."""
    reply = parse_mail(argument)
    assert isinstance(reply, Reply)
    assert (reply.code, str(reply.status)) == (code, status)


@pytest.mark.parametrize(
    ("argument", "command"),
    [
        ("TO:<a@b.c>", RcptCommand("a@b.c", "b.c")),
        ("to: <a@B.c>", RcptCommand("a@B.c", "B.c")),
        ("TO:<postmaster>", RcptCommand("postmaster", "")),
        ("TO:<Postmaster>", RcptCommand("Postmaster", "")),
        ("TO:<@x,@y:a@b>", RcptCommand("a@b", "b")),
        ("TO:<a@[192.0.2.1]>", RcptCommand("a@[192.0.2.1]", "[192.0.2.1]")),
        ("TO:<ä@b>", RcptCommand("ä@b", "b")),
        ("TO:<a@b> NOTIFY=never", RcptCommand("a@b", "b", Notify.NEVER)),
        ("TO:<a@b> NOTIFY=SUCCESS,DELAY", RcptCommand("a@b", "b", Notify.SUCCESS | Notify.DELAY)),
        ("TO:<a@b> ORCPT=RFC822;x+2By@z", RcptCommand("a@b", "b", orcpt="RFC822;x+y@z")),
        ("TO:<a@b> ORCPT=utf-8;\\x{E4}@z", RcptCommand("a@b", "b", orcpt="utf-8;ä@z")),
        ("TO:<a@b> ORCPT=utf-8;ä@z NOTIFY=FAILURE", RcptCommand("a@b", "b", Notify.FAILURE, "utf-8;ä@z")),
    ],
)
def test_rcpt_is_read(argument: str, command: RcptCommand) -> None:
    """Each legal form gives its command."""
    assert parse_rcpt(argument) == command


@pytest.mark.parametrize(
    ("argument", "code", "status"),
    [
        ("FROM:<a@b>", 501, "5.5.4"),
        ("TO:<>", 501, "5.1.3"),
        ("TO:a@b", 501, "5.1.3"),
        ("TO:<a@-b>", 501, "5.1.3"),
        ("TO:<a@b> NOTIFY=NEVER,SUCCESS", 501, "5.5.4"),
        ("TO:<a@b> NOTIFY=", 501, "5.5.4"),
        ("TO:<a@b> NOTIFY=UNSPECIFIED", 501, "5.5.4"),
        ("TO:<a@b> NOTIFY=DELAY NOTIFY=DELAY", 501, "5.5.4"),
        ("TO:<a@b> ORCPT=a@b", 501, "5.5.4"),
        ("TO:<a@b> ORCPT=rfc822;", 501, "5.5.4"),
        ("TO:<a@b> ORCPT=rfc822;a+0A", 501, "5.5.4"),
        ("TO:<a@b> ORCPT=utf-8;\\x{D800}", 501, "5.5.4"),
        ("TO:<a@b> ORCPT=utf-8;\\x{A}", 501, "5.5.4"),
        ("TO:<a@b> ORCPT=rfc822;" + "x" * 500, 501, "5.5.4"),
        ("TO:<a@b> SIZE=1", 555, "5.5.4"),
    ],
)
def test_rcpt_is_refused(argument: str, code: int, status: str) -> None:
    """Each fault gives its own reply."""
    reply = parse_rcpt(argument)
    assert isinstance(reply, Reply)
    assert (reply.code, str(reply.status)) == (code, status)


def test_rcpt_outside_of_smtputf8_is_ascii() -> None:
    """A non-ASCII recipient is refused where MAIL had no SMTPUTF8."""
    reply = parse_rcpt("TO:<ä@b>", smtputf8=False)
    assert isinstance(reply, Reply)
    assert (reply.code, str(reply.status)) == (553, "5.6.7")
    assert parse_rcpt("TO:<a@b>", smtputf8=False) == RcptCommand("a@b", "b")


@settings(max_examples=100)
@given(
    st.one_of(st.just(""), ADDRESS),
    st.one_of(st.none(), st.integers(0, 10**19)),
    st.sampled_from([None, *Body]),
    st.sampled_from([None, *Ret]),
    PRINTABLE,
)
def test_mail_twice_round(reverse_path: str, size: int | None, body: Body | None, ret: Ret | None, envid: str) -> None:
    """What the client side writes, the server side reads."""
    octets = format_mail(reverse_path, size=size, body=body, smtputf8=True, ret=ret, envid=envid)
    assert octets.startswith(b"MAIL FROM:<")
    assert octets.endswith(b"\r\n")
    assert parse_mail(octets[5:-2].decode()) == MailCommand(
        reverse_path, size or 0, body or Body.SEVEN_BIT, True, ret, envid
    )


@settings(max_examples=100)
@given(
    ADDRESS,
    st.sampled_from([0, 1, 2, 4, 6, 8, 14]),
    st.sampled_from(["", "rfc822;x+y=z @w", 'utf-8;jö+\\"=x@ü', "x400;/c=de/"]),
)
def test_rcpt_twice_round(address: str, notify: int, orcpt: str) -> None:
    """What the client side writes, the server side reads; an ORCPT is added where there was none."""
    domain = address.rpartition("@")[2]
    octets = format_rcpt(Recipient(address, domain, notify, orcpt), dsn=True)
    read = parse_rcpt(octets[5:-2].decode())
    kind = "rfc822" if address.isascii() else "utf-8"
    assert read == RcptCommand(address, domain, Notify(notify), orcpt or f"{kind};{address}")


def test_without_dsn_nothing_of_it_is_sent() -> None:
    """A peer that does not offer DSN gets the bare path; UTF-8 goes out as UTF-8."""
    assert format_rcpt(Recipient("ä@b", "b", 2, "rfc822;x@y"), dsn=False) == "RCPT TO:<ä@b>\r\n".encode()


def test_a_priority_is_passed_on() -> None:
    """MT-PRIORITY is written as it is read."""
    command = add_priority(format_mail("a@b", size=7), -4)
    assert command == b"MAIL FROM:<a@b> SIZE=7 MT-PRIORITY=-4\r\n"
    assert parse_mail(command[5:-2].decode()) == MailCommand("a@b", 7, mt_priority=-4)


def test_line_ends_cannot_be_written() -> None:
    """No path can smuggle a second command."""
    with pytest.raises(ValueError, match="line end"):
        format_mail("a@b>\r\nRCPT TO:<x@y")
    with pytest.raises(ValueError, match="line end"):
        format_rcpt(Recipient("a@b\n", "b"), dsn=False)


@settings(max_examples=100)
@given(PRINTABLE)
def test_xtext_twice_round(text: str) -> None:
    """xtext gives back any printable text."""
    encoded = encode_xtext(text)
    assert decode_xtext(encoded) == text
    assert not set(encoded) & set(" =")


@settings(max_examples=100)
@given(st.text(st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=["Cc", "Cs"]), min_size=1))
def test_utf8_orcpt_twice_round(address: str) -> None:
    """An internationalised original recipient survives in ASCII."""
    encoded = encode_orcpt(f"utf-8;{address}")
    assert encoded.isascii()
    assert decode_orcpt(encoded) == f"utf-8;{address}"


@settings(max_examples=100)
@given(st.text(max_size=80))
def test_any_argument_gives_a_command_or_a_reply(text: str) -> None:
    """Nothing is ever raised, whatever a client sends."""
    for argument in (text, "FROM:<a@b> " + text, "FROM:" + text, "FROM:<" + text + ">"):
        assert isinstance(parse_mail(argument), MailCommand | Reply)
    for argument in (text, "TO:<a@b> " + text, "TO:" + text, "TO:<" + text + ">"):
        assert isinstance(parse_rcpt(argument), RcptCommand | Reply)


@pytest.mark.parametrize("value", ["RFC822;Bob+2B1@z", "rfc822;bob@z", "X.400;c=DE", "UTF-8;\\x{E4}@z"])
def test_an_original_recipient_is_passed_on_as_it_came(value: str) -> None:
    """Not even the case of a letter changes (RFC 3461 5.2.1 d)."""
    if "=" in value:
        value = value.replace("=", "+3D")
    decoded = decode_orcpt(value)
    assert decoded is not None and encode_orcpt(decoded) == value
