"""Suppression: an address to which nothing is sent, or whose hard failures are counted, as the spool keeps it."""

from enum import StrEnum

import msgspec

from smarthost.mail.address import split_mailbox, to_a_label
from smarthost.mail.envelope import Recipient

Key = tuple[str, str]
"""Owner and address: "" is everybody, else a user's name; the address is `suppression_address`'s."""

REASON_MOST = 300  # characters of a reason that are kept


class Origin(StrEnum):
    """Who put an address on the list: the relay itself, a host or provider that said later that it is dead or
    complains, or a person or program.
    """

    AUTOMATIC = "automatic"
    REPORTED = "reported"
    MANUAL = "manual"


class Suppression(msgspec.Struct, frozen=True, gc=False):
    """One row of the list. While `since` is 0.0 the address is not suppressed: its hard failures are counted only.

    `failures` are those in a row, 0 for an address that a person put on the list; `since` and `expires` are Unix
    seconds, `expires` infinite for never; `reason` is a peer's last reply or a person's words.
    """

    owner: str
    address: str
    failures: int
    since: float
    expires: float
    origin: Origin = Origin.AUTOMATIC
    reason: str = ""

    @property
    def key(self) -> Key:
        """By whom and for which address it is found."""
        return self.owner, self.address

    @property
    def is_suppressed(self) -> bool:
        """Whether nothing is sent to the address, and not merely its failures counted."""
        return self.since > 0.0


def suppression_address(recipient: Recipient) -> str:
    """Give the form in which addresses are compared: the whole in lower case, the domain as A-label.

    RFC 5321 2.4 lets a host tell local-parts apart by case. None that matters does, but applications spell one mailbox
    in several ways: whoever told them apart would go on sending to what is known to be dead. Nothing else is folded:
    neither dots nor what follows a "+" mean the same everywhere.
    """
    local = recipient.address.rpartition("@")[0]
    return f"{local.lower()}@{recipient.domain}"


def read_suppression_address(text: str) -> str | None:
    """Give an address that a person or a file wrote in the form in which it is kept; None when it is none."""
    mailbox = split_mailbox(text.strip().removeprefix("<").removesuffix(">"))
    if mailbox is None or not mailbox[1]:
        return None
    label = to_a_label(mailbox[1])
    return None if label is None else f"{mailbox[0].lower()}@{label}"
