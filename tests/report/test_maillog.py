"""Mail log: golden lines, levels, formats, and the program's own lines."""

import json
import logging

import pytest

from smarthost.mail.event import Event, Kind
from smarthost.mail.outcome import Stage
from smarthost.report.feed import Feed
from smarthost.report.maillog import MailLog, ProgramLog, install_program_log

AT = 1_767_225_600.0 + 0.123456
ID = 1_767_225_600_123_456 << 4


def relayed() -> Event:
    """Build an event with every field that a relayed recipient has."""
    return Event(
        time=AT,
        event=Kind.RELAYED,
        message=ID,
        envid="QQ314159",
        sender="app@example.org",
        recipient="jörg@example.net",
        route="relayhost",
        site="smtp.example.net",
        host="smtp.example.net",
        address="192.0.2.1",
        code=250,
        status="2.0.0",
        reply='queued as "A1"',
        stage=Stage.CONTENT,
        attempt=1,
        tls="TLSv1.3 TLS_AES_256_GCM_SHA384",
        size=2048,
        user="app1",
        client="192.0.2.9",
        seconds=(0.001, 0.0, 0.012346),
    )


def test_golden_json_line() -> None:
    """Every field of the contract is in a line, under its name and in its form."""
    lines: list[bytes] = []
    MailLog(lines.append)(relayed())
    assert lines == [
        b'{"time":"2026-01-01T00:00:00.123Z","event":"relayed","id":"0S3MGHH24900","envid":"QQ314159",'
        b'"sender":"app@example.org","recipient":"j\xc3\xb6rg@example.net","route":"relayhost",'
        b'"site":"smtp.example.net","host":"smtp.example.net","address":"192.0.2.1","code":250,"status":"2.0.0",'
        b'"reply":"queued as \\"A1\\"","stage":"content","attempt":1,"tls":"TLSv1.3 TLS_AES_256_GCM_SHA384",'
        b'"size":2048,"user":"app1","client":"192.0.2.9",'
        b'"seconds":{"queued":0.001,"connecting":0.0,"transferring":0.012346}}\n'
    ]


def test_empty_fields_are_left_out_but_not_the_null_reverse_path() -> None:
    """A line has only what there is to say; the null reverse-path is something."""
    lines: list[bytes] = []
    log = MailLog(lines.append)
    log(Event(time=AT, event=Kind.REJECTED, status="5.7.1", code=554))
    log(Event(time=AT, event=Kind.ACCEPTED, message=ID, sender=""))
    assert [json.loads(line) for line in lines] == [
        {"time": "2026-01-01T00:00:00.123Z", "event": "rejected", "code": 554, "status": "5.7.1"},
        {"time": "2026-01-01T00:00:00.123Z", "event": "accepted", "id": "0S3MGHH24900", "sender": ""},
    ]


def test_text_format_is_one_safe_line() -> None:
    """Text has no line end or escape sequence inside, whatever a peer said."""
    lines: list[bytes] = []
    event = Event(time=AT, event=Kind.FAILED, message=ID, code=550, reply="no\r\n\x1b[2J \x9b user", seconds=(1, 2, 3))
    MailLog(lines.append, "text")(event)
    assert lines == [
        b"2026-01-01T00:00:00.123Z failed id=0S3MGHH24900 code=550 "
        b'reply="no\\r\\n\\u001b[2J \\u009b user" seconds.queued=1 seconds.connecting=2 seconds.transferring=3\n'
    ]


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_text_that_is_no_utf8_does_not_lose_the_line(log_format: str) -> None:
    """A lone surrogate, which no UTF-8 can hold, becomes a question mark."""
    lines: list[bytes] = []
    MailLog(lines.append, log_format)(Event(time=AT, event=Kind.REJECTED, recipient="a\udcff@example.org"))
    assert b"a?@example.org" in lines[0]


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("debug", ["accepted", "relayed", "delayed", "failed"]),
        ("info", ["accepted", "relayed", "delayed", "failed"]),
        ("warning", ["delayed", "failed"]),
        ("error", []),
    ],
)
def test_level_leaves_lines_out(level: str, shown: list[str]) -> None:
    """From warning on only trouble is written, and from error on no mail event at all."""
    lines: list[bytes] = []
    log = MailLog(lines.append, "json", level)
    for kind in (Kind.ACCEPTED, Kind.RELAYED, Kind.DELAYED, Kind.FAILED):
        log(Event(time=AT, event=kind))
    assert [json.loads(line)["event"] for line in lines] == shown


def test_program_lines_join_the_stream() -> None:
    """A log record of any part becomes a line with event "log", with its traceback in one field."""
    lines: list[bytes] = []
    undo = install_program_log(ProgramLog(lines.append), "info")
    try:
        logging.getLogger("smarthost.queue").debug("not this")
        logging.getLogger("mail.log").info("nor a library's chatter")
        logging.getLogger("smarthost.queue").warning("held %d\nof %d", 1, 2)
        try:
            raise ValueError("broken")
        except ValueError:
            logging.getLogger("smarthost.spool").exception("failed")
    finally:
        undo()
    first, second = map(json.loads, lines)
    assert {key: first[key] for key in ("event", "level", "logger", "text")} == {
        "event": "log",
        "level": "warning",
        "logger": "smarthost.queue",
        "text": "held 1\nof 2",
    }
    assert "exception" not in first
    assert second["exception"].endswith("ValueError: broken")


def test_feed_goes_on_when_a_listener_fails() -> None:
    """A listener that raises does not keep the next one from hearing, and one that left hears no more."""
    heard: list[Kind] = []

    def fail(event: Event) -> None:
        raise RuntimeError("no")

    feed = Feed([fail])
    stop = feed.listen(lambda event: heard.append(event.event))
    feed.publish(Event(time=AT, event=Kind.HELD))
    stop()
    feed.publish(Event(time=AT, event=Kind.RELEASED))
    assert heard == [Kind.HELD]
