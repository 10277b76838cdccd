"""Asks limits of recipients, users, senders, destinations and tags once more when a session would take an entry."""

from smarthost.delivery.hall import Hall
from smarthost.mail.entry import Entry
from smarthost.mail.envelope import Recipient
from smarthost.mail.outcome import Outcome
from smarthost.queue.ready import ReadyQueue
from smarthost.queue.waiting import Key


def allowed(hall: Hall, ready: ReadyQueue, recipients: tuple[Recipient, ...], now: float) -> tuple[Recipient, ...]:
    """Give those of some recipients of the entry at the front that may go now, and count them; none is too many."""
    if ready.counts_recipients:
        recipients = recipients[: ready.recipient_cells.room(now)]
    if hall.gates.active:
        recipients = recipients[: hall.gates.may_go(ready.todo[0], len(recipients))]
    if ready.counts_recipients:
        ready.recipient_cells.take(now, len(recipients))
    return recipients


def give_way(hall: Hall, ready: ReadyQueue, partial: dict[Key, list[Outcome]]) -> None:
    """Take the entry at the front out, which may not go after all; `partial` is what is decided of entries in parts.

    It waits at its gate, in memory; or, if it has been tried in part, as after any attempt: those recipients that were
    delayed shall not be tried again each time it is let in.
    """
    entry = ready.todo.popleft()
    earlier = partial.pop(entry.key, None)
    if not earlier:
        hall.gates.turn_back(entry)
        return
    _put_off(hall, entry, earlier)


def end_begun(hall: Hall, entries: list[Entry], partial: dict[Key, list[Outcome]]) -> list[Entry]:
    """End the attempts of those entries that have been tried in part, so that none forgets what it was told; gives the
    others. What was relayed of one without anything being put off is on its way to disk: it waits there.
    """
    fresh: list[Entry] = []
    for entry in entries:
        earlier = partial.pop(entry.key, None)
        if earlier is None:
            fresh.append(entry)
        elif earlier:
            _put_off(hall, entry, earlier)
        else:
            hall.scheduler.unload((entry,))
    return fresh


def _put_off(hall: Hall, entry: Entry, earlier: list[Outcome]) -> None:
    """Settle an entry whose attempt ends behind one of its parts; those that were not reached wait with the delayed."""
    decided = {outcome.recipient for outcome in earlier}
    rest = tuple(recipient for recipient in entry.recipients if recipient not in decided)
    hall.settler.attempted(entry, earlier, rest)
