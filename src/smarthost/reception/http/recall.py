"""Answers of before, as HTTP gives them again: by an Idempotency-Key, or by the client's own id."""

from smarthost.mail.record import Record, RecordKey
from smarthost.queue.recall import MAX_KEY, Given, Recall, given_record, key_of, read_given
from smarthost.reception.http.front import Answer
from smarthost.reception.http.problem import Refused

__all__ = ["NAMES", "Recall", "answer_key", "answer_record", "repeat"]

NAMES = "message_name"


def answer_key(tenant: str, shown: str) -> RecordKey:
    """Give the key of the answer to an Idempotency-Key; raises Refused (400) for one that is too long."""
    if not shown or len(shown) > MAX_KEY:
        raise Refused(400, f"Idempotency-Key: 1 to {MAX_KEY} characters are allowed")
    return key_of(tenant, shown)


def answer_record(key: RecordKey, digest: str, answer: Answer, expires: float) -> Record:
    """Make the record of an answer."""
    return given_record(key, Given(digest, answer.status, answer.body), expires)


def repeat(record: Record, digest: str) -> Answer:
    """Give the answer of before; raises Refused (409) where the content was another one, or came by SMTP."""
    given = read_given(record)
    if given.digest != digest:
        raise Refused(409, "this Idempotency-Key came with another content before")
    return Answer(given.status, given.body, ((b"idempotent-replayed", b"true"),))
