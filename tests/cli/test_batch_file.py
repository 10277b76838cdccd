"""Recipients of a batch out of files, and the bar."""

from pathlib import Path
from typing import Any

import pytest

from smarthost.cli.exits import CommandFailed
from smarthost.cli.progress import Progress, format_bar
from smarthost.cli.recipients_file import converter, read_recipients
from smarthost.client import BatchRecipient, Variable

TYPED = converter(
    {
        "age": Variable("integer"),
        "sum": Variable("number"),
        "member": Variable("boolean"),
        "items": Variable("array"),
    }
)


def read(folder: Path, octets: bytes, *, is_json: bool = False, **given: Any) -> list[BatchRecipient]:
    """Write a file, and read it."""
    file = folder / "recipients"
    file.write_bytes(octets)
    return list(read_recipients(file, is_json, given, TYPED))


def test_csv(tmp_path: Path) -> None:
    """Columns are variables of the types that the template names, text else; what is empty of another type is none."""
    octets = b"\xef\xbb\xbfName, Email ,age,sum,member,items\r\n"
    octets += b'"\xc3\x84da, Dr.",ada@example.net,36,1.5,yes,"[1, 2]"\r\n\r\n,bob@example.net,,,no,\r\n'
    assert read(tmp_path, octets, shop="Web", age=1) == [
        BatchRecipient(
            "ada@example.net",
            {"shop": "Web", "age": 36, "Name": "Äda, Dr.", "sum": 1.5, "member": True, "items": [1, 2]},
        ),
        BatchRecipient("bob@example.net", {"shop": "Web", "age": 1, "Name": "", "member": False}),
    ]


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_columns_are_told_apart_by_what_the_first_line_has(tmp_path: Path, sign: str) -> None:
    """Comma, semicolon and tab do."""
    octets = f"email{sign}name\na@example.net{sign}Ada\n".encode()
    assert read(tmp_path, octets) == [BatchRecipient("a@example.net", {"name": "Ada"})]


def test_json_lines(tmp_path: Path) -> None:
    """Variables stand in an object of their own, or beside the address."""
    octets = b'{"email": "a@example.net", "variables": {"name": "Ada"}}\n\n{"email": "b@example.net", "age": 3}\n'
    octets += b'{"email": "c@example.net"}'
    assert read(tmp_path, octets, is_json=True, age=1) == [
        BatchRecipient("a@example.net", {"age": 1, "name": "Ada"}),
        BatchRecipient("b@example.net", {"age": 3}),
        BatchRecipient("c@example.net", {"age": 1}),
    ]


@pytest.mark.parametrize(
    ("octets", "is_json", "said"),
    [
        (b"name\nAda\n", False, ":1: a line of names is needed"),
        (b"email,name,name\n", False, ":1: a line of names"),
        (b"", False, ":1: a line of names"),
        (b"email,name\na@example.net\n", False, ":2: there are 1 columns; line 1 has 2"),
        (b"email,age\na@example.net,1\nb@example.net,old\n", False, ":3: age: 'old' is no integer"),
        (b"email,member\na@example.net,perhaps\n", False, "is no boolean"),
        (b"email,sum\na@example.net,true\n", False, "is no number"),
        (b"email,items\na@example.net,{}\n", False, "is no array"),
        (b'email,name\na@example.net,"x\n', False, "no CSV"),
        (b"email,name\n ,Ada\n", False, ":2: there is no email"),
        (b"email\n\xff\n", False, "is not UTF-8"),
        (b'{"email": 1}\n', True, ":1: there is no email"),
        (b'{"email": "a@example.net"}\n{\n', True, ":2: this is no JSON"),
        (b"[]\n", True, ":1: an object"),
    ],
)
def test_what_is_no_recipient(tmp_path: Path, octets: bytes, is_json: bool, said: str) -> None:
    """A fault is told with its file and line (65)."""
    with pytest.raises(CommandFailed, match=said) as raised:
        read(tmp_path, octets, is_json=is_json)
    assert raised.value.exit_code == 65


def test_no_file(tmp_path: Path) -> None:
    """A file that is not there is told (66)."""
    with pytest.raises(CommandFailed, match="cannot be read") as raised:
        list(read_recipients(tmp_path / "none", False, {}, TYPED))
    assert raised.value.exit_code == 66


def test_the_bar_fits() -> None:
    """The bar takes what the terminal has, and is left out where that is too little."""
    bar = format_bar("sending", 5000, 10000, "3 failed", 79)
    assert bar == f"sending [{'#' * 20}{'.' * 20}] 5,000 of 10,000, 3 failed" and len(bar) <= 79
    assert len(format_bar("sending", 5000, 10000, "3 failed", 60)) <= 60
    assert format_bar("sending", 10, 10, "", 200).count("#") == 40
    assert format_bar("sending", 1, 10, "", 20) == "sending 1 of 10"


def test_the_bar_is_for_terminals(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is drawn where standard error is no terminal; on one the line is wiped at the end."""
    with Progress("sending", 2) as bar:
        bar.show(1)
    assert capsys.readouterr().err == ""
    with Progress("sending", 2, is_shown=True) as bar:
        bar.show(1)
        bar.show(1)
        bar.show(2)
    err = capsys.readouterr().err
    assert err.count("of 2") == 2 and err.endswith("\r\x1b[K")
