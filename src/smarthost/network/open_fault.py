"""Turns what aiosmtplib, ssl and the system raise while a session is opened into an OpenFault; nobody else does."""

import ssl

import aiosmtplib

from smarthost.mail.outcome import Stage
from smarthost.mail.reply import Reply
from smarthost.network.dial import SourceUnusable
from smarthost.network.opening import OpenFault
from smarthost.policy.classify import NetFault
from smarthost.wire.reply_reader import ProtocolFault, ReplyReader

# What may be raised while a session is opened. ValueError: a host name that cannot be a TLS server name.
OPENING_ERRORS = (aiosmtplib.SMTPException, OSError, ValueError)

# The first row that fits decides: narrow classes stand before the ones that they are derived from.
_FAULTS: tuple[tuple[tuple[type[BaseException], ...], NetFault, str], ...] = (
    ((ssl.SSLCertVerificationError,), NetFault.CERTIFICATE, "the certificate is not valid for this host"),
    ((ssl.SSLEOFError, ssl.SSLZeroReturnError), NetFault.CLOSED, "the peer closed the connection in the TLS handshake"),
    ((ssl.SSLError,), NetFault.TLS_FAILED, "the TLS handshake failed"),
    ((aiosmtplib.SMTPTimeoutError, TimeoutError), NetFault.TIMEOUT, "no answer in time"),
    ((ConnectionRefusedError,), NetFault.REFUSED, "connection refused"),
    ((ConnectionResetError, ConnectionAbortedError, BrokenPipeError), NetFault.RESET, "connection reset by the peer"),
    ((aiosmtplib.SMTPServerDisconnected,), NetFault.CLOSED, "the peer closed the connection"),
    ((aiosmtplib.SMTPResponseException,), NetFault.PROTOCOL_ERROR, "the answer is not SMTP"),
    ((OSError,), NetFault.UNREACHABLE, "the address cannot be reached"),
)
_WHILE = {
    Stage.CONNECT: "while connecting",
    Stage.GREETING: "while waiting for the greeting",
    Stage.EHLO: "at EHLO",
    Stage.STARTTLS: "at STARTTLS",
    Stage.AUTH: "at AUTH",
}


class Refusal(Exception):
    """Carries a fault of our own finding out of the steps of an opening."""

    def __init__(self, fault: OpenFault) -> None:
        """Keep the fault."""
        super().__init__(fault.reason)
        self.fault = fault


def fault_at(stage: Stage, fault: NetFault, what: str) -> OpenFault:
    """Make a fault of our own finding, its reason a sentence with the stage."""
    return OpenFault(stage, fault, None, f"{what}, {_WHILE[stage]}")


def translate(stage: Stage, error: BaseException) -> OpenFault:
    """Say what an exception of OPENING_ERRORS means that was raised at a stage."""
    if isinstance(error, aiosmtplib.SMTPResponseException) and (reply := read_reply(error)) is not None:
        return OpenFault(stage, None, reply, str(reply))
    root = _root(error)
    if isinstance(root, SourceUnusable):
        return fault_at(stage, NetFault.SOURCE_UNUSABLE, str(root))
    if isinstance(root, ssl.SSLError):
        # With TLS on connect the handshake is part of connecting.
        stage = Stage.STARTTLS
    for kinds, fault, what in _FAULTS:
        if isinstance(root, kinds):
            return fault_at(stage, fault, _with_detail(what, root))
    return fault_at(stage, NetFault.PROTOCOL_ERROR, str(root) or type(root).__name__)


def read_reply(error: aiosmtplib.SMTPResponseException) -> Reply | None:
    """Make a Reply of the code and text that the library took apart; None when they are no reply."""
    *first, last = error.message.split("\n")
    lines = [*(f"{error.code}-{line}" for line in first), f"{error.code} {last}"]
    try:
        replies = ReplyReader().feed("".join(f"{line}\r\n" for line in lines).encode("utf-8", "surrogateescape"))
    except ProtocolFault:
        return None
    return replies[0] if len(replies) == 1 else None


def _root(error: BaseException) -> BaseException:
    """Find the system's or ssl's own exception behind the library's."""
    while isinstance(error, aiosmtplib.SMTPException) and isinstance(error.__cause__, OSError):
        error = error.__cause__
    return error


def _with_detail(what: str, error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{what}: {error.verify_message or 'not trusted'}"
    if isinstance(error, ssl.SSLError):
        return f"{what}: {(error.reason or 'closed by the peer').replace('_', ' ').lower()}"
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return f"{what}: {error.message[:200]}"
    return f"{what} ({error.strerror})" if what.startswith("the address") and isinstance(error, OSError) else what
