"""The JSON form of a message is read strictly, and every fault of form and type names its field."""

import msgspec
import pytest

from smarthost.compose.fault import FieldFault
from smarthost.compose.submission import Submission, convert_submission, read_submission
from smarthost.mail.envelope import Priority


def read(**fields: object) -> Submission:
    """Read a submission that has no fault."""
    found = read_submission(msgspec.json.encode(fields))
    assert isinstance(found, Submission), found
    return found


def faults_of(octets: bytes) -> dict[str, str]:
    """Give the faults of a submission by their fields."""
    found = read_submission(octets)
    assert isinstance(found, tuple), found
    return {fault.field: fault.message for fault in found}


def test_every_field_of_the_api_is_read() -> None:
    """The names of the API stand for what they say; `from` is a word of Python's and an attribute of another name."""
    found = read(
        **{"from": "a@example.org", "to": ["b@example.net", {"email": "c@example.net", "name": "C"}]},
        attachments=[
            {"filename": "a.txt", "content": "aGVsbG8="},
            {"filename": "b", "s3": {"bucket": "b", "key": "k"}},
        ],
        send_at="2026-11-22T18:00:00+02:00",
        retry={"schedule": [60, 120], "lifetime": 3600},
        metadata={"order": 7},
    )
    assert found.author == "a@example.org"
    assert found.attachments[0].content == b"hello"
    assert found.release == 1795363200.0
    assert found.metadata == {"order": 7}


@pytest.mark.parametrize(
    ("given", "priority"),
    [(0, Priority.IMMEDIATE), (1, Priority.HIGH), (2, Priority.MEDIUM), (3, Priority.LOW), ("high", Priority.HIGH)],
)
def test_a_priority_is_a_name_or_a_number(given: object, priority: Priority) -> None:
    """0 to 3 are the four names in their order."""
    assert read(priority=given).urgency is priority


@pytest.mark.parametrize(
    ("octets", "field", "says"),
    [
        (b'{"to": 5}', "to", "expected"),
        (b'{"to": ["a@b", 5]}', "to[1]", "expected"),
        (b'{"priority": 4}', "priority", "<= 3"),
        (b'{"priority": "urgent"}', "priority", "urgent"),
        (b'{"send_at": "tomorrow"}', "send_at", "RFC3339"),
        (b'{"send_at": "2026-01-01T00:00:00"}', "send_at", "timezone"),
        (b'{"attachments": [{"filename": "a", "content": "!!"}]}', "attachments[0].content", "is not base64"),
        (b'{"attachments": [{"s3": {"bucket": "b"}}]}', "attachments[0].s3", "key"),
        (b'{"subjekt": "x"}', "subjekt", "is not a field"),
        (b'{"headers": {"X-A": 1}}', "headers[...]", "expected `str`"),
        (b'{"metadata": []}', "metadata", "expected `object`"),
        (b"[]", "", "is not a JSON object"),
        (b'{"to":', "", "is not JSON"),
        (b"\xff", "", "is not JSON"),
    ],
)
def test_a_fault_names_its_field(octets: bytes, field: str, says: str) -> None:
    """What is wrong is said with the path of the field that it is about."""
    assert says in faults_of(octets)[field]


def test_all_faults_are_given_at_once() -> None:
    """Who mends a request does not learn of its faults one by one."""
    octets = b'{"to": ["a", 1, 2], "subject": 5, "colour": "red", "attachments": [{"content": 1}, {}, {"cid": []}]}'
    assert set(faults_of(octets)) == {
        "to[1]",
        "to[2]",
        "subject",
        "colour",
        "attachments[0].content",
        "attachments[2].cid",
    }


def test_an_answer_to_faults_is_bounded() -> None:
    """A request of nothing but faults, or with a name without end, gets an answer that can be read."""
    many = read_submission(msgspec.json.encode({f"x{place}": 1 for place in range(10_000)}))
    members = read_submission(msgspec.json.encode({"to": [1] * 10_000}))
    long = read_submission(msgspec.json.encode({"x" * 10_000: 1}))
    assert isinstance(many, tuple) and isinstance(members, tuple) and isinstance(long, tuple)
    assert len(many) == len(members) == 50 and len(long[0].field) < 100


@pytest.mark.parametrize("content", ["aGVs\r\nbG8=\r\n", "aGVs bG8=", "aGVsbG8="])
def test_base64_may_be_broken_into_lines(content: str) -> None:
    """What an encoder for mail wrote is the same as what one for the web wrote."""
    assert read(attachments=[{"filename": "a", "content": content}]).attachments[0].content == b"hello"


def test_a_decoded_value_is_converted_alike() -> None:
    """Who has JSON decoded already gets the same answers."""
    assert convert_submission({"tag": 1}) == (FieldFault("tag", "expected `str`, got `int`"),)
    found = convert_submission({"subject": "x", "attachments": [{"content": "aGVsbG8="}]})
    assert isinstance(found, Submission) and found.attachments[0].content == b"hello"
