"""A submission is checked with one message for each fault, all at once, and becomes a letter with its envelope."""

import msgspec
import pytest

from smarthost.compose.letter import Letter, check_submission
from smarthost.compose.limits import SubmissionLimits
from smarthost.compose.submission import Submission, convert_submission

LIMITS = SubmissionLimits()
WHOLE = {"from": "a@example.org", "to": "b@example.net", "subject": "s", "text": "t"}


def submission(**fields: object) -> Submission:
    """Make a whole submission of fields that are changed or added; `author` is from."""
    if "author" in fields:
        fields["from"] = fields.pop("author")
    found = convert_submission({**WHOLE, **fields})
    assert isinstance(found, Submission), found
    return found


def letter(**fields: object) -> Letter:
    """Check a submission that has no fault."""
    found = check_submission(submission(**fields), LIMITS)
    assert isinstance(found, Letter), found
    return found


def faults(limits: SubmissionLimits = LIMITS, **fields: object) -> dict[str, str]:
    """Give the faults of a submission by their fields."""
    found = check_submission(submission(**fields), limits)
    assert isinstance(found, tuple), found
    return {fault.field: fault.message for fault in found}


@pytest.mark.parametrize(
    ("given", "name", "address"),
    [
        ("b@example.net", "", "b@example.net"),
        ("  b@example.net ", "", "b@example.net"),
        ("<b@example.net>", "", "b@example.net"),
        ("Bea Bauer <b@example.net>", "Bea Bauer", "b@example.net"),
        ('"Bauer, Bea \\"B\\"" <b@example.net>', 'Bauer, Bea "B"', "b@example.net"),
        ("Béa <b@bücher.example>", "Béa", "b@xn--bcher-kva.example"),
        ({"email": "b@example.net", "name": "Bea, of <b>"}, "Bea, of <b>", "b@example.net"),
        ('"b b"@example.net', "", '"b b"@example.net'),
        ("b@[192.0.2.1]", "", "b@[192.0.2.1]"),
    ],
)
def test_an_address_may_be_written_in_several_ways(given: object, name: str, address: str) -> None:
    """Bare, with a name before it, or as an object."""
    found = letter(to=given).to[0]
    assert (found.name, found.address) == (name, address)


def test_a_text_may_hold_a_list() -> None:
    """Commas separate addresses, but for those in quotes."""
    found = letter(to='a@example.net, "B, b" <b@example.net>,c@example.net')
    assert [each.address for each in found.to] == ["a@example.net", "b@example.net", "c@example.net"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("", "no address"),
        ("nobody", "it has no @"),
        ("a b@example.net", "of the form name@domain"),
        ("a@b@example.net", "of the form name@domain"),
        ("Bea <>", "an address is missing"),
        ("a" * 65 + "@example.net", "64 octets"),
        ("a@" + ".".join(["b" * 60] * 5), "254 are allowed"),
        ("a@" + "b" * 64 + ".net", "cannot be a domain"),
        ("a@-example..net", "of the form"),
        ("Bea\r\nBcc: x <b@example.net>", "line break"),
        ("b@example.net\r\nBcc: c@example.net", "of the form"),
        ("B" * 257 + " <b@example.net>", "256 are allowed"),
    ],
)
def test_what_is_no_address_is_said(given: str, says: str) -> None:
    """Each way to be wrong has its own message."""
    assert says in faults(to=given)["to"]


def test_recipients_are_to_cc_and_bcc_each_once() -> None:
    """The case of a domain makes no second recipient, that of a local-part does (RFC 5321 2.4)."""
    found = letter(
        to=["a@example.net", "A@example.net"],
        cc="a@EXAMPLE.net",
        bcc=["c@example.net", "b@example.net", "c@example.net"],
    )
    addresses = [each.address for each in found.recipients]
    assert addresses == ["a@example.net", "A@example.net", "c@example.net", "b@example.net"]
    assert {each.domain for each in found.recipients} == {"example.net"}


@pytest.mark.parametrize(
    ("given", "reverse_path"),
    [(None, "a@example.org"), ("bounce+7@example.org", "bounce+7@example.org"), ("<x@y.org>", "x@y.org"), ("", "")],
)
def test_the_reverse_path_is_asked_for_or_the_author(given: str | None, reverse_path: str) -> None:
    """An empty return_path is the null reverse-path."""
    assert letter(return_path=given).reverse_path == reverse_path


@pytest.mark.parametrize(
    ("fields", "field", "says"),
    [
        ({"author": ""}, "from", "missing"),
        ({"author": ["a@example.org"]}, "from", "expected"),
        ({"author": "a@example.org, b@example.org"}, "from", "one is allowed"),
        ({"to": []}, "to", "1 is needed"),
        ({"to": [f"r{n}@example.net" for n in range(101)]}, "to", "100 are allowed"),
        ({"to": [f"r{n}@example.net" for n in range(60)], "cc": [f"c{n}@a.net" for n in range(60)]}, "to", "120"),
        ({"to": ["b@example.net", "x"]}, "to[1]", "no @"),
        ({"bcc": "x"}, "bcc", "no @"),
        ({"reply_to": "x"}, "reply_to", "no @"),
        ({"return_path": "x"}, "return_path", "no @"),
        ({"subject": "s" * 999}, "subject", "998 are allowed"),
        ({"subject": "a\r\nBcc: b@example.net"}, "subject", "line break"),
        ({"subject": "a\u2028b"}, "subject", "line break"),
        ({"text": "", "html": ""}, "text", "body is missing"),
        ({"headers": {"X-A": "a\r\nBcc: c@example.net"}}, "headers.X-A", "line break"),
        ({"headers": {"Bcc": "c@example.net"}}, "headers.Bcc", "bcc"),
        ({"headers": {"content-type": "text/html"}}, "headers.content-type", "text, html and attachments"),
        ({"headers": {"DKIM-Signature": "v=1"}}, "headers.DKIM-Signature", "for relays"),
        ({"headers": {"X-Smarthost-Tag": "x"}}, "headers.X-Smarthost-Tag", "tag"),
        ({"headers": {"X-Smarthost-Report": "x"}}, "headers.X-Smarthost-Report", "own use"),
        ({"headers": {"X A": "x"}}, "headers.X A", "not a field name"),
        ({"headers": {"X-A": "x", "x-a": "y"}}, "headers.x-a", "twice"),
        ({"headers": {"X-A": "x" * 901}}, "headers.X-A", "no line of a header"),
        ({"headers": {"References": "<é@x>"}}, "headers.References", "beyond ASCII"),
        ({"headers": {"Message-ID": "x"}}, "headers.Message-ID", "<name@domain>"),
        ({"headers": {f"X-{n}": "x" for n in range(101)}}, "headers", "100 are allowed"),
        ({"tag": "a b"}, "tag", "64"),
        ({"send_at": "3001-01-01T00:00:00Z"}, "send_at", "2999"),
        ({"metadata": {"a": "x" * 20000}}, "metadata", "16384 are allowed"),
        ({"retry": {"schedule": [0]}}, "retry.schedule[0]", "between 1 s and 7 days"),
        ({"retry": {"lifetime": 1e9}}, "retry.lifetime", "30 days"),
    ],
)
def test_each_fault_has_its_message(fields: dict[str, object], field: str, says: str) -> None:
    """What a request may not be is said at its field, in words that tell what is allowed."""
    if "author" in fields and isinstance(fields["author"], list):
        found = convert_submission({**WHOLE, "from": fields["author"]})
        assert isinstance(found, tuple) and says in found[0].message
        return
    assert says in faults(**fields)[field]


@pytest.mark.parametrize(
    ("attachment", "field", "says"),
    [
        ({"filename": "a"}, "attachments[0]", "one of content, url, s3 and storage_path"),
        ({"filename": "a", "content": "", "url": "https://x"}, "attachments[0]", "content and url"),
        ({"content": ""}, "attachments[0].filename", "missing"),
        ({"filename": "a\r\nb", "content": ""}, "attachments[0].filename", "line break"),
        ({"filename": "../a", "content": ""}, "attachments[0].filename", "slash"),
        ({"filename": "é" * 128, "content": ""}, "attachments[0].filename", "255 octets"),
        ({"filename": "a", "content": "", "content_type": "pdf"}, "attachments[0].content_type", "type/subtype"),
        ({"filename": "a", "content": "", "content_type": "a/b\r\nX: y"}, "attachments[0].content_type", "type/sub"),
        ({"filename": "a", "content": "", "content_type": "message/rfc822"}, "attachments[0].content_type", "base64"),
        ({"filename": "a", "content": "", "cid": "a b"}, "attachments[0].cid", "printable ASCII"),
        ({"filename": "a", "content": "", "disposition": "x"}, "attachments[0].disposition", "neither"),
        ({"filename": "a", "content": "", "content_md5": "x"}, "attachments[0].content_md5", "32"),
        ({"filename": "a", "url": "ftp://x"}, "attachments[0].url", "https://"),
        ({"filename": "a", "storage_path": ""}, "attachments[0].storage_path", "not a path"),
        ({"filename": "a", "s3": {"bucket": "", "key": "k"}}, "attachments[0].s3", "needed"),
        ({"filename": "a", "content": "QUFBQUFBQUFBQUFB"}, "attachments[0].content", "larger than 10 octets"),
    ],
)
def test_each_fault_of_an_attachment_has_its_message(attachment: dict[str, object], field: str, says: str) -> None:
    """What is wrong with an attachment is said at its place in the list."""
    assert says in faults(SubmissionLimits(attachment=10), attachments=[attachment])[field]


def test_attachments_are_bounded_together() -> None:
    """Many that are small enough one by one may be too much in all; two with one cid cannot be told apart."""
    each = {"filename": "a", "content": "QUFBQUFB", "cid": "a"}
    found = faults(SubmissionLimits(attachment=10, attachments=10), attachments=[each, each])
    assert found == {
        "attachments": "the attachments are larger than 10 octets in all",
        "attachments[1].cid": "is there twice",
    }
    assert "1 are allowed" in faults(SubmissionLimits(attachment_count=1), attachments=[each, each])["attachments"]


def test_all_faults_come_at_once() -> None:
    """One answer names everything that has to be mended."""
    found = faults(to=["x", "y@example.net", "z"], subject="\n", headers={"Bcc": "x"}, text="", tag="?", author="")
    assert set(found) == {"from", "to[0]", "to[2]", "subject", "text", "headers.Bcc", "tag"}


def test_what_an_attachment_leaves_open_is_filled_in() -> None:
    """The type follows from the name, the disposition from the cid; a mark with an MD5 leaves the name."""
    md5 = "d41d8cd98f00b204e9800998ecf8427e"
    named, shown, dotless = letter(
        html="<img src=cid:logo>",
        attachments=[
            {"filename": f"report_{{MD5:{md5.upper()}}}.pdf", "storage_path": "x"},
            {"content": "", "cid": "logo", "content_type": "image/png"},
            {"filename": "data", "content": ""},
        ],
    ).attachments
    assert (named.filename, named.content_md5, named.content_type) == ("report.pdf", md5, "application/pdf")
    assert (named.disposition, shown.disposition) == ("attachment", "inline")
    assert dotless.content_type == "application/octet-stream"


@pytest.mark.timeout(10)
@pytest.mark.parametrize("text", ['"' + '\\"' * 30000, "<" * 60000, '",' * 30000, "a," * 30000, '"a" ' * 15000])
def test_a_list_made_to_be_slow_is_not(text: str) -> None:
    """Quotes and brackets that are never closed do not make each character search the whole."""
    assert faults(to=text)


def test_utf8_addresses_ask_for_smtputf8() -> None:
    """A local-part beyond ASCII can be written in UTF-8 only (RFC 6531); a domain has its A-label."""
    assert letter(to="jörg@example.net").utf8
    assert letter(author="jörg@example.net").utf8
    assert letter(return_path="jörg@example.net").utf8
    assert not letter(to="Jörg <j@bücher.example>").utf8
    assert msgspec.structs.astuple(letter(to="j@bücher.example").recipients[0])[:2] == (
        "j@xn--bcher-kva.example",
        "xn--bcher-kva.example",
    )
