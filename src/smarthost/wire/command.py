"""Reads and writes MAIL and RCPT with their parameters (RFC 5321 4.1.1; 1870, 3461, 4865, 4954, 6152, 6531, 6710)."""

import re

import msgspec

from smarthost.mail.address import split_mailbox
from smarthost.mail.envelope import Body, Notify, Recipient, Ret
from smarthost.mail.reply import BAD_PARAMETER, BAD_SYNTAX, Reply, make_reply
from smarthost.wire.submission import read_date_time, read_interval, read_priority
from smarthost.wire.xtext import decode_orcpt, decode_xtext, encode_orcpt, encode_xtext, is_plain

MAX_ENVID = 100  # characters as sent, RFC 3461 4.4
MAX_ORCPT = 500  # characters as sent, RFC 3461 4.2
_MAX_PLAIN = MAX_ORCPT - len("rfc822;")

BAD_REVERSE_PATH = make_reply(501, "5.1.7", "Bad reverse-path syntax")
BAD_FORWARD_PATH = make_reply(501, "5.1.3", "Bad forward-path syntax")
NULL_FORWARD_PATH = make_reply(501, "5.1.3", "The null path is no recipient")
SMTPUTF8_NEEDED = make_reply(553, "5.6.7", "A non-ASCII address needs the SMTPUTF8 parameter")
NOT_UTF8 = make_reply(501, "5.5.2", "Command is not UTF-8")

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9\-]*[A-Za-z0-9])?"
# Mailboxes as nearly everyone writes them, short enough to need no further look; the rest goes the long way.
_PLAIN = rf"(?=[^@>]{{1,64}}@[^>]{{1,180}}>){_ATOM}(?:\.{_ATOM})*@({_LABEL}(?:\.{_LABEL})*)"
_USUAL_MAIL = re.compile(
    rf"FROM: ?<((?:{_PLAIN})?)>(?: SIZE=([0-9]{{1,20}}))?(?: BODY=(?:7BIT|(8BITMIME)))?( SMTPUTF8)?",
    re.IGNORECASE | re.ASCII,
)
_USUAL_RCPT = re.compile(rf"TO: ?<({_PLAIN})>", re.IGNORECASE | re.ASCII)
_PATH = re.compile(r'(?:FROM|TO): *<(?:@[^,:<> ]+(?:,@[^,:<> ]+)*:)?((?:"(?:[^"\\]|\\.)*"|[^"<>])*)>(?: +(.*))?', re.I)
_SURROGATE = re.compile("[\ud800-\udfff]")
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9\-]*)(?:=([^\x00-\x20=\x7f]+))?")
_SIZE = re.compile(r"[0-9]{1,20}")
_MAIL_KEYWORDS = frozenset(
    {"SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH", "HOLDFOR", "HOLDUNTIL", "MT-PRIORITY", "REQUIRETLS"}
)
_RCPT_KEYWORDS = frozenset({"NOTIFY", "ORCPT"})
_WITHOUT_VALUE = frozenset({"SMTPUTF8", "REQUIRETLS"})
# Looked up for each command: an attribute of an enum costs more than a name of the module.
_NOTHING_ASKED = Notify.UNSPECIFIED
_SEVEN_BIT, _EIGHT_BIT_MIME = Body.SEVEN_BIT, Body.EIGHT_BIT_MIME
_NOTIFY_NAMES = tuple((int(flag), str(flag.name)) for flag in Notify if flag)


class MailCommand(msgspec.Struct, frozen=True, gc=False):
    """A MAIL command: `reverse_path` "" is the null one; it may lack a domain.

    `size` is the octets that the client announced, 0 if it did not; `envid` is decoded; `auth` is the decoded AUTH
    parameter, "" for "<>", None where there was none (RFC 4954 5). `hold_for` are seconds and `hold_until` is a Unix
    time, not both (RFC 4865), 0 for none; `mt_priority` is -9 to 9 (RFC 6710) or None; `requiretls` is RFC 8689's.
    """

    reverse_path: str
    size: int = 0
    body: Body = Body.SEVEN_BIT
    smtputf8: bool = False
    ret: Ret | None = None
    envid: str = ""
    auth: str | None = None
    hold_for: int = 0
    hold_until: float = 0.0
    mt_priority: int | None = None
    requiretls: bool = False


class RcptCommand(msgspec.Struct, frozen=True, gc=False):
    """A RCPT command: `domain` is as written and "" where the address has none; `orcpt` is decoded, "type;address"."""

    address: str
    domain: str
    notify: Notify = Notify.UNSPECIFIED
    orcpt: str = ""


def parse_mail(argument: str) -> MailCommand | Reply:
    """Read what follows "MAIL ". A Reply is the refusal: 501 5.1.7, 501 5.5.4, 553 5.6.7 or 555 5.5.4.

    Source routes are taken off (RFC 5321 appendix C), and a space behind the colon is tolerated.
    """
    usual = _USUAL_MAIL.fullmatch(argument)
    if usual is not None:
        path, _, size, eight_bit, smtputf8 = usual.groups()
        return MailCommand(
            path, int(size) if size else 0, _EIGHT_BIT_MIME if eight_bit else _SEVEN_BIT, smtputf8 is not None
        )
    split = _split_path(argument, "FROM", BAD_REVERSE_PATH)
    if isinstance(split, Reply):
        return split
    path, rest = split
    if path and split_mailbox(path) is None:
        return BAD_REVERSE_PATH
    parameters = _split_parameters(rest, _MAIL_KEYWORDS)
    if isinstance(parameters, Reply):
        return parameters
    smtputf8 = "SMTPUTF8" in parameters
    if not path.isascii() and not smtputf8:
        return SMTPUTF8_NEEDED
    return _read_mail(path, parameters)


def parse_rcpt(argument: str, *, smtputf8: bool = True) -> RcptCommand | Reply:
    """Read what follows "RCPT ". A Reply is the refusal: 501 5.1.3, 501 5.5.4, 553 5.6.7 or 555 5.5.4.

    `smtputf8` is whether the transaction's MAIL had that parameter, which a non-ASCII address needs (RFC 6531 3.4).
    """
    usual = _USUAL_RCPT.fullmatch(argument)
    if usual is not None:
        return RcptCommand(usual.group(1), usual.group(2), _NOTHING_ASKED)
    split = _split_path(argument, "TO", BAD_FORWARD_PATH)
    if isinstance(split, Reply):
        return split
    path, rest = split
    if not path:
        return NULL_FORWARD_PATH
    mailbox = split_mailbox(path)
    if mailbox is None:
        return BAD_FORWARD_PATH
    if not smtputf8 and not path.isascii():
        return SMTPUTF8_NEEDED
    parameters = _split_parameters(rest, _RCPT_KEYWORDS)
    if isinstance(parameters, Reply):
        return parameters
    notify = _read_notify(parameters["NOTIFY"]) if "NOTIFY" in parameters else _NOTHING_ASKED
    orcpt = _read_orcpt(parameters["ORCPT"]) if "ORCPT" in parameters else ""
    if notify is None or orcpt is None:
        return BAD_SYNTAX
    return RcptCommand(path, mailbox[1], notify, orcpt)


def format_mail(
    reverse_path: str,
    *,
    size: int | None = None,
    body: Body | None = None,
    smtputf8: bool = False,
    ret: Ret | None = None,
    envid: str = "",
) -> bytes:
    """Write a MAIL command with CRLF; a parameter that is None, False or "" is left out.

    Raises ValueError if the path holds a line end.
    """
    line = f"MAIL FROM:<{reverse_path}>" if size is None else f"MAIL FROM:<{reverse_path}> SIZE={size}"
    if body is not None:
        line += f" BODY={body}"
    if smtputf8:
        line += " SMTPUTF8"
    if ret is not None:
        line += f" RET={ret}"
    if envid:
        line += f" ENVID={encode_xtext(envid)}"
    return _end_line(line)


def format_rcpt(recipient: Recipient, *, dsn: bool) -> bytes:
    """Write a RCPT command with CRLF; with `dsn`, for a peer that offers DSN, with NOTIFY and ORCPT.

    ORCPT names the address itself where the client gave none, so that later rewriting does not hide it
    (RFC 3461 5.2.1). Raises ValueError if the address holds a line end.
    """
    address = recipient.address
    if dsn and not recipient.notify and not recipient.orcpt and len(address) <= _MAX_PLAIN and is_plain(address):
        # Nearly every address: nothing to encode, and no line end to look for.
        return f"RCPT TO:<{address}> ORCPT=rfc822;{address}\r\n".encode()
    line = f"RCPT TO:<{address}>"
    if dsn:
        if recipient.notify:
            line += f" NOTIFY={_format_notify(recipient.notify)}"
        orcpt = encode_orcpt(recipient.orcpt or _default_orcpt(address))
        if len(orcpt) <= MAX_ORCPT:
            line += f" ORCPT={orcpt}"
    return _end_line(line)


def _end_line(line: str) -> bytes:
    if "\r" in line or "\n" in line:
        raise ValueError("a path holds a line end")
    return f"{line}\r\n".encode()


def _default_orcpt(address: str) -> str:
    return f"rfc822;{address}" if address.isascii() else f"utf-8;{address}"


def _split_path(argument: str, keyword: str, refusal: Reply) -> tuple[str, str] | Reply:
    """Split "FROM:<path> parameters" into the mailbox and the parameters' text."""
    if not argument.isascii() and _SURROGATE.search(argument):
        return NOT_UTF8
    if argument[: len(keyword) + 1].upper() != keyword + ":":
        return BAD_SYNTAX
    found = _PATH.fullmatch(argument.rstrip(" "))
    if found is None:
        return refusal
    return found.group(1), found.group(2) or ""


def _split_parameters(rest: str, known: frozenset[str]) -> dict[str, str] | Reply:
    """Split parameters into upper-case keyword and value; each keyword at most once (RFC 5321 4.1.1.11)."""
    parameters: dict[str, str] = {}
    for word in rest.split(" ") if rest else ():
        if not word:
            continue
        found = _PARAMETER.fullmatch(word)
        if found is None:
            return BAD_SYNTAX
        keyword = found.group(1).upper()
        if keyword not in known:
            return BAD_PARAMETER
        if keyword in parameters or (found.group(2) is None) != (keyword in _WITHOUT_VALUE):
            return BAD_SYNTAX
        parameters[keyword] = found.group(2) or ""
    return parameters


def _read_mail(path: str, parameters: dict[str, str]) -> MailCommand | Reply:
    size = parameters.get("SIZE", "0")
    body = parameters.get("BODY", "7BIT").upper()
    ret = parameters.get("RET", "").upper()
    raw_envid = parameters.get("ENVID", "")
    envid = decode_xtext(raw_envid)
    raw_auth = parameters.get("AUTH")
    auth = "" if raw_auth == "<>" else decode_xtext(raw_auth or "")
    hold_for = read_interval(parameters["HOLDFOR"]) if "HOLDFOR" in parameters else 0
    hold_until = read_date_time(parameters["HOLDUNTIL"]) if "HOLDUNTIL" in parameters else 0.0
    mt_priority = read_priority(parameters.get("MT-PRIORITY", "0"))
    if (
        _SIZE.fullmatch(size) is None
        or body not in ("7BIT", "8BITMIME")
        or ret not in ("", "FULL", "HDRS")
        or envid is None
        or len(raw_envid) > MAX_ENVID
        or auth is None
        or hold_for is None
        or hold_until is None
        or mt_priority is None
        or ("HOLDFOR" in parameters and "HOLDUNTIL" in parameters)
    ):
        return BAD_SYNTAX
    return MailCommand(
        path,
        int(size),
        Body(body),
        "SMTPUTF8" in parameters,
        Ret(ret) if ret else None,
        envid,
        None if raw_auth is None else auth,
        hold_for,
        hold_until,
        mt_priority if "MT-PRIORITY" in parameters else None,
        "REQUIRETLS" in parameters,
    )


def _read_notify(value: str) -> Notify | None:
    """Read a NOTIFY list; NEVER must stand alone (RFC 3461 4.1)."""
    notify = Notify.UNSPECIFIED
    for word in value.upper().split(","):
        if word not in Notify.__members__ or word == "UNSPECIFIED":
            return None
        notify |= Notify[word]
    return None if Notify.NEVER in notify and notify != Notify.NEVER else notify


def _format_notify(notify: int) -> str:
    return ",".join(name for flag, name in _NOTIFY_NAMES if notify & flag)


def _read_orcpt(value: str) -> str | None:
    return decode_orcpt(value) if len(value) <= MAX_ORCPT else None
