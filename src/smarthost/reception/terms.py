"""Terms: the settings that a session follows from its greeting to its end, and the fixed texts made from them."""

from collections.abc import Callable
from typing import Any

from smarthost.mail.address import to_a_label
from smarthost.mail.reply import Reply
from smarthost.policy.admission import Networks, Submission
from smarthost.wire.extensions import Extensions, format_ehlo
from smarthost.wire.submission import format_date_time

IDLE_TIMEOUT = 300.0  # seconds, RFC 5321 4.5.3.2.7
HANDSHAKE_TIMEOUT = 30.0  # seconds for a TLS handshake
LONGEST_HOLD = 366 * 86400  # seconds for which a client may have a message held (RFC 4865)
_DAY = 86400
MOST_LABELS = 4096
MOST_LINES = 1024  # whole MAIL and RCPT lines whose meaning is remembered
LONGEST_LINE = 512  # octets of such a line

Act = Callable[[Any], bytes | Reply]
"""What a line that was heard before does in a dialogue."""
MECHANISMS = ("PLAIN", "LOGIN")


class Terms:
    """Settings of sessions; never changed, but replaced as a whole for sessions that come after a reload.

    `default_domain` completes addresses without a domain; `greeting` is the whole 220 reply; `heard` has what MAIL and
    RCPT lines mean that were heard lately, CRLF included: clients repeat themselves.
    """

    __slots__ = (
        "_day",
        "_ehlo",
        "_labels",
        "_relays",
        "default_domain",
        "greeting",
        "handshake_timeout",
        "heard",
        "hostname",
        "idle_timeout",
        "networks",
        "submission",
    )

    def __init__(
        self,
        hostname: str,
        default_domain: str,
        submission: Submission,
        *,
        idle_timeout: float = IDLE_TIMEOUT,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
        relays: bool = True,
    ) -> None:
        """Prepare the texts once; timeouts are in seconds. What does not `relays` offers nothing about that."""
        self.hostname = hostname
        self.default_domain = default_domain or hostname
        self.submission = submission
        self.idle_timeout = idle_timeout
        self.handshake_timeout = handshake_timeout
        self.networks = Networks(submission.trusted_networks)
        self.greeting = f"220 {hostname} ESMTP smarthost\r\n".encode()
        self.heard: dict[bytes, Act] = {}
        self._relays = relays
        self._labels: dict[str, str] = {}
        self._day = 0
        self._ehlo: dict[tuple[bool, bool], bytes] = {}

    def label_of(self, domain: str) -> str | None:
        """Give the A-label form of a domain as `mail.address.to_a_label` does, remembered for the next time."""
        label = self._labels.get(domain)
        if label is None:
            label = to_a_label(domain)
            if label is not None:
                if len(self._labels) >= MOST_LABELS:
                    self._labels.clear()
                self._labels[domain] = label
        return label

    def remember(self, line: bytes, act: Act) -> None:
        """Keep what a line means, whatever dialogue it is said in."""
        if len(line) <= LONGEST_LINE:
            if len(self.heard) >= MOST_LINES:
                self.heard.clear()
            self.heard[line] = act

    def ehlo(self, starttls: bool, auth: bool, now: float) -> bytes:
        """Give the whole reply to EHLO, with or without STARTTLS and AUTH offered.

        The latest release that it names (RFC 4865 3) is that of the day's beginning, so that it is written once a day.
        """
        day = int(now // _DAY)
        if day != self._day:
            self._day = day
            self._ehlo.clear()
        reply = self._ehlo.get((starttls, auth))
        if reply is None:
            reply = self._ehlo[starttls, auth] = self._format_ehlo(starttls, auth, day * _DAY + LONGEST_HOLD)
        return reply

    def _format_ehlo(self, starttls: bool, auth: bool, hold_until: int) -> bytes:
        offered = Extensions(
            pipelining=True,
            size=self.submission.max_message_size,
            eight_bit_mime=True,
            smtputf8=True,
            enhanced_status_codes=True,
            dsn=self._relays,
            mt_priority=self._relays,
            hold_for=LONGEST_HOLD if self._relays else 0,
            hold_until=format_date_time(hold_until) if self._relays else "",
            starttls=starttls,
            auth=MECHANISMS if auth else (),
        )
        # HELP is a keyword of the original list (RFC 5321 4.1.1.1) and nothing that a client uses: so it is not part of
        # Extensions, and stands right behind our name.
        name, _, keywords = format_ehlo(self.hostname, offered).partition(b"\r\n")
        return name + b"\r\n250-HELP\r\n" + keywords
