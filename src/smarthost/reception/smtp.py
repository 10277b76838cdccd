"""SmtpSession: one client's session, from the greeting to the close; content, STARTTLS, QUIT and the rare verbs."""

import asyncio
import logging
import traceback
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from smarthost.mail.outcome import Stage
from smarthost.mail.reply import BAD_SYNTAX, BYE, SESSION_TIMEOUT, UNKNOWN_COMMAND, Reply, make_reply
from smarthost.policy.admission import Tls
from smarthost.reception.content import Content
from smarthost.reception.pump import Mode, Pump
from smarthost.reception.verbs import data

GO_AHEAD = make_reply(354, "2.0.0", "End data with <CR><LF>.<CR><LF>")
SESSION_FAILED = make_reply(421, "4.3.0", "Local error, closing")
READY_FOR_TLS = make_reply(220, "2.0.0", "Ready to start TLS")
NO_TLS_HERE = make_reply(502, "5.5.1", "STARTTLS is not offered here")
TLS_ALREADY = make_reply(503, "5.5.1", "TLS is in use already")
TLS_IN_TRANSACTION = make_reply(503, "5.5.1", "STARTTLS is not permitted during a transaction")
SPOKE_BEFORE_TLS = make_reply(554, "5.5.1", "Nothing may follow STARTTLS before the handshake")

BACKLOG_LIMIT = 1024 * 1024  # octets that may wait for the disk before reading stops
TLS_SHUTDOWN_TIMEOUT = 5.0  # seconds; some clients never answer the closing alert
LINGER = 5  # ticks that a closing session may still take

# RFC 5321 4.2.1: 354 has no enhanced status (RFC 2034 4 speaks of 2yz, 4yz and 5yz alone).
_GO_AHEAD = b"354 " + GO_AHEAD.text.encode() + b"\r\n"
_BYE = BYE.encode()
_log = logging.getLogger(__name__)


class SmtpSession(Pump):
    """A session on one connection. The pump reads and writes; this says what verbs beyond words do."""

    # -- content

    def begin_data(self, argument: bytes) -> None:
        """DATA: answer 354 and take content, or say why not."""
        content = data(self.dialogue, argument)
        if isinstance(content, Reply):
            self.answer(content)
            return
        if content.draft.refused is not None:
            refusal = content.draft.refused
            content.abandon()
            self.dialogue.reject(Stage.DATA, refusal)
            self.dialogue.reset()
            self.answer(refusal)
            return
        self._content = content
        self._mode = Mode.CONTENT
        self._output.append(_GO_AHEAD)

    def take_content(self, chunk: bytes) -> None:
        """Hand octets to the content; at its end ask the draft for the reply."""
        content = self._content
        assert content is not None
        if not content.feed(chunk):
            if content.draft.backlog > BACKLOG_LIMIT:
                self._is_slow = True
                content.draft.on_drained = self._drained
            return
        self._content = None
        self._is_slow = False
        self._input = content.rest
        refusal = content.refusal()
        if refusal is not None:
            self.dialogue.reject(Stage.CONTENT, refusal)
            self.dialogue.reset()
            self._mode = Mode.COMMANDS
            self.answer(refusal)
            return
        self._mode = Mode.COMMIT
        self._ended_at = self.dialogue.parts.clock()
        self._door.commits += 1
        content.draft.on_drained = None
        content.draft.commit(self._committed)

    def _drained(self) -> None:
        content = self._content
        if content is not None and self._is_slow:
            content.draft.on_drained = None
            self._is_slow = False
            self.pump()

    def _committed(self, reply: Reply) -> None:
        """The draft's reply, maybe after the client has gone."""
        dialogue = self.dialogue
        self._door.commit_ended()
        if reply.is_positive:
            self._idle_talk = 0
            parts = dialogue.parts
            parts.counters.accept_seconds.observe(max(0.0, parts.clock() - self._ended_at))
        else:
            dialogue.reject(Stage.CONTENT, reply)
        dialogue.reset()
        if self._mode is not Mode.COMMIT:
            return
        self._mode = Mode.COMMANDS
        self._touched = self._door.ticks
        self.answer(reply)
        self.pump()
