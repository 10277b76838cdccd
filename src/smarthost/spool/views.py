"""Views: what a person with `sqlite3` may ask the database, by names that stay when the tables change."""

# Where a field stands in the JSON array of `event.data` (mail.event), to which fields are only ever appended.
_PLACES = {
    "event": 1,
    "envid": 3,
    "sender": 4,
    "recipient": 5,
    "route": 6,
    "site": 7,
    "host": 8,
    "address": 9,
    "code": 10,
    "status": 11,
    "reply": 12,
    "stage": 13,
    "attempt": 14,
    "tls": 15,
    "size": 16,
    "user": 17,
    "client": 18,
    "listener": 19,
}
_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # of `mail.message.format_id`
_OF_MESSAGE = ("sender", "recipient", "size", "user", "client", "listener")


def _id(number: str) -> str:
    """Write a message id as people know it: twelve digits of base 32; what has no message has none."""
    digits = [f"substr('{_DIGITS}', ({number} >> {shift} & 31) + 1, 1)" for shift in range(55, -1, -5)]
    return f"CASE {number} WHEN 0 THEN '' ELSE {' || '.join(digits)} END"


def _when(seconds: str) -> str:
    """Write a Unix time as RFC 3339, in UTC."""
    return f"strftime('%Y-%m-%dT%H:%M:%fZ', {seconds}, 'unixepoch')"


def _field(place: int, data: str = "data") -> str:
    return f"json_extract(CAST({data} AS TEXT), '$[{place}]')"


def _columns(*names: str) -> str:
    return ", ".join(f"{_field(_PLACES[name])} AS {name}" for name in names)


def _count(*kinds: str) -> str:
    """Count the events of a message that are of some kinds."""
    said = ", ".join(f"'{kind}'" for kind in kinds)
    return f"(SELECT count(*) FROM event AS e WHERE e.message = a.message AND {_field(1, 'e.data')} IN ({said}))"


# Every event that the history keeps, oldest first as a rule.
SEND_LOG = f"""CREATE VIEW send_log AS
SELECT {_id("message")} AS id, {_when(_field(0))} AS time, {_field(0)} AS unix_time, {_columns(*_PLACES)} FROM event"""

# Every message that was accepted and is still known: `waiting` counts its entries in the queue, `relayed` and `failed`
# its recipients. `recipient` is "" where there are several.
MESSAGES = f"""CREATE VIEW messages AS
SELECT {_id("number")} AS id, {_when("unix_time")} AS accepted_at, unix_time, {", ".join(_OF_MESSAGE)},
  CASE WHEN waiting AND why = 'held' THEN 'held' WHEN waiting THEN 'waiting'
    WHEN failed AND relayed THEN 'partly failed' WHEN failed THEN 'failed'
    WHEN relayed THEN 'relayed' ELSE 'gone' END AS status,
  waiting, relayed, failed, why, {_when("next")} AS next_attempt_at
FROM (SELECT a.message AS number, {_field(0)} AS unix_time, {_columns(*_OF_MESSAGE)},
  (SELECT count(*) FROM entry AS e WHERE e.message = a.message) AS waiting,
  {_count("relayed")} AS relayed, {_count("failed", "expired")} AS failed,
  (SELECT why FROM entry AS e WHERE e.message = a.message ORDER BY number LIMIT 1) AS why,
  (SELECT min(due) FROM entry AS e WHERE e.message = a.message) AS next
  FROM event AS a WHERE {_field(1)} = 'accepted')"""
