"""Mail log: golden lines, levels, formats, and the program's own lines."""

import json
import logging

import pytest

from smarthost.mail.event import Event, Kind, Seconds
from smarthost.mail.outcome import Stage
from smarthost.report.feed import Feed
from smarthost.report.maillog import (
    LogFormat,
    LogLevel,
    ProgramLine,
    ProgramLog,
    encode_json,
    encode_text,
    encoder,
    install_program_log,
    listen_from,
)

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
        seconds=Seconds(0.001, 0.0, 0.012346),
    )


def test_golden_json_line() -> None:
    """Every field of the contract is in a line, under its name and in its form."""
    assert encode_json([relayed()]) == (
        b'{"time":"2026-01-01T00:00:00.123Z","event":"relayed","id":"0S3MGHH24900","envid":"QQ314159",'
        b'"sender":"app@example.org","recipient":"j\xc3\xb6rg@example.net","route":"relayhost",'
        b'"site":"smtp.example.net","host":"smtp.example.net","address":"192.0.2.1","code":250,"status":"2.0.0",'
        b'"reply":"queued as \\"A1\\"","stage":"content","attempt":1,"tls":"TLSv1.3 TLS_AES_256_GCM_SHA384",'
        b'"size":2048,"user":"app1","client":"192.0.2.9",'
        b'"seconds":{"queued":0.001,"connecting":0.0,"transferring":0.012346}}\n'
    )


def test_empty_fields_are_left_out_but_not_the_null_reverse_path() -> None:
    """A line has only what there is to say; the null reverse-path is something."""
    rejected = Event(time=AT, event=Kind.REJECTED, status="5.7.1", code=554)
    accepted = Event(time=AT, event=Kind.ACCEPTED, message=ID, sender="")
    assert [json.loads(line) for line in encode_json([rejected, accepted]).splitlines()] == [
        {"time": "2026-01-01T00:00:00.123Z", "event": "rejected", "code": 554, "status": "5.7.1"},
        {"time": "2026-01-01T00:00:00.123Z", "event": "accepted", "id": "0S3MGHH24900", "sender": ""},
    ]


def test_text_format_is_one_safe_line() -> None:
    """Text has no line end or escape sequence inside, whatever a peer said."""
    reply, seconds = "no\r\n\x1b[2J \x9b user", Seconds(1, 2, 3)
    event = Event(time=AT, event=Kind.FAILED, message=ID, code=550, reply=reply, signed=("d=a s=b",), seconds=seconds)
    assert encode_text([event]) == (
        b"2026-01-01T00:00:00.123Z failed id=0S3MGHH24900 code=550 "
        b'reply="no\\r\\n\\u001b[2J \\u009b user" signed="d=a s=b" seconds.queued=1 '
        b"seconds.connecting=2 seconds.transferring=3\n"
    )


@pytest.mark.parametrize("log_format", LogFormat)
def test_text_that_is_no_utf8_does_not_lose_the_line(log_format: LogFormat) -> None:
    """A lone surrogate, which no UTF-8 can hold, becomes a question mark, and other lines stay as they are."""
    broken = Event(time=AT, event=Kind.REJECTED, recipient="a\udcff@example.org")
    encode = encoder(log_format)
    first, second, third = encode([relayed(), broken, relayed()]).splitlines(keepends=True)
    assert first == third == encode([relayed()])
    assert b"a?@example.org" in second


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        (LogLevel.DEBUG, ["accepted", "relayed", "delayed", "failed"]),
        (LogLevel.INFO, ["accepted", "relayed", "delayed", "failed"]),
        (LogLevel.WARNING, ["delayed", "failed"]),
        (LogLevel.ERROR, []),
    ],
)
def test_level_leaves_lines_out(level: LogLevel, shown: list[str]) -> None:
    """From warning on only trouble is written, and from error on no mail event at all."""
    events: list[Event] = []
    listen = listen_from(level, events.append)
    for kind in (Kind.ACCEPTED, Kind.RELAYED, Kind.DELAYED, Kind.FAILED):
        listen(Event(time=AT, event=kind))
    assert [event.event for event in events] == shown


def test_program_lines_join_the_stream() -> None:
    """A log record of any part becomes a line with event "log", with its traceback in one field."""
    lines: list[ProgramLine] = []
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
    first, second = map(json.loads, encode_json(lines).splitlines())
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
