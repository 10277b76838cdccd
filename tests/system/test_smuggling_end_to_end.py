"""SMTP smuggling: whatever stands for an end of data that is none, the sink never sees a second message."""

import socket
from collections.abc import Callable

import pytest
from relay_process import Relay, wait_until
from sink_process import Sink

FALSE_ENDINGS = {
    "lf-dot-lf": b"\n.\n",
    "lf-dot-crlf": b"\n.\r\n",
    "cr-dot-crlf": b"\r.\r\n",
    "cr-dot-cr": b"\r.\r",
    "crlf-dot-lf": b"\r\n.\n",
    "crlf-dot-cr": b"\r\n.\r",
    "lf-dot-cr": b"\n.\r",
    "lf-nul-dot-lf": b"\n\0.\n",
    "crlf-nul-dot-crlf": b"\r\n\0.\r\n",
    "crlf-dot-nul-crlf": b"\r\n.\0\r\n",
    "lf-crlf-dot-crlf-lf": b"\n\r\r\n.\r\r\n",
}
SECOND = (
    b"MAIL FROM:<evil@example.org>\r\nRCPT TO:<250+second@example.com>\r\nDATA\r\n"
    b"Subject: second\r\n\r\nsmuggled\r\n.\r\n"
)


class RawClient:
    """A client that writes octets as they are given."""

    def __init__(self, port: int) -> None:
        """Connect, and read the greeting."""
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.file = self.socket.makefile("rb")
        self.reply()

    def reply(self) -> int:
        """Read one reply, all its lines, and give its code."""
        while True:
            line = self.file.readline()
            assert line, "the relay closed the connection"
            if line[3:4] != b"-":
                return int(line[:3])

    def command(self, octets: bytes) -> int:
        """Write octets, and give the code of the next reply."""
        self.socket.sendall(octets)
        return self.reply()

    def close(self) -> None:
        """Close the connection."""
        self.file.close()
        self.socket.close()


@pytest.mark.parametrize("bare_newlines", ["normalize", "reject"])
def test_no_false_ending_makes_a_second_message(
    make_relay: Callable[..., Relay], sink: Sink, bare_newlines: str
) -> None:
    """After each false ending the rest is still content: one reply, and never a message of the smuggled sender."""
    relay = make_relay(submission={"min_free_space": "1MiB", "bare_newlines": bare_newlines})
    relay.start()
    accepted = 0
    for name, ending in FALSE_ENDINGS.items():
        client = RawClient(relay.port)
        assert client.command(b"EHLO client.test\r\n") == 250
        assert client.command(b"MAIL FROM:<root@example.org>\r\n") == 250
        assert client.command(b"RCPT TO:<250@example.com>\r\n") == 250
        assert client.command(b"DATA\r\n") == 354
        content = b"Subject: first " + name.encode() + b"\r\n\r\nhello" + ending + SECOND
        code = client.command(content)
        assert code in (250, 554), name
        accepted += code == 250
        # Had the false ending counted, the relay would have answered MAIL, RCPT and DATA by now, before this NOOP.
        assert client.command(b"NOOP\r\n") == 250
        assert client.command(b"QUIT\r\n") == 221, name
        client.close()
    expected = sum(b"\0" not in ending for ending in FALSE_ENDINGS.values()) if bare_newlines == "normalize" else 0
    assert accepted == expected
    wait_until(lambda: not relay.queue(), "the queue is empty")
    assert sorted(sink.subjects()) == sorted(
        f"first {name}" for name, ending in FALSE_ENDINGS.items() if accepted and b"\0" not in ending
    )
    assert not any(b"evil@example.org" in octets.partition(b"\r\n\r\n")[0] for octets in sink.octets())
    assert all(b"\n.\n" not in octets.replace(b"\r\n", b"") for octets in sink.octets())
