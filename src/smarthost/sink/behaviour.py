"""Reads from a recipient's local part how the sink shall behave towards it."""

import re
from enum import StrEnum

import msgspec

from smarthost.mail.reply import Reply, make_reply


class Act(StrEnum):
    """What the sink does for a recipient."""

    ACCEPT = "accept"
    REFUSE = "refuse"  # a code as reply to RCPT
    REFUSE_CONTENT = "refuse-content"  # a code as reply to the end of data
    DROP_MAIL = "drop-mail"  # close without a word for this recipient's transaction
    DROP_DATA = "drop-data"  # close at the DATA command
    DROP_DOT = "drop-dot"  # close behind the end of data, which is neither answered nor counted as a message
    SLOW = "slow"  # wait before each reply
    HANG = "hang"  # never answer again
    GARBAGE = "garbage"  # answer RCPT with what is no SMTP reply
    HUGE = "huge"  # answer RCPT with 100 KB


class Behaviour(msgspec.Struct, frozen=True):
    """How one address is treated: `reply` for the two refusals, `delay` in seconds for SLOW.

    `once`: only the first time that this address is seen; then it is accepted.
    """

    act: Act
    reply: Reply | None = None
    delay: float = 0.0
    once: bool = False


ACCEPT = Behaviour(Act.ACCEPT)
LONGEST_DELAY = 3600.0
GARBAGE_OCTETS = b"\x00\xff\xfe*** this is no SMTP reply ***\r\n"
HUGE_OCTETS = b"250-" + b"x" * 74 + b"\r\n"
HUGE_OCTETS = HUGE_OCTETS * (100_000 // len(HUGE_OCTETS)) + b"250 2.1.5 at last\r\n"

# Whatever stands behind, as a number, only makes addresses different: 550-17@, drop-dot.once-3@, 451.12@.
_REFUSAL = re.compile(
    r"(data-)?([45][0-5][0-9])(?:\.([45]\.[0-9]{1,3}\.[0-9]{1,3}))?(\.once)?(?:[.\-][0-9]+)?(?:=([a-z0-9_./-]+))?",
    re.IGNORECASE,
)
_OTHER = re.compile(
    r"(drop-mail|drop-data|drop-dot|hang|garbage|huge|slow-([0-9]{1,7}))(\.once)?(?:[.\-][0-9]+)?", re.IGNORECASE
)
_STATUS = {
    421: "4.3.2",
    450: "4.2.1",
    451: "4.3.0",
    452: "4.5.3",
    530: "5.7.0",
    535: "5.7.8",
    550: "5.1.1",
    551: "5.1.6",
    552: "5.2.2",
    553: "5.1.3",
    554: "5.7.1",
}


def choose_behaviour(address: str) -> Behaviour:
    """Choose by the local part; one that means nothing here is accepted.

    A code may be followed by an enhanced status ("452.4.2.2@") of the same class, else one that fits it is given; and
    at the end by the text of the reply, with "_" for spaces ("451=try_again_in_5_minutes@").
    """
    local = address.rpartition("@")[0] or address
    found = _REFUSAL.fullmatch(local)
    if found is not None:
        content, code, status, once, text = found.groups()
        number = int(code)
        if status is None or status[0] != code[0]:
            status = _STATUS.get(number, f"{code[0]}.0.0")
        act = Act.REFUSE_CONTENT if content else Act.REFUSE
        text = text.replace("_", " ") if text else "as the address asks"
        return Behaviour(act, make_reply(number, status, text), once=once is not None)
    found = _OTHER.fullmatch(local)
    if found is None:
        return ACCEPT
    word, milliseconds, once = found.groups()
    if milliseconds is not None:
        return Behaviour(Act.SLOW, delay=min(int(milliseconds) / 1000, LONGEST_DELAY), once=once is not None)
    return Behaviour(Act(word.lower()), once=once is not None)
