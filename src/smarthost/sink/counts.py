"""What the sink saw, as numbers: for the eyes of tests, at `GET /counts`."""

import msgspec

MOST_IDS = 500_000


class Counts(msgspec.Struct):
    """Counters since the start; mutable, changed by sessions only.

    `transactions` are MAIL commands that were accepted; `messages` are contents that were answered 250, and `octets`
    theirs. Refusals are counted by code. `dropped` counts connections that the sink closed, or left hanging, because
    an address asked for it. `ids` counts messages by their X-Test-Id field, else their Message-ID, for at most
    500,000 different ones; `ids_left_out` are messages whose id was one too many.
    """

    connections: int = 0
    connections_refused: int = 0
    connections_open: int = 0
    connections_most: int = 0
    tls_sessions: int = 0
    logins: int = 0
    transactions: int = 0
    transactions_most: int = 0
    recipients_accepted: int = 0
    recipients_refused: dict[int, int] = msgspec.field(default_factory=dict)
    messages: int = 0
    messages_refused: dict[int, int] = msgspec.field(default_factory=dict)
    octets: int = 0
    dropped: dict[str, int] = msgspec.field(default_factory=dict)
    bad_commands: int = 0
    ids: dict[str, int] = msgspec.field(default_factory=dict)
    ids_left_out: int = 0

    def add_id(self, name: str) -> None:
        """Count one more message with this id; "" counts as nothing."""
        seen = self.ids.get(name)
        if seen is not None:
            self.ids[name] = seen + 1
        elif name and len(self.ids) < MOST_IDS:
            self.ids[name] = 1
        elif name:
            self.ids_left_out += 1

    def snapshot(self) -> dict[str, object]:
        """Give all numbers, and of the ids only how many there are and how many came more than once."""
        fields: dict[str, object] = msgspec.structs.asdict(self)
        fields["ids"] = {
            "different": len(self.ids),
            "repeated": sum(1 for times in self.ids.values() if times > 1),
            "left_out": fields.pop("ids_left_out"),
        }
        return fields


def count_up(table: dict[int, int] | dict[str, int], key: int | str) -> None:
    """Add one to a table's number."""
    table[key] = table.get(key, 0) + 1  # type: ignore[index,arg-type]
