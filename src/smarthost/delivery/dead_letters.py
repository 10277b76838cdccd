"""Dead letters: recipients that failed of messages that came by HTTP, kept with the content so as to be sent again."""

from collections.abc import Callable, Sequence

from smarthost.mail.entry import Entry, Why
from smarthost.mail.outcome import Action, Outcome
from smarthost.queue.waiting import NEVER

DOOR = "http"  # what an arrival says of the HTTP door


class DeadLetters:
    """Says what is kept when recipients fail: an entry that waits for a person, till `keep` seconds are over."""

    def __init__(self, keep: float) -> None:
        """Keep for so many seconds; 0 is not at all."""
        self.keep = keep

    def of(self, entry: Entry, outcomes: Sequence[Outcome], now: float, mint: Callable[[], int]) -> tuple[Entry, ...]:
        """Give the entry, with a new number, that keeps those who failed; none for mail that came by SMTP."""
        message = entry.message
        if not self.keep or message.arrival.door != DOOR or message.report:
            return ()
        failed = [outcome for outcome in outcomes if outcome.action is Action.FAILED]
        if not failed:
            return ()
        return (
            Entry(
                message,
                mint(),
                entry.queue,
                tuple(outcome.recipient for outcome in failed),
                due=NEVER,
                expires=now + self.keep,
                deadline=NEVER,
                attempts=entry.attempts,
                why=Why.DEAD_LETTER,
                last=failed[-1].reason,
            ),
        )
