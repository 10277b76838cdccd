"""Refuses for now what is over a limit whose on_limit is "error": counted when it comes in, and never in the queue."""

from collections.abc import Callable, Iterable

from smarthost.mail.envelope import Recipient
from smarthost.mail.reply import Reply, make_reply
from smarthost.policy.ledger import Ledger
from smarthost.policy.rate import Cells
from smarthost.policy.restraints import Facts, Restraint, Restraints, sender_domain

_TEXT = "Limit reached, try again later"


class DoorLimits:
    """The limits of users, senders' domains and destinations that hold at the door. Mutable: it counts what comes in.

    A message counts when its content begins, in each limit once, and there with as many recipients as it is about.
    The reply is 450 4.7.1 ("temporarily blocked for policy reasons", RFC 5321 4.2.2), at MAIL for limits without a
    destination, at RCPT for the others and for recipients, at DATA where several sessions were let in together.
    """

    def __init__(self, ledger: Ledger, clock: Callable[[], float]) -> None:
        """Begin without limits; `follow` brings them."""
        self._ledger, self._clock = ledger, clock
        self._restraints = Restraints()
        self.active = False

    def follow(self, restraints: Restraints) -> None:
        """Follow other limits; what was counted stands."""
        self._restraints, self.active = restraints, bool(restraints)

    def refuse_sender(self, user: str, reverse_path: str) -> Reply | None:
        """Say whether a message may come from here now."""
        return self._refusal(self._restraints.of(_facts(user, reverse_path, "")), 1)

    def refuse_recipient(self, user: str, reverse_path: str, destination: str, count: int) -> Reply | None:
        """Say whether a recipient may be added now to `count` others."""
        return self._refusal(self._restraints.of(_facts(user, reverse_path, destination)), count + 1)

    def take(self, user: str, reverse_path: str, recipients: Iterable[Recipient]) -> Reply | None:
        """Count a message; where a limit does not allow it, nothing is counted, and the refusal is given."""
        counts: dict[str, tuple[Restraint, int]] = {}
        for recipient in recipients:
            for restraint in self._restraints.of(_facts(user, reverse_path, recipient.domain)):
                counts[restraint.name] = restraint, counts.get(restraint.name, (restraint, 0))[1] + 1
        for restraint, count in counts.values():
            if (refusal := self._refusal((restraint,), count)) is not None:
                return refusal
        now = self._clock()
        for restraint, count in counts.values():
            messages, recipients_cells = self._cells(restraint)
            messages.take(now)
            recipients_cells.take(now, count)
        return None

    def _refusal(self, restraints: Iterable[Restraint], count: int) -> Reply | None:
        now = self._clock()
        for restraint in restraints:
            messages, recipients = self._cells(restraint)
            if messages.room(now) < 1 or recipients.room(now) < count:
                return make_reply(450, "4.7.1", f"{_TEXT}: {restraint.name}")
        return None

    def _cells(self, restraint: Restraint) -> tuple[Cells, Cells]:
        """Give the cells of a limit; they need not wait for the disk, since they are written before the message is."""
        name = f"door {restraint.name}"
        return (
            self._ledger.cells(f"{name} messages", restraint.message_rate, is_strict=False),
            self._ledger.cells(f"{name} recipients", restraint.recipient_rate, is_strict=False),
        )


def _facts(user: str, reverse_path: str, destination: str) -> Facts:
    return Facts(destination, sender_domain(reverse_path), user, "", "")
